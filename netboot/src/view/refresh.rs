//! Makes the view anew: what has changed is read, and the rest stays.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_inventory::{
    Effective, Group, Kept, Machine, Origin, Said, Snapshot, Stored, UnknownMachines,
};

use super::images::{self, Images};
use super::known::{Rest, cordoned};
use super::{View, ViewError};

/// What was read last, to be compared with what is there the next time.
#[derive(Debug, Default)]
pub(super) struct Read {
    images: Arc<Images>,
    /// The number of the newest change of the inventory that was read; the machines are in the snapshot.
    change: Option<i64>,
    groups: Vec<Stored<Group>>,
}

impl View {
    /// Reads anew what has changed. Machines and groups are read as a whole, but only when the inventory has changed.
    ///
    /// # Errors
    ///
    /// Fails when the inventory, the artifact store or the keys cannot be read. What was read before stays in use.
    pub async fn refresh(&self) -> Result<(), ViewError> {
        let mut known = self.refreshing.lock().await;
        let away = self.while_away();
        let change = match away {
            Some(_) => None,
            None => Some(self.inventory.last_change().await.map_err(ViewError::Inventory)?),
        };
        let mut snapshot = if change.is_some() && known.change == change {
            self.snapshot.load().machines_alone()
        } else {
            let read = match &away {
                Some(last) => last.contents(),
                None => self.inventory.contents().await.map_err(ViewError::Inventory)?,
            };
            known.groups = read.groups;
            // Should anything fail below, all is read again: the groups are of another moment than the snapshot then.
            known.change = None;
            self.untidy.store(true, Ordering::Relaxed);
            snapshot_of(read.change, read.machines, &known.groups)
        };
        let Rest { secrets: sealed, well: stays, ignored } = match away {
            Some(last) => last.rest,
            None => {
                let rest = Rest::read(&self.inventory, &cordoned(snapshot.machines())).await;
                rest.map_err(ViewError::Inventory)?
            }
        };
        if let Some(secrets) = self.secrets.get() {
            secrets.take(sealed, &known.groups);
        }
        let (artifacts, keys, before) =
            (self.artifacts.clone(), self.keys.clone(), known.images.clone());
        let read =
            tokio::task::spawn_blocking(move || images::read(&artifacts, keys.as_ref(), &before));
        let images = match read.await {
            Ok(read) => Arc::new(read?),
            Err(stopped) => {
                tracing::error!(error = &stopped as &dyn std::error::Error, "cannot read images");
                return Ok(());
            }
        };
        self.blobs.store(Arc::new(images.blobs.clone()));
        self.refused.store(Arc::new(images.refused.clone()));
        self.versions.store(Arc::new(images.served.clone()));
        self.public_keys.store(Arc::new(images.keys.clone()));
        snapshot.images = images.named.clone();
        snapshot.unknown = self.unknown;
        let kept = stays.into_iter().map(|(id, (image, version, arch))| {
            let version = images.by_digest(&version).map(Arc::new);
            (id, Kept { image, arch, version })
        });
        snapshot.kept = kept.collect();
        snapshot.bakes = BTreeMap::clone(&self.bakes.load());
        snapshot.absent = Vec::clone(&self.absent.load());
        snapshot.netconsole = self.netconsole.get().copied();
        if let Some(image) = self.stranger.get() {
            let said = Said { value: image.clone(), by: Origin::Default };
            let settings = Effective { image: Some(said), ..Effective::default() };
            snapshot.unknown = UnknownMachines::Boot;
            snapshot.stranger = Some(Arc::new(settings));
        }
        snapshot.ignored = ignored.into_iter().collect();
        known.change = change.map(|_| snapshot.change);
        known.images = images;
        self.snapshot.store(Arc::new(snapshot));
        Ok(())
    }
}

fn snapshot_of(change: i64, machines: Vec<Machine>, groups: &[Stored<Group>]) -> Snapshot {
    let machines = machines.into_iter().map(Arc::new).collect();
    let groups: Vec<Group> = groups.iter().map(|group| group.document.clone()).collect();
    let images = BTreeMap::new();
    let mut made = Snapshot::with_groups(machines, &groups, images, UnknownMachines::default());
    made.change = change;
    made
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
