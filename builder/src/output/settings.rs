use std::ffi::OsString;
use std::path::PathBuf;

use kiln_types::Arch;

use super::certificate::{Certificate, KeyError};
use super::sign::{KeyFile, Signer, SigningCommand};
use super::stub::{Stub, StubError};
use super::write::Options;
use crate::deb::ArchiveConfig;
use crate::fetch::Fetcher;
use crate::lock::PackagePin;

/// What a user can say about files that UEFI boots.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EfiSettings {
    /// Who signs UEFI programs; without one they are not signed.
    pub signing: Option<Signing>,
    /// The size of disk images in bytes; without one as small as they can be.
    pub disk_size: Option<u64>,
    /// The name of the partition for state; without one `kiln-state`.
    pub state_label: Option<String>,
    /// A file with systemd's stub; without one that of Debian's package.
    pub stub: Option<PathBuf>,
}

/// Where a key for Secure Boot is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signing {
    /// In a file.
    Key {
        /// The private key, in PEM.
        key: PathBuf,
        /// Its certificate, in PEM.
        certificate: PathBuf,
    },
    /// Where a command has access to it; see [`SigningCommand`].
    Command {
        /// What the shell is to run.
        command: OsString,
        /// The certificate of the key, in PEM.
        certificate: PathBuf,
    },
}

impl EfiSettings {
    /// Returns who signs.
    ///
    /// # Errors
    ///
    /// Fails when the key or the certificate cannot be read.
    pub fn signer(&self) -> Result<Option<Box<dyn Signer>>, KeyError> {
        Ok(match &self.signing {
            None => None,
            Some(Signing::Key { key, certificate }) => {
                Some(Box::new(KeyFile::read(key, certificate)?))
            }
            Some(Signing::Command { command, certificate }) => Some(Box::new(SigningCommand {
                program: "sh".into(),
                arguments: vec!["-c".into(), command.clone()],
                certificate: Certificate::read(certificate)?,
            })),
        })
    }

    /// Returns the options for writing, with what [`signer`](Self::signer) and [`stub`](Self::stub) gave.
    pub fn options<'a>(&'a self, stub: &'a Stub, signer: Option<&'a dyn Signer>) -> Options<'a> {
        let mut options = Options { signer, disk_size: self.disk_size, ..Options::new(stub) };
        if let Some(label) = &self.state_label {
            options.state_label = label;
        }
        options
    }

    /// Returns the stub: the file that is named, the package that a lock file pins, or that of a Debian suite.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or fetched.
    pub async fn stub(
        &self,
        config: ArchiveConfig,
        fetcher: &Fetcher<'_>,
        arch: Arch,
        pin: Option<&PackagePin>,
    ) -> Result<Stub, StubError> {
        match (&self.stub, pin) {
            (Some(path), _) => Stub::read(path, arch),
            (None, Some(pin)) => Stub::pinned(pin, &config, fetcher, arch).await,
            (None, None) => Stub::obtain(config, fetcher, arch).await,
        }
    }
}
