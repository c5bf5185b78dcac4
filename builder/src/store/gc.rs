use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::path::Path;
use std::time::{Duration, SystemTime};

use kiln_types::{Arch, Digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Index, Store, StoreError, read_json};

/// What garbage collection keeps.
#[derive(Clone, Debug)]
pub struct GcOptions {
    /// Versions to keep of each image and architecture, the last built first, besides those that a channel names.
    pub keep: usize,
    /// Versions to keep in any case: what machines run.
    pub pinned: BTreeSet<Digest>,
    /// Only tell what would be removed.
    pub dry_run: bool,
    /// Nothing is removed that was made or used within this time: a build that runs may need it.
    pub grace: Duration,
    /// What was packed for a component is kept so long after its last use.
    pub built: Duration,
    /// Packages and layers are kept so long after their last use.
    pub downloads: Duration,
}

impl Default for GcOptions {
    fn default() -> Self {
        const DAY: u64 = 24 * 60 * 60;
        Self {
            keep: 3,
            pinned: BTreeSet::new(),
            dry_run: false,
            grace: Duration::from_secs(60 * 60),
            built: Duration::from_secs(7 * DAY),
            downloads: Duration::from_secs(30 * DAY),
        }
    }
}

/// What garbage collection removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GcReport {
    /// Versions that the index no longer has.
    pub versions: Vec<RemovedVersion>,
    /// Artifacts that nothing refers to.
    pub artifacts: u64,
    /// Files of the cache.
    pub cached: u64,
    /// Bytes of all of them.
    pub bytes: u64,
}

/// A version that was removed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemovedVersion {
    /// Name of the image.
    pub image: String,
    /// Architecture.
    pub arch: Arch,
    /// The version.
    pub version: Digest,
}

impl Store {
    /// Removes versions that are neither among the newest nor named by a channel nor pinned, and then what nothing
    /// refers to. Builds and a server may use the store meanwhile.
    ///
    /// # Errors
    ///
    /// Fails when the index or a kept manifest cannot be read, or when a file cannot be removed.
    pub fn collect(&self, options: &GcOptions) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        let mut trimmed = None;
        // The first step alone changes the index, so that a server sees no version whose parts are going away.
        self.change(|index| {
            let mut kept = index.clone();
            report.versions = trim(&mut kept, options);
            if !options.dry_run {
                index.clone_from(&kept);
            }
            trimmed = Some(kept);
            Ok(())
        })?;
        // A version that is published between the two steps is seen by the second.
        self.change(|index| {
            let mut kept = match (options.dry_run, trimmed) {
                (true, Some(kept)) => kept,
                _ => index.clone(),
            };
            self.sweep(&mut kept, options, &mut report)
        })?;
        Ok(report)
    }

    fn sweep(
        &self,
        index: &mut Index,
        options: &GcOptions,
        report: &mut GcReport,
    ) -> Result<(), StoreError> {
        let mut used = BTreeSet::new();
        let mut packages = BTreeSet::new();
        for entry in index.images.values().flat_map(|arches| arches.values()) {
            for version in &entry.versions {
                let manifest = self.manifest(&version.digest)?;
                used.insert(version.digest);
                used.extend(manifest.artifacts());
                used.extend(version.attachments.values());
                packages.extend(manifest.packages.iter().map(|it| it.sha256.hex()));
            }
        }
        let now = SystemTime::now();
        let old = |entry: &DirEntry, limit: Duration| {
            let meta = entry.metadata().ok();
            let used = meta.and_then(|meta| Some(meta.modified().ok()?.max(meta.accessed().ok()?)));
            used.and_then(|used| now.duration_since(used).ok()).is_some_and(|age| age >= limit)
        };
        let made = |entry: &DirEntry, limit: Duration| {
            let time = entry.metadata().and_then(|meta| meta.modified()).ok();
            time.and_then(|time| now.duration_since(time).ok()).is_some_and(|age| age >= limit)
        };
        for entry in files(&self.cache_dir().join("built")) {
            if made(&entry, options.built) {
                report.cached += 1;
                report.bytes += remove(&entry, options)?;
            } else if let Ok(Some(value)) = read_json::<Value>(&entry.path()) {
                digests(&value, &mut used);
            }
        }
        for entry in files(&self.blob_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = format!("sha256:{name}").parse().is_ok_and(|digest| used.contains(&digest));
            if !known && made(&entry, options.grace) {
                report.artifacts += 1;
                report.bytes += remove(&entry, options)?;
            }
        }
        for entry in files(&self.cache_dir().join("deb/pool")) {
            let name = entry.file_name().to_string_lossy().into_owned();
            let known = packages.contains(name.trim_end_matches(".deb"));
            if !known && old(&entry, options.downloads) {
                report.cached += 1;
                report.bytes += remove(&entry, options)?;
            }
        }
        for folder in ["deb/index", "deb/release", "oci"] {
            for entry in deep_files(&self.cache_dir().join(folder)) {
                if old(&entry, options.downloads) {
                    report.cached += 1;
                    report.bytes += remove(&entry, options)?;
                }
            }
        }
        Ok(())
    }
}

/// Takes out of the index what need not be kept.
fn trim(index: &mut Index, options: &GcOptions) -> Vec<RemovedVersion> {
    let mut removed = Vec::new();
    for (image, arches) in &mut index.images {
        for (arch, entry) in arches {
            let named: BTreeSet<_> = entry.channels.values().copied().collect();
            let mut place = 0;
            entry.versions.retain(|version| {
                place += 1;
                let digest = version.digest;
                let keep = place <= options.keep
                    || named.contains(&digest)
                    || options.pinned.contains(&digest);
                if !keep {
                    removed.push(RemovedVersion {
                        image: image.clone(),
                        arch: *arch,
                        version: digest,
                    });
                }
                keep
            });
        }
    }
    removed
}

/// Collects every digest that a JSON value holds.
fn digests(value: &Value, found: &mut BTreeSet<Digest>) {
    match value {
        Value::String(text) => found.extend(text.parse::<Digest>()),
        Value::Array(items) => items.iter().for_each(|item| digests(item, found)),
        Value::Object(map) => map.values().for_each(|item| digests(item, found)),
        _ => {}
    }
}

fn files(dir: &Path) -> impl Iterator<Item = DirEntry> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file()))
}

fn deep_files(dir: &Path) -> Vec<DirEntry> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => dirs.push(entry.path()),
                Ok(kind) if kind.is_file() => found.push(entry),
                _ => {}
            }
        }
    }
    found
}

fn remove(entry: &DirEntry, options: &GcOptions) -> Result<u64, StoreError> {
    let bytes = entry.metadata().map_or(0, |meta| meta.len());
    if !options.dry_run {
        let path = entry.path();
        match fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::write(&path)(error));
            }
            _ => {}
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::store::VersionEntry;
    use crate::store::tests::version;

    fn old_artifacts(store: &Store) -> usize {
        for entry in files(&store.blob_dir()) {
            let file = fs::File::open(entry.path()).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        }
        files(&store.blob_dir()).count()
    }

    #[test]
    fn what_a_channel_a_machine_or_a_recent_key_needs_is_kept_and_the_rest_goes() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let names = ["web:stable", "web", "web", "web", "web"];
        let digests: Vec<_> = ["a", "b", "c", "d", "e"].map(|text| version(&store, text)).into();
        for (name, digest) in names.into_iter().zip(&digests) {
            let version = VersionEntry::new(*digest, 0, 0);
            store.publish(&name.parse().unwrap(), Arch::Arm64, version).unwrap();
        }
        let cached = store.put(b"cached").unwrap();
        store.remember(&sha256(b"key"), &serde_json::json!({"digest": cached})).unwrap();
        store.put(b"nobody's").unwrap();
        assert_eq!(old_artifacts(&store), 17);
        let young = store.put(b"of a build that runs").unwrap();
        let pinned = BTreeSet::from([digests[1]]);
        let mut options = GcOptions { keep: 2, pinned, dry_run: true, ..GcOptions::default() };
        let planned = store.collect(&options).unwrap();
        assert_eq!(files(&store.blob_dir()).count(), 18);
        options.dry_run = false;
        let done = store.collect(&options).unwrap();
        assert_eq!(done, planned);
        let removed: Vec<_> = done.versions.iter().map(|removed| removed.version).collect();
        assert_eq!(removed, [digests[2]]);
        assert_eq!((done.artifacts, done.cached), (4, 0));
        assert!(store.artifact(&young).exists() && store.artifact(&cached).exists());
        for kept in [0, 1, 3, 4] {
            let manifest = store.manifest(&digests[kept]).unwrap();
            assert!(manifest.artifacts().all(|artifact| store.artifact(&artifact).exists()));
        }
        assert_eq!(store.collect(&options).unwrap(), GcReport::default());
    }
}
