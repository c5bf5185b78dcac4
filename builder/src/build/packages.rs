use std::path::PathBuf;

use kiln_types::Arch;
use tokio::sync::OnceCell;

use super::request::Update;
use super::{BuildError, BuildRequest, LockUse};
use crate::deb::{Archive, ArchiveConfig, Package, PackageIndex, Pool, Snapshot, Source};
use crate::fetch::Fetcher;
use crate::lock::{ClosureKey, Lock, PackagePin};
use crate::spec::{DebianSpec, Place};

/// Finds and fetches packages. The archive is asked only for what neither the lock nor the cache knows.
pub(super) struct Packages<'a> {
    pub(super) arch: Arch,
    config: ArchiveConfig,
    /// The archive, as the lock file names it.
    name: String,
    fetcher: &'a Fetcher<'a>,
    offline: bool,
    archive: OnceCell<Archive<'a>>,
    index: OnceCell<PackageIndex>,
}

impl<'a> Packages<'a> {
    pub(super) fn new(
        request: &BuildRequest<'_>,
        debian: &DebianSpec,
        fetcher: &'a Fetcher<'a>,
    ) -> Self {
        let (archive, index) = (OnceCell::new(), OnceCell::new());
        let (arch, offline) = (request.arch, request.offline);
        let (config, name) = (config(request, debian), debian.archive_name());
        Self { arch, config, name, fetcher, offline, archive, index }
    }

    /// Returns the packages that names mean, by the lock where it knows, and notes it in the new lock.
    pub(super) async fn closure(
        &self,
        wanted: &Wanted<'_>,
        old: &Lock,
        lock_use: &LockUse,
        new: &mut Lock,
    ) -> Result<Vec<PackagePin>, BuildError> {
        let key = self.key(wanted);
        let known = old.closure(&key);
        let update = match lock_use {
            LockUse::Update(update) if update.takes_packages() => Some(update),
            _ => None,
        };
        let pins = match (known, update) {
            (Some(known), None) => known.to_vec(),
            (Some(known), Some(update)) if !update.takes_lists() => {
                merge(known, &self.resolve(wanted).await?, update)
            }
            _ => self.resolve(wanted).await?,
        };
        new.pin_closure(key, pins.clone());
        Ok(pins)
    }

    /// Returns whether a lock says what names mean.
    pub(super) fn knows(&self, wanted: &Wanted<'_>, lock: &Lock) -> bool {
        lock.closure(&self.key(wanted)).is_some()
    }

    fn key(&self, wanted: &Wanted<'_>) -> ClosureKey {
        let mut names = wanted.names.to_vec();
        if wanted.keep.is_some() {
            names.iter_mut().for_each(|name| *name = in_lock(name, wanted.component));
        }
        ClosureKey::new(self.arch, &self.name, &names)
    }

    async fn resolve(&self, wanted: &Wanted<'_>) -> Result<Vec<PackagePin>, BuildError> {
        let index = self.index().await?;
        let found = index.resolve(wanted.names).map_err(|source| BuildError::Resolve {
            place: wanted.place.clone(),
            component: wanted.component.to_owned(),
            source,
        })?;
        let keep = |package: &&Package| wanted.keep.is_none_or(|keep| keep(&package.name));
        Ok(found.into_iter().filter(keep).map(pin).collect())
    }

    /// Fetches a package, unless it is in the cache, and returns its file.
    pub(super) async fn fetch(&self, pin: &PackagePin) -> Result<PathBuf, BuildError> {
        if let Some(path) = crate::deb::cached(&self.config.cache, pin.size, pin.sha256).await? {
            return Ok(path);
        }
        if self.offline {
            return Err(BuildError::Offline { what: format!("package `{}`", pin.name) });
        }
        // Its hash is known, so no index is needed.
        let pool = Pool::new(&self.config, self.fetcher)?;
        let fetched = pool.fetch(&pin.name, &pin.file, pin.size, pin.sha256).await;
        fetched.map_err(|source| match source.is_gone() {
            true => BuildError::Gone {
                package: pin.name.clone(),
                version: pin.version.clone(),
                source: Box::new(source),
            },
            false => source.into(),
        })
    }

    /// Returns what the user should know of the archive, if it was asked.
    pub(super) fn warnings(&self) -> Vec<String> {
        self.archive.get().map(Archive::warnings).unwrap_or_default()
    }

    async fn archive(&self) -> Result<&Archive<'a>, BuildError> {
        let open = || async { Archive::open(self.config.clone(), self.fetcher).await };
        Ok(self.archive.get_or_try_init(open).await?)
    }

    async fn index(&self) -> Result<&PackageIndex, BuildError> {
        let archive = self.archive().await?;
        let read = || async { archive.packages(self.arch).await };
        Ok(self.index.get_or_try_init(read).await?)
    }
}

/// Returns what a lock file calls a name of which only some packages are kept.
pub(super) fn in_lock(name: &str, component: &str) -> String {
    format!("{name} ({component})")
}

/// Returns which archive a build uses.
fn config(request: &BuildRequest<'_>, debian: &DebianSpec) -> ArchiveConfig {
    let snapshot = debian
        .snapshot
        .as_ref()
        .map(|moment| Snapshot { mirror: request.snapshot_mirror.clone(), at: moment.to_string() });
    let sources = debian.sources.iter().map(|source| Source {
        mirror: source.mirror.clone(),
        suite: source.suite.clone(),
        components: source.components.clone(),
        keyring: source.keyring.clone(),
    });
    ArchiveConfig {
        mirror: request.mirror.clone(),
        suite: debian.suite.clone(),
        components: debian.components.clone(),
        snapshot,
        sources: sources.collect(),
        offline: request.offline,
        ..ArchiveConfig::new(request.store.cache_dir())
    }
}

/// What packages a component asks for.
pub(super) struct Wanted<'a> {
    pub(super) component: &'a str,
    pub(super) place: &'a Place,
    pub(super) names: &'a [String],
    /// Which of them to keep; all when nothing is said.
    pub(super) keep: Option<&'a (dyn Fn(&str) -> bool + Sync)>,
}

fn pin(package: &Package) -> PackagePin {
    PackagePin {
        name: package.name.clone(),
        version: package.version.as_str().to_owned(),
        arch: package.arch.clone(),
        file: package.filename.clone(),
        size: package.size,
        sha256: package.sha256,
    }
}

/// Moves those packages of a list that an update takes.
fn merge(old: &[PackagePin], new: &[PackagePin], update: &Update) -> Vec<PackagePin> {
    let moved = old.iter().map(|old| {
        let new = new.iter().find(|new| new.name == old.name);
        new.filter(|new| update.takes_package(&old.name, &old.version, &new.version)).unwrap_or(old)
    });
    moved.cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::build::UpdateKind;

    #[test]
    fn a_security_update_moves_revisions_and_a_named_one_moves_what_is_named() {
        let package = |name: &str, version: &str| PackagePin {
            name: name.to_owned(),
            version: version.to_owned(),
            arch: "all".to_owned(),
            file: String::new(),
            size: 0,
            sha256: crate::hash::sha256(version.as_bytes()),
        };
        let old = [package("a", "1.0-1"), package("b", "2.0-1"), package("gone", "1")];
        let new = [package("a", "1.0-1+deb13u1"), package("b", "2.1-1"), package("came", "1")];
        let versions = |kind, names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            let merged = merge(&old, &new, &Update { kind, names });
            merged.into_iter().map(|package| package.version).collect::<Vec<_>>()
        };
        assert_eq!(versions(UpdateKind::Security, &[]), ["1.0-1+deb13u1", "2.0-1", "1"]);
        assert_eq!(versions(UpdateKind::Packages, &["b"]), ["1.0-1", "2.1-1", "1"]);
        assert_eq!(versions(UpdateKind::Security, &["b"]), ["1.0-1", "2.0-1", "1"]);
    }
}
