//! Makes the view anew: what has changed is read, and the rest stays.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_inventory::{
    Changed, Contents, Document as _, Effective, Group, Kept, Machine, Mark, News, Origin, Said,
    Snapshot, StoreError, Stored, UnknownMachines,
};
use kiln_types::Mac;

use super::images::{self, Images};
use super::known::{Rest, Well, cordoned, well};
use super::moved::{self, Moved};
use super::{View, ViewError};
use crate::secrets::SecretDoc;

/// What was read last, to be compared with what is there the next time.
#[derive(Debug, Default)]
pub(super) struct Read {
    images: Arc<Images>,
    /// Until where the log of changes was read; nothing where what is below is not what the inventory had then.
    mark: Option<Mark>,
    /// The machines with what holds for them, and nothing else.
    machines: Snapshot,
    groups: Vec<Stored<Group>>,
    /// What each cordoned machine last ran well.
    well: Well,
    ignored: HashSet<Mac>,
    /// Channels that have moved, and the log of changes does not say so yet.
    unsaid: VecDeque<Moved>,
    /// Whether what channels name has been read once.
    read_images: bool,
    /// Whether who opens secrets has been given them.
    gave_secrets: bool,
    /// The last of those who asked before it was read.
    serves: u64,
}

impl View {
    /// Reads anew what has changed in the inventory and in the artifact store.
    ///
    /// # Errors
    ///
    /// Fails when the inventory, the artifact store or the keys cannot be read. What was read before stays in use.
    pub async fn refresh(&self) -> Result<(), ViewError> {
        let mut read = self.refreshing.lock().await;
        self.read_inventory(&mut read, true).await.map_err(ViewError::Inventory)?;
        let moved = self.read_images(&mut read).await?;
        self.show(&read);
        moved::log(&moved);
        read.unsaid.extend(moved);
        if self.while_away().is_none() {
            moved::tell(&self.inventory, &mut read.unsaid).await;
        }
        Ok(())
    }

    /// Reads anew what has changed in the inventory: whatever was written there before the call is seen by all who look
    /// once it returns. Who reads does it for all who have called by then.
    ///
    /// # Errors
    ///
    /// Fails when the inventory cannot be read. What was read before stays in use.
    pub async fn refresh_inventory(&self) -> Result<(), StoreError> {
        let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let mut read = self.refreshing.lock().await;
        if read.serves >= number {
            return Ok(());
        }
        let serves = self.asked.load(Ordering::SeqCst);
        self.read_inventory(&mut read, false).await?;
        self.show(&read);
        read.serves = serves;
        Ok(())
    }

    /// Reads what the log of changes says has changed; with `all` also secrets that nothing is said of. All of it is
    /// taken or nothing.
    async fn read_inventory(&self, read: &mut Read, all: bool) -> Result<(), StoreError> {
        if let Some(last) = self.while_away() {
            let Contents { machines, groups, .. } = last.contents();
            let Rest { secrets, well, ignored } = last.rest;
            read.machines = snapshot_of(0, machines, &groups);
            (read.mark, read.groups, read.well) = (None, groups, well);
            read.ignored = ignored.into_iter().collect();
            self.give(read, Some(secrets));
            return Ok(());
        }
        let news = match &read.mark {
            Some(mark) => self.inventory.news(mark).await?,
            None => News::All(self.inventory.contents().await?),
        };
        // Also what is sealed in the metadata of machines counts for whether all can be opened.
        let mut secrets_changed = all || !read.gave_secrets;
        let (mark, machines, groups) = match news {
            News::All(Contents { mark, machines, groups }) => {
                secrets_changed = true;
                self.untidy.store(true, Ordering::Relaxed);
                (mark.clone(), snapshot_of(mark.change, machines, &groups), Some(groups))
            }
            News::Some(Changed { mark, machines, groups, nouns }) => {
                // Secrets go with their machines, without a word of their own.
                let has = |now: &Machine| now.spec.metadata.contains_key("secrets");
                secrets_changed |= machines.iter().any(|(_, now)| now.as_ref().is_none_or(has))
                    || groups.is_some()
                    || nouns.contains(SecretDoc::NOUN)
                    // Any of these may be the last of those whose key is lost.
                    || self.secrets.get().is_some_and(|secrets| secrets.check().is_err());
                let said = groups.as_deref().map(documents);
                let now = read.machines.changed(mark.change, machines, said);
                (mark, now, groups)
            }
        };
        // A boot that becomes healthy is in no log of changes.
        let well = well(&self.inventory, &cordoned(machines.machines())).await?;
        let ignored = self.inventory.ignored_macs().await?;
        let secrets = match self.secrets.get() {
            Some(_) if secrets_changed => Some(self.inventory.all().await?),
            _ => None,
        };
        (read.mark, read.machines, read.well) = (Some(mark), machines, well);
        read.ignored = ignored.into_iter().collect();
        if let Some(groups) = groups {
            read.groups = groups;
        }
        self.give(read, secrets);
        Ok(())
    }

    /// Gives secrets to who opens them.
    fn give(&self, read: &mut Read, sealed: Option<Vec<Stored<SecretDoc>>>) {
        if let (Some(secrets), Some(sealed)) = (self.secrets.get(), sealed) {
            secrets.take(sealed, &read.groups, read.machines.machines());
            read.gave_secrets = true;
        }
    }

    /// Reads the artifact store and the keys. Returns which channels name other versions than before; the first time
    /// nobody knows what was before.
    async fn read_images(&self, read: &mut Read) -> Result<Vec<Moved>, ViewError> {
        let (artifacts, keys, before) =
            (self.artifacts.clone(), self.keys.clone(), read.images.clone());
        let images =
            tokio::task::spawn_blocking(move || images::read(&artifacts, keys.as_ref(), &before));
        let images = match images.await {
            Ok(images) => Arc::new(images?),
            Err(stopped) => {
                tracing::error!(error = &stopped as &dyn std::error::Error, "cannot read images");
                return Ok(Vec::new());
            }
        };
        self.blobs.store(Arc::new(images.blobs.clone()));
        self.refused.store(Arc::new(images.refused.clone()));
        self.versions.store(Arc::new(images.served.clone()));
        self.public_keys.store(Arc::new(images.keys.clone()));
        let moved = match read.read_images {
            true => {
                moved::moved(&images::served(&read.images.named), &images::served(&images.named))
            }
            false => Vec::new(),
        };
        (read.images, read.read_images) = (images, true);
        Ok(moved)
    }

    /// Lets everybody see what was read.
    fn show(&self, read: &Read) {
        let mut snapshot = read.machines.clone();
        snapshot.images = read.images.named.clone();
        snapshot.unknown = self.unknown;
        let kept = read.well.iter().cloned().map(|(id, (image, version, arch))| {
            let version = read.images.by_digest(&version).map(Arc::new);
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
        snapshot.ignored = read.ignored.clone();
        self.snapshot.store(Arc::new(snapshot));
    }
}

fn documents(groups: &[Stored<Group>]) -> Vec<Group> {
    groups.iter().map(|group| group.document.clone()).collect()
}

fn snapshot_of(change: i64, machines: Vec<Machine>, groups: &[Stored<Group>]) -> Snapshot {
    let machines = machines.into_iter().map(Arc::new).collect();
    let (images, unknown) = (BTreeMap::new(), UnknownMachines::default());
    let mut made = Snapshot::with_groups(machines, &documents(groups), images, unknown);
    made.change = change;
    made
}

#[cfg(test)]
#[path = "refresh_tests.rs"]
mod tests;
