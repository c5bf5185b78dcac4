//! Secrets of machines and groups: encrypted where they are kept, and told to nobody but the system of a boot.
//!
//! What is in the inventory is sealed with a key that is in a file of its own, so that neither the inventory nor a
//! backup of it tells a secret. They leave the server in two ways only: in the machine's own segment, and for the token
//! of a boot; in both of them only to an address of which the network says that the machine has it.

mod lost;
mod place;
mod ring;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use kiln_inventory::{
    Document, Edit, Effective, Group, Machine, MachineId, Seal, Step, Store, StoreError, Stored,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::RwLockReadGuard;

use self::lost::Used;
pub(crate) use self::lost::check_keys;
use self::ring::Ring;
pub use self::ring::RingError;
pub(crate) use self::ring::{Sealed, hex, unhex};

/// The longest secret.
pub const LONGEST: usize = 64 << 10;
/// The most secrets of one machine or group.
pub const MOST: usize = 64;

/// Whose secret it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OwnerKind {
    /// A machine.
    Machine,
    /// A group of machines.
    Group,
    /// Who is told what happens: what its messages are signed with.
    Webhook,
}

impl OwnerKind {
    /// Returns its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Group => "group",
            Self::Webhook => "webhook",
        }
    }
}

/// A secret as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SecretDoc {
    /// Where it belongs: `machine/7/password`. It cannot be opened under another name.
    pub(crate) place: String,
    pub(crate) kind: OwnerKind,
    /// The id of its owner, which never names another one.
    pub(crate) owner: i64,
    pub(crate) name: String,
    pub(crate) sealed: Sealed,
    pub(crate) changed: i64,
    pub(crate) changed_by: String,
}

impl Document for SecretDoc {
    const NOUN: &'static str = "secret";

    #[allow(clippy::misnamed_getters, reason = "the place is what tells secrets apart")]
    fn name(&self) -> &str {
        &self.place
    }

    fn check(&self) -> Result<(), String> {
        check_name(&self.name)
    }

    fn hide(document: &mut Value) {
        if let Some(document) = document.as_object_mut() {
            document.remove("sealed");
        }
    }
}

/// Refuses what cannot be the name of a file.
fn check_name(name: &str) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if first && name.len() <= 63 && name.bytes().all(plain) {
        return Ok(());
    }
    let name: String = name.escape_debug().take(80).collect();
    Err(format!(
        "`{name}` cannot be the name of a secret; use at most 63 letters, digits, `-`, `_` and `.`, with a letter or \
         digit first"
    ))
}

/// A secret cannot be kept or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecretError {
    /// The keys, or what was sealed with them.
    #[error("secret `{place}`")]
    Ring {
        /// Which one.
        place: String,
        /// Why.
        #[source]
        source: RingError,
    },
    /// The keys themselves.
    #[error(transparent)]
    Keys(#[from] RingError),
    /// The inventory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There are enough of them.
    #[error("there are {MOST} secrets there already; remove some")]
    TooMany,
    /// It is longer than a file may be.
    #[error("a secret has at most {} KiB", LONGEST >> 10)]
    TooLong,
}

/// Whose secrets there are, as the inventory has them.
#[derive(Debug, Default)]
struct Known {
    machines: HashMap<MachineId, Vec<Arc<SecretDoc>>>,
    groups: HashMap<String, Vec<Arc<SecretDoc>>>,
}

/// The secrets of a site.
#[derive(Debug)]
pub struct Secrets {
    ring: ArcSwap<Ring>,
    known: ArcSwap<Known>,
    /// With which keys all of it is sealed, as was read last.
    used: ArcSwap<Used>,
    /// Held by who makes or changes keys: two of them would each lose the key of the other.
    keys: Mutex<()>,
    /// Held by who seals until that is written, and by who lets old keys go, alone.
    sealing: tokio::sync::RwLock<()>,
}

impl Secrets {
    /// Reads the keys; where there are none, the first secret makes one.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, holds something else, or others may read it.
    pub fn open(path: &Path) -> Result<Self, RingError> {
        Ok(Self::with(Arc::new(Ring::read(path)?)))
    }

    fn with(ring: Arc<Ring>) -> Self {
        Self {
            ring: ArcSwap::new(ring),
            known: ArcSwap::default(),
            used: ArcSwap::default(),
            keys: Mutex::default(),
            sealing: tokio::sync::RwLock::default(),
        }
    }

    /// Takes the secrets that there are; those of metadata are in the groups and machines.
    pub(crate) fn take(
        &self,
        all: Vec<Stored<SecretDoc>>,
        groups: &[Stored<Group>],
        machines: &[Arc<Machine>],
    ) {
        self.used.store(Arc::new(Used::of(&all, groups, machines)));
        let names: HashMap<i64, &String> =
            groups.iter().map(|group| (group.id, &group.document.name)).collect();
        let mut known = Known::default();
        for Stored { document, .. } in all {
            let secret = Arc::new(document);
            match secret.kind {
                OwnerKind::Machine => {
                    known.machines.entry(MachineId(secret.owner)).or_default().push(secret);
                }
                OwnerKind::Group => {
                    if let Some(name) = names.get(&secret.owner) {
                        known.groups.entry((*name).clone()).or_default().push(secret);
                    }
                }
                OwnerKind::Webhook => {}
            }
        }
        self.known.store(Arc::new(known));
    }

    /// Keeps a secret, in the place of the one of the same name.
    pub(crate) async fn set(
        &self,
        store: &Store,
        (kind, owner, name): (OwnerKind, i64, &str),
        text: &[u8],
        by: &str,
    ) -> Result<(), SecretError> {
        let _sealed_with_a_key_that_stays = self.sealing.read().await;
        let now = self.may_set(store, (kind, owner, name), text).await?;
        let ring = self.ring_to_seal()?;
        let place = place_of(kind, owner, name);
        let sealed = ring.seal(&place, text)?;
        let secret = SecretDoc {
            place,
            kind,
            owner,
            name: name.to_owned(),
            sealed,
            changed: crate::boots::now_ms(),
            changed_by: by.to_owned(),
        };
        match now {
            Some(now) => store.change(now.id, &secret, None).await.map(drop)?,
            None => store.add(&secret).await.map(drop)?,
        }
        Ok(())
    }

    /// Checks whether a secret can be kept, and returns the one whose place it would take.
    pub(crate) async fn may_set(
        &self,
        store: &Store,
        (kind, owner, name): (OwnerKind, i64, &str),
        text: &[u8],
    ) -> Result<Option<Stored<SecretDoc>>, SecretError> {
        check_name(name).map_err(StoreError::Invalid)?;
        if text.len() > LONGEST {
            return Err(SecretError::TooLong);
        }
        self.may_make_key(store).await?;
        if let Some(now) = store.named::<SecretDoc>(&place_of(kind, owner, name)).await? {
            return Ok(Some(now));
        }
        let all = store.all::<SecretDoc>().await?;
        let same = |other: &&Stored<SecretDoc>| {
            (other.document.kind, other.document.owner) == (kind, owner)
        };
        match all.iter().filter(same).count() {
            MOST.. => Err(SecretError::TooMany),
            _ => Ok(None),
        }
    }

    /// Keeps the keys that are in use until what is sealed with them is written: to be called before the edit begins, and
    /// held until it has ended.
    pub(crate) async fn hold_keys(&self) -> RwLockReadGuard<'_, ()> {
        self.sealing.read().await
    }

    /// Gives the secrets of a machine that is about to go to another one, as far as that has none of the same name and
    /// not as many as it may have. They are sealed anew: nobody can open a secret in another place than its own. Returns
    /// the names of those that go with their machine.
    pub(crate) async fn take_over(
        &self,
        edit: &mut Edit<'_>,
        from: MachineId,
        into: MachineId,
    ) -> Result<Vec<String>, SecretError> {
        let all = edit.all::<SecretDoc>().await?.into_iter().map(|stored| stored.document);
        let of_machines = all.filter(|secret| secret.kind == OwnerKind::Machine);
        let (mut own, mut given) = (BTreeSet::new(), Vec::new());
        for secret in of_machines {
            if secret.owner == into.0 {
                own.insert(secret.name);
            } else if secret.owner == from.0 {
                given.push(secret);
            }
        }
        let mut dropped = Vec::new();
        for secret in given {
            if own.len() >= MOST || !own.insert(secret.name.clone()) {
                dropped.push(secret.name);
                continue;
            }
            // Says that their file is missing where there are no keys, which could open nothing.
            let ring = self.ring_to_seal()?;
            let text = self.opened(&secret).map_err(|error| match self.check() {
                Err(lost) => lost.into(),
                Ok(()) => error,
            })?;
            let place = place_of(OwnerKind::Machine, into.0, &secret.name);
            let sealed = ring.seal(&place, &text)?;
            edit.add(&SecretDoc { place, sealed, owner: into.0, ..secret }).await?;
        }
        Ok(dropped)
    }

    /// Returns the id of the key in use; the first secret makes one.
    pub(crate) fn key(&self) -> Option<String> {
        self.ring.load().current().map(str::to_owned)
    }

    /// Returns a secret by its place.
    pub(crate) fn opened(&self, secret: &SecretDoc) -> Result<Vec<u8>, SecretError> {
        let failed = |source| SecretError::Ring { place: secret.place.clone(), source };
        self.ring.load().open(&secret.place, &secret.sealed).map_err(failed)
    }

    /// Returns the keys, and makes the first one.
    fn ring_to_seal(&self) -> Result<Arc<Ring>, RingError> {
        let _one = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring_that_is_there()?;
        if ring.current().is_some() {
            return Ok(ring);
        }
        let ring = Arc::new(ring.with_new_key()?);
        self.ring.store(ring.clone());
        Ok(ring)
    }

    /// Makes a new key, seals everything with it, and lets the old ones go. Returns its id and how many secrets there
    /// are. Where it breaks off, the old keys are still there.
    pub(crate) async fn rotate(&self, store: &Store) -> Result<(String, usize), SecretError> {
        let _alone = self.sealing.write().await;
        self.opens_all(store).await?;
        let before = self.key();
        let ring = {
            let _one = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
            let ring = Arc::new(self.ring.load().with_new_key()?);
            self.ring.store(ring.clone());
            ring
        };
        let (count, mut edit) = renewed(store, &ring).await?;
        // Where there is nothing to seal anew, nothing else would tell of it.
        let after = Some(json!({"key": ring.current(), "secrets": count}));
        let before = Some(json!({"key": before}));
        let step = Step { noun: SecretDoc::NOUN, subject: 0, name: "keys", before, after };
        edit.log(step).await?;
        edit.commit().await?;
        let _one = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        // Another rotation has made a newer key by now, and lets these go.
        if self.ring.load().current() == ring.current() {
            self.ring.store(Arc::new(ring.without_old_keys()?));
        }
        Ok((ring.current().unwrap_or_default().to_owned(), count))
    }

    /// Does what [`rotate`](Self::rotate) does with a key that is kept nowhere, and returns how many secrets there are.
    pub(crate) async fn would_rotate(&self, store: &Store) -> Result<usize, SecretError> {
        self.opens_all(store).await?;
        let ring = Arc::new(self.ring.load().with_one_more()?);
        let store = store.sealing(Arc::new(Self::with(ring.clone())));
        let (count, _dropped) = renewed(&store, &ring).await?;
        Ok(count)
    }

    /// Returns whether a machine has any secrets.
    pub(crate) fn has(&self, machine: &Machine, settings: &Effective) -> bool {
        let known = self.known.load();
        known.machines.contains_key(&machine.id)
            || settings.groups.iter().any(|group| known.groups.contains_key(&**group))
    }

    /// Returns the secrets of a machine, by name: its own before those of its groups, the strongest first.
    pub(crate) fn of(
        &self,
        machine: &Machine,
        settings: &Effective,
    ) -> Result<BTreeMap<String, Vec<u8>>, SecretError> {
        let known = self.known.load();
        let groups = settings.groups.iter().filter_map(|group| known.groups.get(&**group));
        let mut all: BTreeMap<String, &SecretDoc> = BTreeMap::new();
        for secret in known.machines.get(&machine.id).into_iter().chain(groups).flatten() {
            all.entry(secret.name.clone()).or_insert(secret);
        }
        all.into_iter().map(|(name, secret)| Ok((name, self.opened(secret)?))).collect()
    }
}

/// The secrets of metadata, which are kept where the metadata is: `KEY:TEXT` after the mark.
impl Seal for Secrets {
    fn seal(&self, place: &str, text: &[u8]) -> Result<String, String> {
        let ring = self.ring_to_seal().map_err(|error| crate::cli::chain(&error))?;
        let sealed = ring.seal(&in_metadata(place), text).map_err(|error| error.to_string())?;
        Ok(format!("{}:{}", sealed.key, sealed.text))
    }

    fn open(&self, place: &str, sealed: &str) -> Result<Vec<u8>, String> {
        let (key, text) = sealed.split_once(':').ok_or("it is not how Kiln seals")?;
        let sealed = Sealed { key: key.to_owned(), text: text.to_owned() };
        let opened = self.ring.load().open(&in_metadata(place), &sealed);
        opened.map_err(|error| error.to_string())
    }

    fn is_current(&self, sealed: &str) -> bool {
        let key = sealed.split_once(':').map(|(key, _)| key);
        key.is_some() && key == self.ring.load().current()
    }
}

fn in_metadata(place: &str) -> String {
    format!("metadata/{place}")
}

/// Seals everything with the key of a ring that is in use, in an edit that is to be committed, and returns how much it is.
async fn renewed<'s>(store: &'s Store, ring: &Ring) -> Result<(usize, Edit<'s>), SecretError> {
    let all = store.all::<SecretDoc>().await?;
    let (count, mut edit) = (all.len(), store.edit().await?);
    for Stored { id, revision, document } in all {
        let place = document.place.clone();
        let failed = |source| SecretError::Ring { place: place.clone(), source };
        let text = ring.open(&place, &document.sealed).map_err(failed)?;
        let sealed = ring.seal(&place, &text)?;
        edit.change(id, &SecretDoc { sealed, ..document }, Some(revision)).await?;
    }
    // Those of metadata too: the store seals with these keys.
    let count = count + edit.renew_secrets().await?;
    Ok((count, edit))
}

/// Returns whether a machine is at an address, as far as the network says; `given` where this server gave it the address
/// in this boot.
pub(crate) fn may_go_to(machine: &Machine, peer: IpAddr, given: bool) -> bool {
    place::is_at(machine, peer, given)
}

/// Returns where a secret belongs.
pub(crate) fn place_of(kind: OwnerKind, owner: i64, name: &str) -> String {
    format!("{}/{owner}/{name}", kind.as_str())
}

#[cfg(test)]
mod tests;
