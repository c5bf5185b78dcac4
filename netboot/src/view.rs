//! What the servers look at: the machines of the inventory and the images of the artifact store, at one moment.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_builder::manifest::Manifest;
use kiln_builder::store::{Store as Artifacts, StoreError as ArtifactsError};
use kiln_inventory::{Artifact, Bake, ImageVersion, Snapshot, Store, UnknownMachines};
use kiln_types::{Arch, Digest, ImageRef};
use tokio_util::sync::CancellationToken;

/// How often the index of the artifact store is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The view, and the means to make it anew.
#[derive(Debug)]
pub struct View {
    inventory: Store,
    artifacts: Artifacts,
    unknown: UnknownMachines,
    snapshot: Arc<ArcSwap<Snapshot>>,
    blobs: ArcSwap<HashMap<Digest, u64>>,
    bakes: ArcSwap<Bakes>,
    /// Only one refresh at a time, so that an older state never replaces a newer one.
    refreshing: tokio::sync::Mutex<Versions>,
}

/// What is about to be built, by image and architecture.
type Bakes = BTreeMap<String, BTreeMap<Arch, Bake>>;

/// Manifests that were read and checked. They never change.
type Versions = HashMap<Digest, Arc<Manifest>>;

/// The view cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The inventory cannot be read.
    #[error("cannot read the inventory")]
    Inventory(#[source] kiln_inventory::StoreError),
    /// The artifact store cannot be read.
    #[error("cannot read the artifact store in {}", .0.display())]
    Artifacts(PathBuf, #[source] ArtifactsError),
}

impl View {
    /// Reads everything for the first time.
    ///
    /// # Errors
    ///
    /// Fails when the inventory or the artifact store cannot be read.
    pub async fn load(
        inventory: Store,
        artifacts: Artifacts,
        unknown: UnknownMachines,
    ) -> Result<Self, ViewError> {
        let view = Self {
            inventory,
            artifacts,
            unknown,
            snapshot: Arc::default(),
            blobs: ArcSwap::default(),
            bakes: ArcSwap::default(),
            refreshing: tokio::sync::Mutex::default(),
        };
        view.refresh().await?;
        Ok(view)
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

    /// Returns the artifact store.
    pub const fn artifacts(&self) -> &Artifacts {
        &self.artifacts
    }

    /// Reads everything anew.
    ///
    /// # Errors
    ///
    /// Fails when the inventory or the artifact store cannot be read. What was read before stays in use.
    pub async fn refresh(&self) -> Result<(), ViewError> {
        let mut known = self.refreshing.lock().await;
        let machines = self.inventory.machines().await.map_err(ViewError::Inventory)?;
        let artifacts = self.artifacts.clone();
        let cached = std::mem::take(&mut *known);
        let read = tokio::task::spawn_blocking(move || read_images(&artifacts, cached));
        let images = match read.await {
            Ok(read) => read
                .map_err(|source| ViewError::Artifacts(self.artifacts.dir().to_owned(), source))?,
            Err(stopped) => {
                tracing::error!(error = &stopped as &dyn std::error::Error, "cannot read images");
                return Ok(());
            }
        };
        let machines = machines.into_iter().map(Arc::new).collect();
        self.blobs.store(Arc::new(images.blobs));
        let mut snapshot = Snapshot::new(machines, images.named, self.unknown);
        snapshot.bakes = BTreeMap::clone(&self.bakes.load());
        self.snapshot.store(Arc::new(snapshot));
        *known = images.versions;
        Ok(())
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

    /// Refreshes whenever the artifact store has changed, until told to stop.
    pub async fn watch(&self, stop: CancellationToken) {
        let stamp = || {
            let meta = std::fs::metadata(self.artifacts.index_path()).ok()?;
            Some((meta.ino(), meta.mtime(), meta.mtime_nsec(), meta.size()))
        };
        // The index may have changed since the first reading; the first look settles it.
        let mut last = None;
        let mut ticks = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            let now = stamp();
            if now == last {
                continue;
            }
            match self.refresh().await {
                Ok(()) => {
                    tracing::info!(images = self.snapshot.load().images.len(), "images changed");
                    last = now;
                }
                Err(error) => {
                    tracing::warn!(error = &error as &dyn std::error::Error, "images not read");
                }
            }
        }
    }
}

struct Images {
    named: BTreeMap<ImageRef, BTreeMap<Arch, Arc<ImageVersion>>>,
    blobs: HashMap<Digest, u64>,
    versions: Versions,
}

/// Reads the index and every manifest that is new. A version whose manifest is damaged is left out.
fn read_images(artifacts: &Artifacts, cached: Versions) -> Result<Images, ArtifactsError> {
    let index = artifacts.index()?;
    let (mut named, mut blobs, mut versions) = (BTreeMap::new(), HashMap::new(), Versions::new());
    for (name, arches) in &index.images {
        for (arch, entry) in arches {
            for digest in entry.versions.iter().map(|v| &v.digest).chain(entry.channels.values()) {
                if versions.contains_key(digest) {
                    continue;
                }
                let manifest = match cached.get(digest) {
                    Some(manifest) => manifest.clone(),
                    None => match artifacts.manifest(digest) {
                        Ok(manifest) => Arc::new(manifest),
                        Err(error) => {
                            let error = &error as &dyn std::error::Error;
                            tracing::warn!(image = name, version = %digest, error, "version left out");
                            continue;
                        }
                    },
                };
                blobs.insert(manifest.kernel.digest, manifest.kernel.size);
                blobs.extend(manifest.segments.iter().map(|s| (s.digest, s.size)));
                versions.insert(*digest, manifest);
            }
            for (channel, digest) in &entry.channels {
                let Ok(image) = format!("{name}:{channel}").parse::<ImageRef>() else { continue };
                let Some(manifest) = versions.get(digest) else { continue };
                let version = Arc::new(image_version(*digest, manifest));
                named.entry(image).or_insert_with(BTreeMap::new).insert(*arch, version);
            }
        }
    }
    Ok(Images { named, blobs, versions })
}

fn image_version(version: Digest, manifest: &Manifest) -> ImageVersion {
    ImageVersion {
        version,
        kernel: Artifact {
            name: "kernel".to_owned(),
            digest: manifest.kernel.digest,
            size: manifest.kernel.size,
        },
        efi_stub: manifest.kernel.efi_stub,
        segments: manifest
            .segments
            .iter()
            .map(|s| Artifact { name: s.component.clone(), digest: s.digest, size: s.size })
            .collect(),
        cmdline: manifest.cmdline.clone(),
    }
}
