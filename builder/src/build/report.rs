use kiln_types::{Arch, Digest, ImageRef};
use serde::Serialize;
use tokio::time::Instant;

use crate::lock::Change;
use crate::manifest::{KernelEntry, Manifest, SegmentCompression, SegmentEntry};

/// What was built.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct BuildReport {
    /// Name and channel.
    pub image: ImageRef,
    /// Architecture.
    pub arch: Arch,
    /// Digest of the manifest.
    pub version: Digest,
    /// Bytes that a machine fetches.
    pub size: u64,
    /// Bytes that they unpack to.
    pub unpacked: u64,
    /// The least memory to boot with, in bytes.
    pub min_ram: u64,
    /// The kernel and each segment, in the order in which a machine reads them.
    pub components: Vec<ComponentReport>,
    /// How long each step took.
    pub steps: Vec<StepReport>,
    /// What is not an error, but may not be what was meant.
    pub warnings: Vec<String>,
    /// What the build added to the lock file.
    pub locked: Vec<Change>,
    /// Files that were written besides the store.
    pub files: Vec<std::path::PathBuf>,
    /// What it consists of.
    pub manifest: Manifest,
}

/// One component of what was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentReport {
    /// Its name.
    pub name: String,
    /// Digest of the artifact.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Its length once unpacked.
    pub unpacked: u64,
    /// How it is compressed; nothing for a kernel.
    pub compression: Option<SegmentCompression>,
    /// Whether it had been made before, from the same inputs.
    pub reused: bool,
    /// How long it took, in milliseconds, downloads included.
    pub millis: u64,
}

/// One step of a build.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StepReport {
    /// Its name.
    pub name: &'static str,
    /// How long it took, in milliseconds.
    pub millis: u64,
}

impl BuildReport {
    /// Returns the components that had been made before, from the same inputs.
    pub fn reused(&self) -> impl Iterator<Item = &str> {
        self.components.iter().filter(|part| part.reused).map(|part| part.name.as_str())
    }
}

impl ComponentReport {
    pub(super) fn kernel(kernel: &KernelEntry, reused: bool, started: Instant) -> Self {
        Self {
            name: "kernel".to_owned(),
            digest: kernel.digest,
            size: kernel.size,
            unpacked: kernel.size,
            compression: None,
            reused,
            millis: millis(started),
        }
    }

    pub(super) fn segment(segment: &SegmentEntry, reused: bool, started: Instant) -> Self {
        Self {
            name: segment.component.clone(),
            digest: segment.digest,
            size: segment.size,
            unpacked: segment.unpacked,
            compression: Some(segment.compression),
            reused,
            millis: millis(started),
        }
    }
}

/// Takes the times of steps that follow each other.
pub(super) struct Steps {
    last: Instant,
    pub(super) done: Vec<StepReport>,
}

impl Steps {
    pub(super) fn begin() -> Self {
        Self { last: Instant::now(), done: Vec::new() }
    }

    pub(super) fn end(&mut self, name: &'static str) {
        self.done.push(StepReport { name, millis: millis(self.last) });
        self.last = Instant::now();
    }
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
