use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;

use kiln_types::Arch;

use super::FirmwareKind;

/// What can go wrong with a private network and its machines.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// A program or a file is not installed.
    #[error("{what} is not installed; install the Debian package {package}")]
    Missing {
        /// What was looked for.
        what: String,
        /// Debian package that has it.
        package: &'static str,
    },
    /// The kernel did not give us a network namespace.
    #[error("cannot make a private network namespace; run as root, with the capability SYS_ADMIN")]
    Unshare(#[source] io::Error),
    /// A program could not be run.
    #[error("cannot run {program}")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ip` said no.
    #[error("`ip {arguments}` failed ({status}): {message}")]
    Ip {
        /// What it was asked.
        arguments: String,
        /// How it ended.
        status: ExitStatus,
        /// What it said.
        message: String,
    },
    /// A file of a machine could not be made.
    #[error("cannot write {path}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no such machine.
    #[error("there is no {arch} machine with {firmware} firmware")]
    NoSuchMachine {
        /// Architecture asked for.
        arch: Arch,
        /// Firmware asked for.
        firmware: FirmwareKind,
    },
}
