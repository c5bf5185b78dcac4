//! What the servers look at: the machines of the inventory and the images of the artifact store, at one moment.

mod images;
mod known;
mod moved;
mod recognise;
mod refresh;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_builder::store::{Store as Artifacts, StoreError as ArtifactsError};
use kiln_builder::trust::{KeyDir, TrustError};
use kiln_inventory::{
    Bake, Effective, Flag, Loader, Machine, Netconsole, Snapshot, Store, StoreError,
    UnknownMachines, open_secrets,
};
use kiln_types::{Arch, Digest, ImageRef, Mac};
use tokio_util::sync::CancellationToken;

use self::refresh::Read;
use crate::boots::Identity;
use crate::metadata;
use crate::secrets::{self, Secrets};
use crate::tls::Tls;
use crate::trouble::Trouble;

pub use self::images::refused;
pub(crate) use self::known::Known;

/// How often the index of the artifact store is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The view, and the means to make it anew.
#[derive(Debug)]
pub struct View {
    inventory: Store,
    /// What holds while the inventory cannot be reached since the start.
    away: Mutex<Option<Known>>,
    artifacts: Artifacts,
    /// The keys that must have signed what is served; without them everything is.
    keys: Option<KeyDir>,
    unknown: UnknownMachines,
    /// The image that machines run which nobody has added.
    stranger: OnceLock<ImageRef>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    blobs: ArcSwap<HashMap<Digest, u64>>,
    refused: ArcSwap<BTreeMap<Digest, String>>,
    bakes: ArcSwap<Bakes>,
    absent: ArcSwap<Vec<(Loader, Arch)>>,
    /// Where kernels are heard.
    netconsole: OnceLock<Netconsole>,
    versions: ArcSwap<HashMap<Digest, ServedVersion>>,
    /// The public keys whose signatures count, in hexadecimal digits.
    public_keys: ArcSwap<Vec<String>>,
    /// What systems that boot are to trust, where they talk encrypted.
    tls: OnceLock<Arc<Tls>>,
    /// What machines are told that nobody else may know.
    secrets: OnceLock<Arc<Secrets>>,
    /// By what machines are recognised.
    learnt: tokio::sync::Mutex<recognise::Learnt>,
    /// Only one refresh at a time, so that an older state never replaces a newer one.
    refreshing: tokio::sync::Mutex<Read>,
    /// How often somebody has asked for what is in the inventory now.
    asked: AtomicU64,
    /// Whether much was read since memory was given back.
    untidy: AtomicBool,
}

/// A version that is served, as far as a running system has to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ServedVersion {
    pub(crate) image: String,
    pub(crate) arch: Arch,
    pub(crate) manifest_size: u64,
    /// The least memory of a machine that boots it, in bytes.
    pub(crate) min_ram: u64,
    /// How many segments its initrd has, without that of the machine.
    pub(crate) segments: usize,
    /// The signature of its manifest, in hexadecimal digits.
    pub(crate) signature: Option<String>,
}

/// What is about to be built, by image and architecture.
type Bakes = BTreeMap<String, BTreeMap<Arch, Bake>>;

/// The view cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The inventory cannot be read.
    #[error("cannot read the inventory")]
    Inventory(#[source] StoreError),
    /// The artifact store cannot be read.
    #[error("cannot read the artifact store in {}", .0.display())]
    Artifacts(PathBuf, #[source] ArtifactsError),
    /// The keys that signatures are checked with cannot be read.
    #[error("cannot read the trusted keys in {}", .0.display())]
    Keys(PathBuf, #[source] TrustError),
}

impl View {
    /// Reads everything for the first time. With a folder of keys, only what one of them has signed is served.
    ///
    /// # Errors
    ///
    /// Fails when the inventory or the artifact store cannot be read.
    pub async fn load(
        inventory: Store,
        artifacts: Artifacts,
        unknown: UnknownMachines,
        keys: Option<KeyDir>,
    ) -> Result<Self, ViewError> {
        Self::load_known(inventory, artifacts, unknown, keys, None).await
    }

    /// As [`load`](Self::load), from what was known where the inventory is away.
    pub(crate) async fn load_known(
        inventory: Store,
        artifacts: Artifacts,
        unknown: UnknownMachines,
        keys: Option<KeyDir>,
        known: Option<Known>,
    ) -> Result<Self, ViewError> {
        let view = Self {
            inventory,
            away: Mutex::new(known),
            artifacts,
            keys,
            refused: ArcSwap::default(),
            unknown,
            stranger: OnceLock::new(),
            snapshot: Arc::default(),
            blobs: ArcSwap::default(),
            bakes: ArcSwap::default(),
            absent: ArcSwap::default(),
            netconsole: OnceLock::new(),
            versions: ArcSwap::default(),
            public_keys: ArcSwap::default(),
            tls: OnceLock::new(),
            secrets: OnceLock::new(),
            learnt: tokio::sync::Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
            asked: AtomicU64::new(0),
            untidy: AtomicBool::new(false),
        };
        view.refresh().await?;
        Ok(view)
    }

    /// Tells systems that boot to talk encrypted. Once; they were told nothing before.
    pub fn encrypts_with(&self, tls: Arc<Tls>) {
        let _ = self.tls.set(tls);
    }

    /// Returns the certificate of the authority (DER) that systems that boot are to trust.
    pub(crate) fn authority(&self) -> Option<Arc<[u8]>> {
        self.tls.get().map(|tls| tls.authority())
    }

    /// Takes what opens the secrets of machines, once, and reads everything anew.
    ///
    /// # Errors
    ///
    /// Fails as [`refresh`](Self::refresh) does.
    pub async fn keeps(&self, secrets: Arc<Secrets>) -> Result<(), ViewError> {
        let _ = self.secrets.set(secrets);
        self.refresh().await
    }

    /// Says which secrets no machine can be told, because their keys are not here.
    pub(crate) fn lost_secrets(&self) -> Option<String> {
        self.secrets.get()?.check().err().map(|lost| lost.to_string())
    }

    /// Returns whether an interface is that of a retired machine, which gets nothing, also of what it had begun to fetch.
    pub(crate) fn is_retired(&self, mac: Mac) -> bool {
        let snapshot = self.snapshot();
        snapshot.machine_by_mac(mac).is_some_and(|machine| machine.spec.is(Flag::Retired))
    }

    /// Returns the secrets of a machine that boots, or why it gets none. The reason is for its operator.
    pub(crate) fn secrets_for(
        &self,
        identity: &Identity,
    ) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let snapshot = self.snapshot();
        match snapshot.known(identity.mac) {
            Some((machine, settings)) => {
                self.secrets_of(machine, settings, identity.peer, identity.given)
            }
            None => Ok(BTreeMap::new()),
        }
    }

    /// Returns the secrets of a machine that has proved by a token which boot it runs, from an address that this server
    /// gave it, or not.
    pub(crate) fn secrets_of(
        &self,
        machine: &Machine,
        settings: &Effective,
        peer: IpAddr,
        given: bool,
    ) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let sealed = self.secrets.get().filter(|it| it.has(machine, settings));
        if sealed.is_none() && !settings.metadata.contains_key(metadata::SECRETS) {
            return Ok(BTreeMap::new());
        }
        if !secrets::may_go_to(machine, peer, given) {
            return Err(format!(
                "nothing but its own word says that {peer} is this machine; see docs/security.md"
            ));
        }
        let opened = sealed.map(|secrets| secrets.of(machine, settings));
        opened.transpose().map(Option::unwrap_or_default).map_err(|error| {
            let error = crate::cli::chain(&error);
            tracing::error!(machine = machine.spec.name, error, "secrets cannot be opened");
            error
        })
    }

    /// Returns the settings of a machine with the secrets of its metadata as it is told them.
    pub(crate) fn opened(&self, settings: &Effective) -> Result<Effective, String> {
        let mut settings = settings.clone();
        if let Some(secrets) = self.secrets.get() {
            open_secrets(&**secrets, &mut settings.metadata)?;
        }
        Ok(settings)
    }

    /// Lets machines that nobody has added run an image. Once.
    ///
    /// # Errors
    ///
    /// Fails as [`refresh`](Self::refresh) does.
    pub async fn boots_strangers(&self, image: ImageRef) -> Result<(), ViewError> {
        let _ = self.stranger.set(image);
        self.refresh().await
    }

    /// Reads the inventory itself from now on: it can be reached again.
    ///
    /// # Errors
    ///
    /// Fails as [`refresh`](Self::refresh) does.
    pub(crate) async fn is_back(&self) -> Result<(), ViewError> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.refresh().await
    }

    fn while_away(&self) -> Option<Known> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the inventory that it shows.
    pub(crate) const fn inventory(&self) -> &Store {
        &self.inventory
    }

    /// Returns the snapshot that decisions are made from.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Returns the cell that always holds the newest snapshot.
    pub fn shared(&self) -> Arc<ArcSwap<Snapshot>> {
        self.snapshot.clone()
    }

    /// Returns where a file is and how long, when it belongs to a version of an image.
    pub fn blob(&self, digest: &Digest) -> Option<(PathBuf, u64)> {
        let size = *self.blobs.load().get(digest)?;
        Some((self.artifacts.artifact(digest), size))
    }

    /// Returns how long all files of the versions that are served are together.
    pub(crate) fn served_bytes(&self) -> u64 {
        self.blobs.load().values().sum()
    }

    /// Returns files of versions that are served and that are not in the artifact store, or have another length there:
    /// the beginnings of their digests, at most so many. It asks the disk for each.
    pub(crate) fn damaged(&self, most: usize) -> Vec<String> {
        let blobs = self.blobs.load();
        let gone = blobs.iter().filter(|(digest, size)| {
            let there = std::fs::metadata(self.artifacts.artifact(digest));
            there.map(|file| file.len()).ok() != Some(**size)
        });
        gone.take(most).map(|(digest, _)| digest.short()).collect()
    }

    /// Returns a version that is served.
    pub(crate) fn version(&self, digest: &Digest) -> Option<ServedVersion> {
        self.versions.load().get(digest).cloned()
    }

    /// Returns the versions that are served and whose digests begin with these hexadecimal digits.
    pub(crate) fn versions_that_begin(&self, digits: &str) -> Vec<(Digest, ServedVersion)> {
        let versions = self.versions.load();
        let found = versions.iter().filter(|(digest, _)| digest.hex().starts_with(digits));
        found.map(|(digest, version)| (*digest, version.clone())).collect()
    }

    /// Returns the public keys whose signatures count, in hexadecimal digits. None where signatures do not matter.
    pub fn keys(&self) -> Arc<Vec<String>> {
        self.public_keys.load_full()
    }

    /// Returns the versions that are not served, and why.
    pub fn refused(&self) -> Arc<BTreeMap<Digest, String>> {
        self.refused.load_full()
    }

    /// Returns the artifact store.
    pub const fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Returns the machines as the inventory has them now: those of the snapshot, which is made anew before where somebody
    /// has changed something since.
    ///
    /// # Errors
    ///
    /// Fails when the inventory cannot be read.
    pub(crate) async fn machines(&self) -> Result<Arc<[Arc<Machine>]>, StoreError> {
        let snapshot = self.snapshot();
        if snapshot.change == self.inventory.last_change().await? {
            return Ok(snapshot.shared_machines());
        }
        self.refresh_inventory().await?;
        Ok(self.snapshot().shared_machines())
    }

    /// Takes what is about to be built, and reads everything anew: a build that has ended is served at once.
    ///
    /// # Errors
    ///
    /// Fails as [`refresh`](Self::refresh) does.
    pub async fn set_bakes(
        &self,
        bakes: BTreeMap<String, BTreeMap<Arch, Bake>>,
    ) -> Result<(), ViewError> {
        self.bakes.store(Arc::new(bakes));
        self.refresh().await
    }

    /// Tells from the next time on that everything is read anew where kernels are heard. Once.
    pub fn hears_kernels(&self, netconsole: Netconsole) {
        let _ = self.netconsole.set(netconsole);
    }

    /// Takes the loaders that there are no files of, and reads everything anew.
    ///
    /// # Errors
    ///
    /// Fails as [`refresh`](Self::refresh) does.
    pub async fn set_absent(&self, absent: Vec<(Loader, Arch)>) -> Result<(), ViewError> {
        self.absent.store(Arc::new(absent));
        self.refresh().await
    }

    /// Refreshes whenever the artifact store has changed, until told to stop.
    pub async fn watch(&self, stop: CancellationToken) {
        let one = |path: PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
        };
        // A key that is added or taken away changes what is served as well.
        let keys = self.keys.as_ref().map(KeyDir::path);
        let keys = keys.into_iter().flat_map(|dir| [dir.to_owned(), dir.join("trusted")]);
        let paths: Vec<_> = [self.artifacts.index_path()].into_iter().chain(keys).collect();
        let stamp = || paths.iter().cloned().map(one).collect::<Vec<_>>();
        // The index may have changed since the first reading; the first look settles it.
        let mut last = Vec::new();
        let mut ticks = tokio::time::interval(LOOK);
        let mut trouble =
            Trouble::new("images not read; what was served stays", "images are read again");
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = stamp();
            if now != last && trouble.note(self.refresh().await).is_some() {
                let images = self.snapshot.load().images.len();
                tracing::info!(images, "images changed");
                last = now;
            }
            if self.untidy.swap(false, Ordering::Relaxed) {
                let _ = tokio::task::spawn_blocking(crate::sys::give_free_memory_back).await;
            }
        }
    }
}
