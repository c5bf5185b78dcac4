use std::path::PathBuf;

use kiln_types::Arch;

use crate::oci::ImageSettings;
use crate::output::Format;
use crate::progress::{Progress, Silent};
use crate::store::Store;
use crate::trust::KeyDir;

/// What to build.
#[derive(Debug)]
pub struct BuildRequest<'a> {
    /// Specification files; later ones add to earlier ones. `-` is standard input.
    pub specs: Vec<PathBuf>,
    /// Name of the image, with a channel if it is not `latest`; otherwise that of the first file.
    pub name: Option<String>,
    /// What it runs on.
    pub arch: Arch,
    /// Where it goes.
    pub store: &'a Store,
    /// A directory for files in [`formats`](Self::formats).
    pub out: Option<PathBuf>,
    /// What to write there; kernel and initrd when there is nothing else.
    pub formats: Vec<Format>,
    /// Address of the Debian mirror; otherwise that of the host's apt.
    pub mirror: Option<String>,
    /// Where images come from.
    pub images: ImageSettings,
    /// Base address of the archive of Debian snapshots, for specifications that name one.
    pub snapshot_mirror: Option<String>,
    /// The lock file; none keeps no record of what tags and packages meant.
    pub lock: Option<PathBuf>,
    /// What to do with the lock file.
    pub lock_use: LockUse,
    /// Use no network: what is not in the cache or a local layout is missing.
    pub offline: bool,
    /// Compress as well as possible, which takes far longer.
    pub release: bool,
    /// Time of all files, in seconds since 1970; where there is none, that of `SOURCE_DATE_EPOCH` in the environment.
    pub epoch: Option<u32>,
    /// Keys to sign the version with; none signs nothing.
    pub keys: Option<KeyDir>,
    /// Where to show how far it is.
    pub progress: &'a dyn Progress,
}

/// What to do with the lock file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LockUse {
    /// Honour it, and add to it what is new. That it cannot be written is only a warning.
    #[default]
    Extend,
    /// Honour it, and fail when anything is new.
    Locked,
    /// Look anew for some of what it says.
    Update(Update),
}

/// What to look for anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Which kind.
    pub kind: UpdateKind,
    /// Only these image references and packages; all of the kind when there are none.
    pub names: Vec<String>,
}

/// What kind of thing to look for anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UpdateKind {
    /// Images and packages.
    #[default]
    All,
    /// Tags of images.
    Tags,
    /// Packages.
    Packages,
    /// Packages of which there is a new Debian revision of the same upstream version: that is how a stable suite
    /// mends security problems.
    Security,
}

impl<'a> BuildRequest<'a> {
    /// Asks for what these files describe, named by the first of them, with nothing exported, locked, signed or shown.
    pub fn new(store: &'a Store, specs: Vec<PathBuf>, arch: Arch) -> Self {
        Self {
            specs,
            name: None,
            arch,
            store,
            out: None,
            formats: Vec::new(),
            mirror: None,
            snapshot_mirror: None,
            images: ImageSettings::default(),
            lock: None,
            lock_use: LockUse::Extend,
            offline: false,
            release: false,
            epoch: None,
            keys: None,
            progress: &Silent,
        }
    }
}

impl Update {
    /// Returns whether an image reference is to be looked for anew.
    pub(super) fn takes_image(&self, reference: &str) -> bool {
        matches!(self.kind, UpdateKind::All | UpdateKind::Tags) && self.takes(reference)
    }

    /// Returns whether some package may be looked for anew.
    pub(super) const fn takes_packages(&self) -> bool {
        !matches!(self.kind, UpdateKind::Tags)
    }

    /// Returns whether one package may move from one version to another.
    pub(super) fn takes_package(&self, name: &str, old: &str, new: &str) -> bool {
        let same_upstream = || upstream(old) == upstream(new);
        self.takes(name) && (self.kind != UpdateKind::Security || same_upstream())
    }

    /// Returns whether lists of packages are taken as they are now, with packages that came and went.
    pub(super) const fn takes_lists(&self) -> bool {
        matches!(self.kind, UpdateKind::All | UpdateKind::Packages) && self.names.is_empty()
    }

    fn takes(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }
}

/// Returns epoch and upstream version: all before the last hyphen (Debian Policy §5.6.12).
fn upstream(version: &str) -> &str {
    version.rsplit_once('-').map_or(version, |(upstream, _)| upstream)
}
