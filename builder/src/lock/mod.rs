//! The lock file: which manifest every tag meant and which packages every list of names meant, so that the same
//! specification gives the same bytes later and elsewhere, without asking a registry or an archive again.

mod change;
mod wire;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use kiln_types::{Arch, Digest};

pub use self::change::Change;
use crate::durable::replace;

/// The schema that this program writes.
pub const SCHEMA: u32 = 1;
/// The largest lock file that is read.
const MAX_LOCK: u64 = 16 << 20;
const HEADER: &str = "# What this image is made of. `kiln build` writes it, `kiln image update` moves it; keep it with \
                      the specification.\n";

/// What a specification was resolved to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lock {
    /// By reference, then by architecture.
    images: BTreeMap<String, ImagePin>,
    closures: BTreeMap<ClosureKey, Vec<PackagePin>>,
}

/// What an image reference means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePin {
    /// Digest of the index of all architectures, where there is one.
    pub index: Option<Digest>,
    /// Digest of the manifest for each architecture.
    pub manifests: BTreeMap<Arch, Digest>,
}

/// What packages were asked for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ClosureKey {
    /// For which architecture.
    pub arch: Arch,
    /// From which archive: suite, components and snapshot, as one text.
    pub archive: String,
    /// The names, sorted.
    pub wanted: Vec<String>,
}

/// One package, as it can be fetched again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackagePin {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Debian's name of its architecture; `all` fits every one.
    pub arch: String,
    /// Where it is in its archive.
    pub file: String,
    /// Its length in bytes.
    pub size: u64,
    /// Its digest.
    pub sha256: Digest,
}

/// A lock file is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LockError {
    /// It cannot be read.
    #[error("cannot read the lock file `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not one.
    #[error("`{path}` is not a lock file; remove it, and the next build writes a new one")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// It names a package that it does not describe.
    #[error(
        "lock file `{path}` names package `{package}` and does not describe it; remove the file"
    )]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The package.
        package: String,
    },
    /// A later Kiln wrote it.
    #[error(
        "lock file `{path}` has schema {schema}; this kiln knows {SCHEMA}, so a newer one is needed"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// The schema.
        schema: u32,
    },
    /// It cannot be written as text.
    #[error("cannot write the lock file")]
    Form(#[source] toml::ser::Error),
    /// It cannot be written.
    #[error("cannot write the lock file `{path}`")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It would have to change, and must not.
    #[error("`--locked` is given, but `{}` would change:{}", path.display(), lines(changes))]
    WouldChange {
        /// The file.
        path: PathBuf,
        /// How.
        changes: Vec<Change>,
    },
}

fn lines(changes: &[Change]) -> String {
    changes.iter().map(|change| format!("\n  {change}")).collect()
}

impl ClosureKey {
    /// Returns the key of these names, in any order.
    pub fn new(arch: Arch, archive: &str, wanted: &[String]) -> Self {
        let mut wanted: Vec<_> = wanted.iter().map(|name| name.trim().to_owned()).collect();
        wanted.sort_unstable();
        wanted.dedup();
        Self { arch, archive: archive.to_owned(), wanted }
    }
}

impl Lock {
    /// Reads a lock file, if there is one.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or is not a lock file of a known schema.
    pub fn load(path: &Path) -> Result<Option<Self>, LockError> {
        let failed = |source| LockError::Read { path: path.to_owned(), source };
        let mut text = String::new();
        match File::open(path) {
            Ok(file) => file.take(MAX_LOCK + 1).read_to_string(&mut text).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        if text.len() as u64 > MAX_LOCK {
            return Err(failed(io::Error::other("it is larger than 16 MiB")));
        }
        Self::parse(path, &text).map(Some)
    }

    /// Reads the text of a lock file. The path is for messages.
    ///
    /// # Errors
    ///
    /// Fails when it is not a lock file of a known schema.
    pub fn parse(path: &Path, text: &str) -> Result<Self, LockError> {
        wire::parse(path, text)
    }

    /// Returns its text: sorted, one package to a line.
    ///
    /// # Errors
    ///
    /// Fails only when a value has no TOML form, which none of ours lacks.
    pub fn to_text(&self) -> Result<String, LockError> {
        wire::text(self).map_err(LockError::Form)
    }

    /// Writes it, at once and durably, unless the file is as it should be already.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), LockError> {
        let text = self.to_text()?;
        if fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        let failed = |source| LockError::Write { path: path.to_owned(), source };
        replace(path, text.as_bytes(), 0o644).map_err(failed)
    }

    /// Returns what an image reference means.
    pub fn image(&self, reference: &str) -> Option<&ImagePin> {
        self.images.get(reference)
    }

    /// Says what an image reference means for an architecture. Another index takes what was known of the one before.
    pub fn pin_image(
        &mut self,
        reference: &str,
        arch: Arch,
        index: Option<Digest>,
        manifest: Digest,
    ) {
        let pin = self.images.entry(reference.to_owned()).or_default();
        if pin.index != index {
            *pin = ImagePin { index, manifests: BTreeMap::new() };
        }
        pin.manifests.insert(arch, manifest);
    }

    /// Returns the packages that names mean, with all that they depend on, sorted by name.
    pub fn closure(&self, key: &ClosureKey) -> Option<&[PackagePin]> {
        self.closures.get(key).map(Vec::as_slice)
    }

    /// Returns every list of packages.
    pub fn closures(&self) -> impl Iterator<Item = (&ClosureKey, &[PackagePin])> {
        self.closures.iter().map(|(key, packages)| (key, packages.as_slice()))
    }

    /// Says which packages names mean.
    pub fn pin_closure(&mut self, key: ClosureKey, mut packages: Vec<PackagePin>) {
        packages.sort_unstable();
        self.closures.insert(key, packages);
    }

    /// Takes over what another one says and this one does not.
    pub fn extend(&mut self, other: &Self) {
        for (reference, pin) in &other.images {
            let ours = self.images.entry(reference.clone()).or_insert_with(|| pin.clone());
            if ours.index == pin.index {
                for (arch, manifest) in &pin.manifests {
                    ours.manifests.entry(*arch).or_insert(*manifest);
                }
            }
        }
        for (key, packages) in &other.closures {
            self.closures.entry(key.clone()).or_insert_with(|| packages.clone());
        }
    }

    /// Returns only what is said of one architecture.
    #[must_use]
    pub fn only(&self, arch: Arch) -> Self {
        let mut only = self.clone();
        only.closures.retain(|key, _| key.arch == arch);
        for pin in only.images.values_mut() {
            pin.manifests.retain(|other, _| *other == arch);
        }
        only.images.retain(|_, pin| !pin.manifests.is_empty());
        only
    }

    /// Returns everything but what is said of one architecture.
    #[must_use]
    pub fn without(&self, arch: Arch) -> Self {
        let mut rest = self.clone();
        rest.closures.retain(|key, _| key.arch != arch);
        for pin in rest.images.values_mut() {
            pin.manifests.remove(&arch);
        }
        rest.images.retain(|_, pin| !pin.manifests.is_empty());
        rest
    }
}

#[cfg(test)]
mod tests;
