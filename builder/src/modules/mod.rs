//! Chooses kernel modules and writes the lists by which they are found, as `depmod` does: Debian's packages come
//! without them.

mod firmware;
mod info;
mod lists;
mod source;
mod unpack;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

pub use self::firmware::{Declared, Firmware, remove_firmware};
use self::info::ModuleInfo;
use self::source::Source;
use self::unpack::read;
use crate::disk::is_full;
use crate::spec::ModuleSelection;
use crate::tree::{Content, Tree, TreePath, TreePathError};

/// What `network` takes, which is a part of `auto`: directories and single modules below `kernel/`.
const NETWORK: &[&str] = &[
    "drivers/acpi/button",
    "drivers/char/hw_random/",
    "drivers/gpio/gpio-pl061",
    "drivers/hv/hv_vmbus",
    "drivers/input/evdev",
    "drivers/input/keyboard/gpio_keys",
    "drivers/net/ethernet/",
    "drivers/net/hyperv/",
    "drivers/net/mdio/",
    "drivers/net/phy/",
    "drivers/net/virtio_net",
    "drivers/net/vmxnet3/",
    "drivers/net/xen-netfront",
    "drivers/rtc/rtc-cmos.",
    "drivers/rtc/rtc-ds1307.",
    "drivers/rtc/rtc-efi.",
    "drivers/rtc/rtc-pl031.",
    "drivers/virtio/",
    "drivers/watchdog/bcm2835_wdt.",
    "drivers/watchdog/dw_wdt.",
    "drivers/watchdog/hpwdt.",
    "drivers/watchdog/i6300esb.",
    "drivers/watchdog/iTCO_wdt.",
    "drivers/watchdog/sbsa_gwdt.",
    "drivers/watchdog/sp5100_tco.",
    "drivers/watchdog/sp805_wdt.",
    "drivers/watchdog/wdat_wdt.",
    "fs/efivarfs/",
    "fs/overlayfs/",
    "net/packet/af_packet.",
];
/// What `auto` takes besides: disks, and the file systems on them.
const DISKS: &[&str] = &[
    "arch/arm64/crypto/crc32",
    "arch/x86/crypto/crc32",
    "crypto/crc32c",
    "drivers/ata/",
    "drivers/block/loop",
    "drivers/block/virtio_blk",
    "drivers/block/xen-blkfront",
    "drivers/nvme/host/nvme.",
    "drivers/scsi/hv_storvsc",
    "drivers/scsi/megaraid/",
    "drivers/scsi/mpt3sas/",
    "drivers/scsi/sd_mod",
    "drivers/scsi/sr_mod",
    "drivers/scsi/virtio_scsi",
    "drivers/scsi/vmw_pvscsi",
    "fs/ext4/",
    "fs/fat/vfat",
    "fs/nls/nls_ascii",
    "fs/nls/nls_cp437",
    "fs/nls/nls_iso8859-1",
    "fs/nls/nls_utf8",
    "fs/squashfs/",
];
/// What no device asks for, so that kiln-init has to load it by name.
const AT_START: &[&str] = &["overlay", "af_packet", "efivarfs"];

/// What `auto` takes besides when the image has a state partition: where a disk for it may be.
const AUTO_STATE: &[&str] = &[
    "drivers/mmc/",
    "drivers/scsi/aacraid/",
    "drivers/scsi/hpsa",
    "drivers/scsi/smartpqi/",
    "drivers/ufs/",
    "drivers/usb/storage/",
];

/// What an image needs whatever its selection says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Modules to load at start.
    pub(crate) names: Vec<&'static str>,
    /// Whether a partition is kept on some disk, so that `auto` takes more drivers of disks.
    pub(crate) disks: bool,
}

impl Needs {
    /// Returns the needs of packed root file systems and of a state partition.
    pub fn new(packed: bool, state: bool) -> Self {
        let mut names = Vec::new();
        if packed {
            names.extend(["loop", "squashfs", "overlay"]);
        }
        if state {
            // The kernel asks a program for the modules of file systems, and there is none.
            names.push("ext4");
        }
        Self { names, disks: state }
    }

    /// Adds modules.
    pub(crate) fn with(mut self, names: impl IntoIterator<Item = &'static str>) -> Self {
        self.names.extend(names);
        self
    }
}

/// The modules of an image.
#[derive(Debug)]
pub struct Modules {
    /// `lib/modules/RELEASE/…`.
    pub tree: Tree,
    /// Names of those to load at start, besides those that devices ask for.
    pub at_start: Vec<String>,
    /// The firmware that they declare; nothing where none of them had to be read.
    pub declared: Declared,
}

/// The modules cannot be put together.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModulesError {
    /// A module that was named does not exist.
    #[error("kernel {release} has no module `{name}`")]
    Unknown {
        /// The name.
        name: String,
        /// The kernel.
        release: String,
    },
    /// What the image cannot do without is left out.
    #[error(
        "`modules` leaves out `{name}`, or what that needs, and this image cannot do without it"
    )]
    LeftOut {
        /// The module.
        name: String,
    },
    /// A module could not be read or unpacked.
    #[error("cannot read the kernel module `{path}`")]
    Read {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A module is not an object file of the kernel.
    #[error("`{path}` is not a kernel module")]
    NotModule {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: object::Error,
    },
    /// No space is left for unpacked modules.
    #[error(
        "no space is left on the disk to unpack kernel modules in {}; free some or choose another directory", dir.display()
    )]
    DiskFull {
        /// Where they would be.
        dir: PathBuf,
    },
    /// There is no place for unpacked modules.
    #[error("cannot unpack kernel modules in {}", dir.display())]
    Spool {
        /// Where they would be.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A path is too long.
    #[error("cannot place a kernel module")]
    Path(#[from] TreePathError),
}

/// A module that goes into the image.
struct Chosen {
    /// Path below `lib/modules/RELEASE`.
    file: String,
    info: ModuleInfo,
    content: Content,
}

impl ModulesError {
    fn spool(dir: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match is_full(&source) {
            true => Self::DiskFull { dir: dir.to_owned() },
            false => Self::Spool { dir: dir.to_owned(), source },
        }
    }
}

/// Takes modules out of the tree of a kernel, with all that they depend on, and those that the image needs whatever the
/// selection says: what this kernel has built in, or not at all, is left out. They are unpacked
/// into a file without a name in the given directory.
///
/// # Errors
///
/// Fails when a named module does not exist, and when a module cannot be read.
pub fn collect(
    package: &Tree,
    release: &str,
    selection: &ModuleSelection,
    needs: &Needs,
    dir: &Path,
) -> Result<Modules, ModulesError> {
    let source = Source::new(package, release);
    let (mut auto, mut network) = (false, false);
    let mut wanted = Vec::new();
    let mut left_out = BTreeSet::new();
    match selection {
        ModuleSelection::None => {}
        ModuleSelection::Auto => auto = true,
        ModuleSelection::Named(names) => {
            for name in names {
                if let Some(name) = name.strip_prefix(ModuleSelection::WITHOUT) {
                    let name = normal(name);
                    if !source.all.contains_key(&name) && !source.builtin.contains(&name) {
                        return Err(ModulesError::Unknown { name, release: release.to_owned() });
                    }
                    left_out.insert(name);
                    continue;
                }
                let name = normal(name);
                if name == ModuleSelection::AUTO {
                    auto = true;
                } else if name == ModuleSelection::NETWORK {
                    network = true;
                } else if source.all.contains_key(&name) || source.builtin.contains(&name) {
                    wanted.push(name);
                } else {
                    return Err(ModulesError::Unknown { name, release: release.to_owned() });
                }
            }
        }
    }
    let mut at_start = wanted.clone();
    if auto || network {
        let disks: &[_] = if auto { DISKS } else { &[] };
        let more: &[_] = if needs.disks { AUTO_STATE } else { &[] };
        let parts = NETWORK.iter().chain(disks).chain(more);
        let usual = |file: &str| {
            file.strip_prefix("kernel/")
                .is_some_and(|f| parts.clone().any(|part| f.starts_with(part)))
        };
        let all = source.all.iter().filter(|(_, file)| usual(file));
        wanted.extend(all.map(|(name, _)| name.clone()));
        at_start.extend(AT_START.iter().map(|&name| name.to_owned()));
    }
    for name in needs.names.iter().map(|name| normal(name)) {
        wanted.push(name.clone());
        at_start.push(name);
    }
    let mut chosen = source.close(wanted, dir)?;
    leave_out(&mut chosen, left_out);
    if let Some(name) = needs.names.iter().find(|name| {
        let name = normal(name);
        source.all.contains_key(&name) && !chosen.contains_key(&name)
    }) {
        return Err(ModulesError::LeftOut { name: (*name).to_owned() });
    }
    let mut seen = BTreeSet::new();
    at_start.retain(|name| chosen.contains_key(name) && seen.insert(name.clone()));
    let declared = source.declared_by(&chosen);
    Ok(Modules { tree: source.place(&chosen)?, at_start, declared })
}

/// Takes modules away, and those that cannot be loaded without them.
fn leave_out(chosen: &mut BTreeMap<String, Chosen>, mut gone: BTreeSet<String>) {
    while !gone.is_empty() {
        gone.iter().for_each(|name| drop(chosen.remove(name)));
        let lacks = |module: &Chosen| module.info.depends.iter().any(|name| gone.contains(name));
        let next = chosen.iter().filter(|(_, module)| lacks(module));
        gone = next.map(|(name, _)| name.clone()).collect();
    }
}

/// Takes everything that comes with a kernel: its modules, all of them unless some are selected, and whatever lies
/// beside them. The lists are kept as they are, unless they are missing, or the modules are not all there as kiln-init
/// finds and loads them: uncompressed, below `lib/modules`.
///
/// # Errors
///
/// As [`collect`]; when the lists are kept, no module is read.
pub fn complete(
    mut tree: Tree,
    release: &str,
    selection: Option<&ModuleSelection>,
    needs: &Needs,
    dir: &Path,
) -> Result<Modules, ModulesError> {
    let source = Source::new(&tree, release);
    let base = TreePath::new(source.base.trim_end_matches('/'));
    let modules = match selection {
        Some(selection) => collect(&tree, release, selection, needs, dir)?,
        None => {
            let mut at_start: Vec<_> =
                AT_START.iter().chain(&needs.names).map(|name| normal(name)).collect();
            let mut seen = BTreeSet::new();
            at_start.retain(|name| source.all.contains_key(name) && seen.insert(name.clone()));
            if source.is_ready()? {
                return Ok(Modules { tree, at_start, declared: Declared::default() });
            }
            let chosen = source.close(source.all.keys().cloned().collect(), dir)?;
            let declared = source.declared_by(&chosen);
            Modules { tree: source.place(&chosen)?, at_start, declared }
        }
    };
    tree.remove(&base?);
    tree.merge(modules.tree);
    Ok(Modules { tree, ..modules })
}

/// Returns the firmware that all modules of a kernel declare.
///
/// # Errors
///
/// Fails when a module cannot be read.
pub fn declared(package: &Tree, release: &str) -> Result<Declared, ModulesError> {
    let source = Source::new(package, release);
    let mut declared = source.declared_by(&BTreeMap::new());
    for (name, file) in &source.all {
        let (_, info) = read(package, &source.base, file)?;
        declared.add(name, &info.firmware);
    }
    Ok(declared)
}

/// Returns `virtio_net` for `kernel/drivers/net/virtio_net.ko.xz`.
fn module_name(file: &str) -> Option<String> {
    let name = file.rsplit('/').next()?;
    plain(name).strip_suffix(".ko").map(normal)
}

/// Returns the name of the file once it is unpacked.
fn plain(file: &str) -> &str {
    [".xz", ".zst", ".gz"].iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file)
}

/// In the name of a module `-` and `_` are the same.
fn normal(name: &str) -> String {
    name.replace('-', "_")
}

#[cfg(test)]
pub(crate) mod tests;
