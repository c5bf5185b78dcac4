use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

/// A disk image cannot be converted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Qcow2Error {
    /// There is no converter.
    #[error(
        "`qemu-img` is not installed, and only it writes qcow2; install the Debian package qemu-utils, or write raw-efi"
    )]
    Missing,
    /// The converter cannot be run.
    #[error("cannot run `qemu-img`")]
    Run(#[source] io::Error),
    /// The converter failed.
    #[error("`qemu-img` failed ({status}): {message}")]
    Failed {
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said.
        message: String,
    },
}

/// Converts a disk image. One version of `qemu-img` gives the same bytes each time: one request at a time, in order.
///
/// # Errors
///
/// Fails when `qemu-img` is not installed or fails, such as for want of space.
pub(super) fn convert(raw: &Path, qcow2: &Path) -> Result<(), Qcow2Error> {
    let options = ["-f", "raw", "-O", "qcow2", "-m", "1"];
    let layout = ["-o", "compat=1.1,cluster_size=65536,lazy_refcounts=off,preallocation=off"];
    let output = Command::new("qemu-img")
        .arg("convert")
        .args(options)
        .args(layout)
        .args([raw, qcow2])
        .stdin(Stdio::null())
        .output()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => Qcow2Error::Missing,
            _ => Qcow2Error::Run(error),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(Qcow2Error::Failed { status: output.status, message })
}
