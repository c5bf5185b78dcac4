//! Starts another version from the system that runs, without the firmware.
//!
//! ```text
//! order ─▶ manifest ─▶ its digest, its signature ─▶ kernel, segments: each with its length and digest
//!                                                        └─▶ memory files ─▶ the kernel loads them ─▶ stop ─▶ it starts
//! ```
//!
//! Until the last step nothing has changed, and everything that can be wrong is found before it.

mod error;
mod fdt;
mod fetch;
mod layout;
mod manifest;

use std::fs::{self, File};
use std::io;

use serde::Deserialize;

use self::error::KexecError;
use self::fetch::{Source, memory_file};
use self::manifest::{Manifest, Part};
use crate::config::Machine;
use crate::console::say;
use crate::http::Server;
use crate::sys::{self, Piece};

/// What the order names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Target {
    /// The boot that begins.
    pub(crate) boot: i64,
    version: String,
    manifest_size: u64,
    /// Of the manifest, in hexadecimal digits.
    signature: Option<String>,
    /// Path of the machine's own segment.
    segment: String,
    /// Kernel arguments of the machine.
    cmdline: String,
}

/// Fetches and checks a version, and hands it to the kernel, which starts it when it is told to.
pub(crate) fn load(server: &Server, machine: &Machine, target: &Target) -> Result<(), KexecError> {
    let by_file = sys::kexec_by_file();
    // Debian's kernels for arm64 take pieces of memory only, which somebody has to place.
    if let Err(error) = by_file
        && !cfg!(target_arch = "aarch64")
    {
        return Err(KexecError::Unsupported(error));
    }
    let server = Source::new(server.clone(), target.boot);
    let bytes = server.manifest(&target.version, target.manifest_size)?;
    manifest::check_signature(&target.version, target.signature.as_deref(), &machine.keys)?;
    let manifest = Manifest::read(&bytes)?;
    drop(bytes);
    has_room(&manifest)?;

    say(&format!("fetching {} {}", manifest.image, target.version));
    let kernel = memory_file("kernel")?;
    server.file(&manifest.kernel.digest, "vmlinuz", manifest.kernel.size, &kernel)?;
    let initrd = memory_file("initrd")?;
    let (first, rest) = manifest.around_machine();
    fetch_all(&server, first, &initrd)?;
    server.segment(&target.segment, &initrd)?;
    fetch_all(&server, rest, &initrd)?;

    let cmdline = manifest.cmdline_with(&target.cmdline);
    match by_file {
        Ok(()) => sys::kexec_load_files(&kernel, &initrd, &cmdline).map_err(KexecError::Load),
        Err(_) => load_in_pieces(&kernel, &initrd, &cmdline),
    }
}

fn fetch_all(server: &Source, segments: &[Part], initrd: &File) -> Result<(), KexecError> {
    segments.iter().try_for_each(|segment| {
        let name = format!("{}.cpio.zst", segment.component);
        server.file(&segment.digest, &name, segment.size, initrd)
    })
}

/// Places everything by ourselves, for kernels that do not do it.
fn load_in_pieces(kernel: &File, initrd: &File, cmdline: &str) -> Result<(), KexecError> {
    let failed = |error: io::Error| KexecError::Place(error.to_string());
    let kernel = sys::Mapped::new(kernel).map_err(KexecError::Memory)?;
    let initrd = sys::Mapped::new(initrd).map_err(KexecError::Memory)?;
    let tree = fs::read("/sys/firmware/fdt").map_err(failed)?;
    let map = fs::read_to_string("/proc/iomem").map_err(failed)?;
    let size = initrd.bytes().len() as u64;
    let layout = layout::place(kernel.bytes(), size, &map)
        .ok_or_else(|| KexecError::Place("there is no room for it in one piece".to_owned()))?;
    let tree = fdt::with_chosen(&tree, cmdline, (layout.initrd, layout.initrd + size))
        .ok_or_else(|| KexecError::Place("the device tree makes no sense".to_owned()))?;
    let code = layout::start_code(&layout);
    let pieces = [
        Piece { bytes: kernel.bytes(), address: layout.image, space: layout.image_size },
        Piece { bytes: &tree, address: layout.tree, space: fdt::LARGEST as u64 },
        Piece { bytes: &code, address: layout.start, space: layout::LARGEST_PAGE },
        Piece { bytes: initrd.bytes(), address: layout.initrd, space: layout::space(size) },
    ];
    sys::kexec_load_pieces(layout.start, &pieces).map_err(KexecError::Load)
}

/// The files are in memory three times for a moment: as fetched, as the kernel reads them, and where they will lie.
fn has_room(manifest: &Manifest) -> Result<(), KexecError> {
    let info = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (Some(total), Some(free)) =
        (manifest::memory(&info, "MemTotal:"), manifest::memory(&info, "MemAvailable:"))
    else {
        return Ok(());
    };
    let needed = manifest.size().saturating_mul(3);
    if needed > free {
        return Err(KexecError::NoRoom { needed: needed >> 20, free: free >> 20 });
    }
    // What the kernel keeps for itself is not in its total.
    if manifest.min_ram > total.saturating_add(total / 8) {
        return Err(KexecError::TooSmall { needed: manifest.min_ram >> 20, total: total >> 20 });
    }
    Ok(())
}
