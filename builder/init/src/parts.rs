//! Whether everything that the image consists of is there.
//!
//! An initrd is a list of archives. The kernel stops at the first one that it cannot unpack, because memory is full or
//! because it was cut off on its way, and starts us all the same. So each archive ends with an empty file whose name only
//! it has, and the image says which of these there are.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc;
use nix::sys::statvfs::statvfs;
use nix::sys::sysinfo::sysinfo;

use crate::config::Image;

const OWN: &str = "/.kiln";
const MARKS: &str = "/.kiln/parts";
/// What the kernel says when it stops unpacking.
const KERNELS_WORDS: &str = "Initramfs unpacking failed: ";
/// More lines than the kernel's buffer has.
const MOST_LINES: usize = 1 << 16;

/// Says what is missing of the image and why that may be, or nothing. `None` for an image is one that did not arrive.
/// The marks are taken away.
pub(crate) fn missing(image: Option<&Image>) -> Option<String> {
    let there = names(Path::new(MARKS));
    let _ = fs::remove_dir_all(OWN);
    let lack = match image {
        Some(image) => lack(image, &there)?,
        None => "all that comes after kiln-init".to_owned(),
    };
    let memory = Memory {
        total: sysinfo().map_or(0, |info| info.ram_total()),
        needed: image.and_then(|image| image.min_ram).unwrap_or(0),
        full: statvfs("/")
            .is_ok_and(|root| root.blocks() > 0 && root.blocks_available() * 32 < root.blocks()),
    };
    Some(format!(
        "this machine is not whole, of its initrd is missing {lack}{}",
        cause(&memory, kernels_words().as_deref())
    ))
}

/// Names the components whose archives did not come to their end.
fn lack(image: &Image, there: &BTreeSet<String>) -> Option<String> {
    let gone = image.parts.iter().filter(|(mark, _)| !there.contains(*mark));
    let mut names: Vec<&str> = gone.map(|(_, component)| component.as_str()).collect();
    if names.is_empty() {
        return None;
    }
    names.sort_unstable();
    Some(names.join(", "))
}

#[derive(Clone, Copy)]
struct Memory {
    /// What the kernel has for all but itself.
    total: u64,
    /// What the builder says the whole machine must have.
    needed: u64,
    /// Whether no room is left in the root file system.
    full: bool,
}

/// Says why something may be missing, and what can be done.
fn cause(memory: &Memory, kernel: Option<&str>) -> String {
    const MIB: u64 = 1 << 20;
    /// A kernel keeps no more of a machine's memory for itself.
    const KERNEL: u64 = 64 * MIB;
    let said = kernel.map(|words| format!("; the kernel says: {words}")).unwrap_or_default();
    let (total, needed) = (memory.total / MIB, memory.needed.div_ceil(MIB));
    let small = memory.total + KERNEL < memory.needed;
    if memory.full || small || kernel.is_some_and(|words| words.contains("write error")) {
        return format!(
            "{said}. Memory was too small: {total} MiB besides the kernel, where a machine of {needed} MiB is needed. Give it more, or a smaller image"
        );
    }
    format!(
        "{said}. It was cut off on its way, or the loader cannot hold this much: start the machine again, or try another loader"
    )
}

/// Looks for what the kernel said about the initrd.
fn kernels_words() -> Option<String> {
    let mut log =
        fs::File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg").ok()?;
    // One read gives one line.
    let mut line = [0; 8192];
    for _ in 0..MOST_LINES {
        match log.read(&mut line) {
            Ok(0) => return None,
            Ok(length) => {
                let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
                if let Some((_, words)) = text.split_once(KERNELS_WORDS) {
                    return Some(words.lines().next().unwrap_or_default().to_owned());
                }
            }
            // A line was overwritten before it was read; the next one is there.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return None,
        }
    }
    None
}

fn names(directory: &Path) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(directory) else { return BTreeSet::new() };
    entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn parts_without_their_marks_are_named_by_their_components() {
        let image: Image = serde_json::from_str(
            r#"{"parts":{"01":"web","02":"kernel-modules","03":"db"},"min-ram":1048576}"#,
        )
        .unwrap();
        let there = |marks: &[&str]| marks.iter().map(ToString::to_string).collect();
        assert_eq!(lack(&image, &there(&["01", "02", "03", "other"])), None);
        assert_eq!(lack(&image, &there(&["02"])).as_deref(), Some("db, web"));
        assert_eq!(lack(&Image::default(), &there(&[])), None);
    }

    #[test]
    fn the_cause_is_memory_where_it_was_full_or_too_small_and_the_way_of_the_initrd_otherwise() {
        let enough = Memory { total: 900 * MIB, needed: 200 * MIB, full: false };
        for (memory, kernel, expected) in [
            (Memory { full: true, ..enough }, None, ". Memory was too small: 900 MiB besides"),
            (
                Memory { total: 80 * MIB, ..enough },
                None,
                ". Memory was too small: 80 MiB besides the kernel, where a machine of 200 MiB",
            ),
            (enough, Some("write error"), "; the kernel says: write error. Memory was"),
            (enough, Some("ZSTD-compressed data is truncated"), "truncated. It was cut off"),
            (enough, None, ". It was cut off on its way"),
        ] {
            let text = cause(&memory, kernel);
            assert!(text.contains(expected), "{text}");
        }
    }
}
