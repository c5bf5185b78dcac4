//! Secrets whose keys are not here: their file was left behind, as where a backup was restored on another host.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use kiln_inventory::{Contents, Group, Machine, Store, StoreError, Stored, sealed_secrets};

use super::ring::{Ring, RingError};
use super::{OwnerKind, SecretDoc, SecretError, Secrets};

/// How many secrets of the inventory each key has sealed, and one of them in words: not all are in a list of secrets.
#[derive(Debug, Default)]
pub(super) struct Used(BTreeMap<String, (usize, String)>);

impl Used {
    pub(super) fn of(
        secrets: &[Stored<SecretDoc>],
        groups: &[Stored<Group>],
        machines: &[impl Borrow<Machine>],
    ) -> Self {
        let mut used: BTreeMap<String, (usize, String)> = BTreeMap::new();
        let mut count = |key: &str, what: &dyn Fn() -> String| match used.get_mut(key) {
            Some((count, _)) => *count += 1,
            None => drop(used.insert(key.to_owned(), (1, what()))),
        };
        let name_of = |id| {
            let mut machines = machines.iter().map(Borrow::borrow);
            machines.find(|machine| machine.id.0 == id).map(|machine| machine.spec.name.as_str())
        };
        let group_of = |id| {
            let mut groups = groups.iter();
            groups.find(|group| group.id == id).map(|group| group.document.name.as_str())
        };
        for SecretDoc { kind, owner, name, sealed, .. } in secrets.iter().map(|it| &it.document) {
            count(&sealed.key, &|| {
                let of = match kind {
                    OwnerKind::Machine => name_of(*owner),
                    OwnerKind::Group => group_of(*owner),
                    // It goes with the webhook alone.
                    OwnerKind::Webhook => return "what a webhook signs with".to_owned(),
                };
                format!("`{name}` of {} {}", kind.as_str(), of.unwrap_or_default())
            });
        }
        let groups = groups.iter().map(|it| &it.document);
        let groups = groups.map(|group| (&group.settings.metadata, "group", &group.name));
        let machines = machines.iter().map(|machine| &machine.borrow().spec);
        let machines = machines.map(|spec| (&spec.metadata, "machine", &spec.name));
        for (metadata, kind, name) in groups.chain(machines) {
            for sealed in sealed_secrets(metadata) {
                let key = sealed.split_once(':').map_or(sealed, |(key, _)| key);
                count(key, &|| format!("one in the metadata of {kind} {name}"));
            }
        }
        Self(used)
    }

    pub(super) async fn read(inventory: &Store) -> Result<Self, StoreError> {
        let secrets = inventory.all().await?;
        let Contents { machines, groups, .. } = inventory.contents().await?;
        Ok(Self::of(&secrets, &groups, &machines))
    }

    /// Says what of it these keys do not open.
    pub(super) fn check(&self, ring: &Ring) -> Result<(), RingError> {
        let lost = || self.0.iter().filter(|(key, _)| !ring.has(key));
        let (path, secrets) = (ring.path().to_owned(), lost().map(|(_, (count, _))| count).sum());
        match lost().next() {
            None => Ok(()),
            Some((_, (_, one))) if ring.current().is_none() => {
                Err(RingError::Missing { path, secrets, one: one.clone() })
            }
            Some((key, (_, one))) => {
                Err(RingError::Other { path, secrets, one: one.clone(), key: key.clone() })
            }
        }
    }
}

impl Secrets {
    /// Says which secrets cannot be opened, because their keys are not here.
    ///
    /// # Errors
    ///
    /// When there are any: the error names the file that is missing, and what to do.
    pub fn check(&self) -> Result<(), RingError> {
        self.used.load().check(&self.ring.load())
    }

    /// Refuses to make the first key where others have sealed something already: as the inventory is now, which another
    /// server may have changed.
    pub(super) async fn may_make_key(&self, store: &Store) -> Result<(), SecretError> {
        if self.key().is_none() {
            self.used.store(Arc::new(Used::read(store).await?));
            let _one = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            self.ring_that_is_there()?;
        }
        Ok(())
    }

    /// Refuses what seals everything anew where not everything can be opened, as the inventory is now.
    pub(super) async fn opens_all(&self, store: &Store) -> Result<(), SecretError> {
        self.may_make_key(store).await?;
        self.used.store(Arc::new(Used::read(store).await?));
        Ok(self.check()?)
    }

    /// Returns the keys. Where there were none, it is seen whether their file has come by now; there may be none still,
    /// but not where there is something that was sealed. For who holds the right to make keys.
    pub(super) fn ring_that_is_there(&self) -> Result<Arc<Ring>, RingError> {
        let ring = self.ring.load_full();
        if ring.current().is_some() {
            return Ok(ring);
        }
        let ring = Arc::new(Ring::read(ring.path())?);
        match ring.current() {
            None => self.used.load().check(&ring)?,
            Some(_) => self.ring.store(ring.clone()),
        }
        Ok(ring)
    }
}

/// Says which secrets of an inventory the keys in a file do not open.
pub(crate) async fn check_keys(path: &Path, inventory: &Store) -> Result<(), SecretError> {
    let used = Used::read(inventory).await?;
    if used.0.is_empty() {
        return Ok(());
    }
    Ok(used.check(&Ring::read(path)?)?)
}
