//! Takes from a build what it does not need, before it reads a byte that somebody else wrote.

use std::path::{Path, PathBuf};

use caps::CapSet;
use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _,
};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;

/// Address space of a build. It streams: a tenth of this is what the largest images take.
const MEMORY: u64 = 8 << 30;
/// Open files of a build.
const FILES: u64 = 4096;

/// A build cannot be confined.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfineError {
    /// A limit or flag of the process cannot be set.
    #[error("cannot give up rights: {what}")]
    Process {
        /// Which.
        what: &'static str,
        /// Why.
        #[source]
        source: nix::Error,
    },
    /// The capabilities cannot be dropped.
    #[error("cannot drop the capabilities of the process")]
    Capabilities(#[source] caps::errors::CapsError),
    /// The file system cannot be closed off.
    #[error("cannot keep the build away from the rest of the file system")]
    Landlock(#[source] landlock::RulesetError),
}

/// Confines the calling process, for good: it ends with its parent, has no capabilities and gets none by running
/// other programs, listens on no TCP port, writes below the given folders and the folder for temporary files only,
/// and has limits on memory and open files. Reading, running programs and fetching stay possible.
///
/// To be called while the process has one thread. What the kernel cannot do (Landlock before Linux 5.13, its rules for
/// ports before 6.7) is left out.
///
/// # Errors
///
/// Fails when the kernel refuses what it can do.
pub fn confine(writable: &[PathBuf]) -> Result<(), ConfineError> {
    let process = |what| move |source| ConfineError::Process { what, source };
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(process("end with the server"))?;
    prctl::set_no_new_privs().map_err(process("no new privileges"))?;
    for (resource, limit, what) in [
        (Resource::RLIMIT_CORE, 0, "no core files"),
        (Resource::RLIMIT_NOFILE, FILES, "limit of open files"),
        (Resource::RLIMIT_AS, MEMORY, "limit of memory"),
    ] {
        setrlimit(resource, limit, limit).map_err(process(what))?;
    }
    for set in [CapSet::Ambient, CapSet::Inheritable, CapSet::Effective, CapSet::Permitted] {
        caps::clear(None, set).map_err(ConfineError::Capabilities)?;
    }
    let temporary = std::env::temp_dir();
    close_off(writable.iter().map(PathBuf::as_path).chain([temporary.as_path()]))
        .map_err(ConfineError::Landlock)
}

fn close_off<'a>(writable: impl Iterator<Item = &'a Path>) -> Result<(), landlock::RulesetError> {
    let abi = ABI::V5;
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::BindTcp)?
        .create()?;
    if let Ok(root) = PathFd::new("/") {
        rules = rules.add_rule(PathBeneath::new(root, AccessFs::from_read(abi)))?;
    }
    if let Ok(null) = PathFd::new("/dev/null") {
        rules = rules.add_rule(PathBeneath::new(null, AccessFs::from_file(abi)))?;
    }
    for path in writable {
        if let Ok(dir) = PathFd::new(path) {
            rules = rules.add_rule(PathBeneath::new(dir, AccessFs::from_all(abi)))?;
        }
    }
    rules.restrict_self().map(drop)
}
