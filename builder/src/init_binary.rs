//! Finds kiln-init, the first process of every machine that boots.

use std::borrow::Cow;
use std::io;
use std::path::PathBuf;

use kiln_types::Arch;

include!(concat!(env!("OUT_DIR"), "/embedded_init.rs"));

/// Names a directory with `kiln-init-x86_64` and `kiln-init-arm64`, to be used instead of what is built in.
pub const DIR_VARIABLE: &str = "KILN_INIT_DIR";

/// kiln-init cannot be put into an image.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitBinaryError {
    /// The file that the environment names cannot be read.
    #[error("cannot read kiln-init from `{path}`, which KILN_INIT_DIR leads to")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This program was built without it.
    #[error(
        "this build of kiln holds no kiln-init for {0}; build with `./dev`, or set KILN_INIT_DIR"
    )]
    Missing(Arch),
}

/// Returns kiln-init for an architecture.
///
/// # Errors
///
/// Fails when the environment names a directory that lacks it, or when none is built in.
pub fn load(arch: Arch) -> Result<Cow<'static, [u8]>, InitBinaryError> {
    if let Some(dir) = std::env::var_os(DIR_VARIABLE).filter(|dir| !dir.is_empty()) {
        let path = PathBuf::from(dir).join(format!("kiln-init-{arch}"));
        return std::fs::read(&path)
            .map(Cow::Owned)
            .map_err(|source| InitBinaryError::Read { path, source });
    }
    let embedded = match arch {
        Arch::X86_64 => X86_64,
        Arch::Arm64 => ARM64,
    };
    embedded.map(Cow::Borrowed).ok_or(InitBinaryError::Missing(arch))
}
