use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use kiln_types::Digest;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::blocking::blocking;
use super::component::{Bundle, Component, Root, VolumeLayout, What};
use super::key::{add_tree, key};
use super::packages::Packages;
use super::parts::{Layers, Parts, root, tree};
use super::{BuildError, ComponentReport, losses};
use crate::bundle;
use crate::lock::PackagePin;
use crate::manifest::{SegmentCompression, SegmentEntry};
use crate::oci::{Image, Images};
use crate::progress::Progress;
use crate::segment::{self, Packing};
use crate::store::{KeyLock, Store};
use crate::tree::Tree;

/// The names of what comes with a kernel, in reports.
const KERNEL_PARTS: [&str; 3] = ["kernel", "kernel-modules", "ucode"];

/// How many components wait for network and disk while others are packed.
const FURTHER: usize = 2;

/// How many components are packed at a time: each needs memory.
fn at_a_time() -> usize {
    std::thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8))
}

/// Turns components into segments, several at a time, and each of them at most once.
pub(super) struct Packer<'a, 'p> {
    pub(super) store: Store,
    pub(super) progress: &'a dyn Progress,
    pub(super) packages: &'a Packages<'p>,
    pub(super) images: &'a Images<'a>,
    pub(super) packing: Packing,
    /// The right to use a processor and the memory that comes with it, [`at_a_time`].
    pub(super) processors: Arc<Semaphore>,
    pub(super) reports: Mutex<Vec<ComponentReport>>,
    pub(super) warnings: Mutex<BTreeSet<String>>,
    /// The directories of what is packed, those of containers and volumes left out.
    pub(super) directories: Mutex<BTreeSet<String>>,
    /// The component that the mark of each segment stands for.
    pub(super) marks: Mutex<BTreeMap<String, String>>,
}

impl<'a, 'p> Packer<'a, 'p> {
    pub(super) fn new(
        store: &Store,
        packages: &'a Packages<'p>,
        images: &'a Images<'a>,
        packing: Packing,
        progress: &'a dyn Progress,
    ) -> Self {
        Self {
            store: store.clone(),
            progress,
            packages,
            images,
            packing,
            processors: Arc::new(Semaphore::new(at_a_time())),
            reports: Mutex::default(),
            warnings: Mutex::default(),
            directories: Mutex::default(),
            marks: Mutex::default(),
        }
    }
}

impl Packer<'_, '_> {
    /// Packs components, as many at a time as there are processors, while some more wait for network and disk, and returns their segments in the same order.
    pub(super) async fn pack(
        &self,
        components: Vec<Component>,
        packing: Packing,
    ) -> Result<Vec<SegmentEntry>, BuildError> {
        let work = components.into_iter().map(|component| self.one(component, packing));
        stream::iter(work).buffered(at_a_time() + FURTHER).try_collect().await
    }

    /// Waits for a processor.
    pub(super) async fn processor(&self) -> Result<OwnedSemaphorePermit, BuildError> {
        Arc::clone(&self.processors).acquire_owned().await.map_err(|_| BuildError::Interrupted)
    }

    /// Packs a component, unless that was done before or is being done elsewhere.
    pub(super) async fn one(
        &self,
        component: Component,
        mut packing: Packing,
    ) -> Result<SegmentEntry, BuildError> {
        let started = Instant::now();
        let Component { name, what, .. } = component;
        let (what, key) = match what {
            What::Tree(tree) => {
                let label = name.clone();
                blocking(move || -> Result<_, BuildError> {
                    let mut key = key(&label, packing);
                    add_tree(&mut key, &tree)?;
                    Ok((What::Tree(tree), key.finish()))
                })
                .await??
            }
            What::Volume { key, .. } | What::Init { key, .. } | What::StateTools { key, .. } => {
                (what, key)
            }
            What::Container(bundle) => {
                let key = bundle.key;
                (What::Container(bundle), key)
            }
        };
        self.note_mark(&key, &name);
        let known = |entry: SegmentEntry| {
            self.note_directories(&key);
            self.report(ComponentReport::segment(&entry, true, started));
            self.warn(losses::known(&self.store, &key, &name));
            entry
        };
        if let Some(entry) = segment::find(&self.store, &name, &key) {
            return Ok(known(entry));
        }
        let _lock = self.lock(&key).await?;
        if let Some(entry) = segment::find(&self.store, &name, &key) {
            return Ok(known(entry));
        }
        let parts = self.parts(&what).await?;
        let task = self.progress.begin(&format!("packing {name}"), None);
        let (store, label) = (self.store.clone(), name.clone());
        if what.is_packed() {
            // It is compressed in itself, and read in place.
            packing.compression = SegmentCompression::None;
        }
        let processor = self.processor().await?;
        let (entry, lost) = blocking(move || -> Result<_, BuildError> {
            let mut lost = Vec::new();
            let tree = tree(&store, &label, what, &parts, packing.mtime, &mut lost)?;
            losses::remember(&store, &key, &lost)?;
            let packed = segment::pack(&store, &label, &key, &tree, packing)?;
            drop(tree);
            drop(processor);
            Ok((packed.commit()?, lost))
        })
        .await??;
        task.finish();
        self.note_directories(&key);
        self.warn(losses::told(lost, &name));
        self.report(ComponentReport::segment(&entry, false, started));
        Ok(entry)
    }

    /// Makes the tree of a component again, whether it is packed already or not, as LinuxKit would have it.
    pub(super) async fn tree(&self, component: Component) -> Result<Tree, BuildError> {
        let Component { name, what, .. } = component;
        let parts = self.parts(&what).await?;
        let (store, mtime) = (self.store.clone(), self.packing.mtime);
        blocking(move || {
            let What::Container(bundle) = what else {
                return tree(&store, &name, what, &parts, mtime, &mut Vec::new());
            };
            let Bundle { container, config, path, linuxkit, first, .. } = &*bundle;
            let mut tree = bundle::write(container, config.clone(), path, linuxkit)?;
            if *first {
                let files = root(&store, &name, &bundle, &parts, mtime, &mut Vec::new())?;
                let files = files.place(container, &linuxkit.path(container, path));
                tree.merge(files.map_err(|source| BuildError::Place { component: name, source })?);
            }
            Ok(tree)
        })
        .await?
    }

    /// Fetches what a component is made of.
    async fn parts(&self, what: &What) -> Result<Parts, BuildError> {
        let mut parts = Parts::default();
        match what {
            What::Container(bundle) if bundle.first => match &bundle.root {
                Root::Packages { pins, .. } => parts.packages = self.fetch(pins).await?,
                Root::Image(image) => parts.images.push(self.layers(image).await?),
            },
            What::Volume { image, layout: Some(VolumeLayout { root, platforms }), .. } => {
                let layout = self.images.layout(&image.reference, root, platforms).await;
                parts.layout = Some(layout.map_err(|source| BuildError::Layers {
                    reference: image.reference.to_string(),
                    source: Box::new(source),
                })?);
            }
            What::Volume { image, .. } => parts.images.push(self.layers(image).await?),
            What::StateTools { packages, .. } => parts.packages = self.fetch(packages).await?,
            What::Init { images, .. } => {
                for image in images {
                    parts.images.push(self.layers(image).await?);
                }
            }
            What::Container(_) | What::Tree(_) => {}
        }
        Ok(parts)
    }

    pub(super) fn report(&self, report: ComponentReport) {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner).push(report);
    }

    /// Adds to what the report warns of.
    pub(super) fn warn(&self, warnings: impl IntoIterator<Item = String>) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).extend(warnings);
    }

    /// Returns what was warned of, sorted.
    pub(super) fn warnings(&self) -> BTreeSet<String> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Leaves all but the kernel out of the reports: it is to be packed in another way.
    pub(super) fn forget_segments(&self) {
        let mut reports = self.reports.lock().unwrap_or_else(PoisonError::into_inner);
        reports.retain(|report| KERNEL_PARTS.contains(&report.name.as_str()));
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.retain(|_, name| KERNEL_PARTS.contains(&name.as_str()));
    }

    /// Remembers which segment has which mark at its end.
    pub(super) fn note_mark(&self, key: &Digest, name: &str) {
        let mut marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        marks.insert(segment::mark(key), name.to_owned());
    }

    /// Returns the component that each mark stands for.
    pub(super) fn marks(&self) -> BTreeMap<String, String> {
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note_directories(&self, key: &Digest) {
        let found = segment::directories(&self.store, key);
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
    }

    /// Returns the directories of the machine's root file system that are packed so far.
    pub(super) fn directories(&self) -> BTreeSet<String> {
        self.directories.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until nobody else makes what belongs to a key.
    pub(super) async fn lock(&self, key: &Digest) -> Result<KeyLock, BuildError> {
        let (store, key) = (self.store.clone(), *key);
        Ok(blocking(move || store.lock_key(&key)).await??)
    }

    /// Fetches the layers of an image.
    pub(super) async fn layers(&self, image: &Image) -> Result<Layers, BuildError> {
        let reference = image.reference.to_string();
        match self.images.fetch(image).await {
            Ok(files) => Ok(Layers { reference, files }),
            Err(source) => Err(BuildError::Layers { reference, source: Box::new(source) }),
        }
    }

    /// Fetches packages, several at a time.
    pub(super) async fn fetch(&self, packages: &[PackagePin]) -> Result<Vec<PathBuf>, BuildError> {
        const AT_A_TIME: usize = 4;
        let work = packages.iter().map(|package| self.packages.fetch(package));
        stream::iter(work).buffered(AT_A_TIME).try_collect().await
    }
}
