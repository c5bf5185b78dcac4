//! What a kernel can do with an initrd, and with what Kiln puts into it.

use super::{Feature, KernelParts, Setting};
use crate::manifest::SegmentCompression;

/// The first release that unpacks zstd (`RD_ZSTD`).
const ZSTD_SINCE: (u32, u32) = (5, 9);

/// What every image takes.
const ALWAYS: &[(Feature, &str)] = &[
    (Feature::Initrd, "cannot unpack an initrd (BLK_DEV_INITRD)"),
    (Feature::Tmpfs, "has no tmpfs (TMPFS)"),
    (Feature::Devtmpfs, "makes no device files (DEVTMPFS)"),
    (
        Feature::Cgroups,
        "cannot limit what containers take (CGROUPS, MEMCG, CGROUP_PIDS, CGROUP_BPF)",
    ),
    (
        Feature::Namespaces,
        "lacks some of the namespaces of containers (PID_NS, NET_NS, UTS_NS, IPC_NS, USER_NS)",
    ),
    (Feature::SeccompFilter, "cannot filter system calls (SECCOMP_FILTER)"),
    (Feature::Overlay, "has no overlayfs (OVERLAY_FS), which writable containers need"),
];
/// What packed root file systems take.
const PACKED: &[(Feature, &str)] = &[
    (Feature::Loop, "has no loop devices (BLK_DEV_LOOP), which `layout: packed` needs"),
    (
        Feature::SquashfsZstd,
        "has no SquashFS with zstd (SQUASHFS_ZSTD), which `layout: packed` needs",
    ),
];

impl KernelParts {
    /// Returns how an initrd for this kernel is compressed: by zstd, by gzip where it cannot unpack that, and not at
    /// all where it cannot unpack either.
    pub fn initrd_compression(&self) -> SegmentCompression {
        let Some(config) = &self.config else {
            return match version(&self.release) >= Some(ZSTD_SINCE) {
                true => SegmentCompression::Zstd,
                false => SegmentCompression::Gzip,
            };
        };
        let can = |feature| config.supports(feature) == Setting::BuiltIn;
        if can(Feature::ZstdInitrd) {
            SegmentCompression::Zstd
        } else if can(Feature::GzipInitrd) {
            SegmentCompression::Gzip
        } else {
            SegmentCompression::None
        }
    }

    /// Returns a sentence for each thing that an image needs and this kernel was built without, as far as that is
    /// known.
    pub fn shortcomings(&self, packed: bool) -> Vec<String> {
        let Some(config) = &self.config else { return Vec::new() };
        let needed = ALWAYS.iter().chain(PACKED.iter().filter(|_| packed));
        let absent = needed.filter(|(feature, _)| config.supports(*feature) == Setting::Absent);
        absent.map(|(_, what)| format!("kernel {} {what}", self.release)).collect()
    }
}

/// Returns the first two numbers of a release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
