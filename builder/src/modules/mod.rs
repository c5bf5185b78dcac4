//! Chooses kernel modules and writes the lists by which they are found, as `depmod` does: Debian's packages come
//! without them.

mod info;
mod lists;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::info::ModuleInfo;
use crate::disk::is_full;
use crate::spec::ModuleSelection;
use crate::tree::{Content, Kind, Node, Tree, TreePath, TreePathError};

/// No module comes near this.
const MAX_MODULE: u64 = 128 << 20;
/// Memory that unpacking one module may take.
const XZ_MEMORY: u64 = 256 << 20;
const WINDOW_LOG: u32 = 27;

/// What `auto` takes: directories and single modules below `kernel/`.
const AUTO: &[&str] = &[
    "arch/arm64/crypto/crc32",
    "arch/x86/crypto/crc32",
    "crypto/crc32c",
    "drivers/ata/",
    "drivers/block/loop",
    "drivers/block/virtio_blk",
    "drivers/block/xen-blkfront",
    "drivers/char/hw_random/",
    "drivers/hv/hv_vmbus",
    "drivers/net/ethernet/",
    "drivers/net/hyperv/",
    "drivers/net/mdio/",
    "drivers/net/phy/",
    "drivers/net/virtio_net",
    "drivers/net/vmxnet3/",
    "drivers/net/xen-netfront",
    "drivers/nvme/host/nvme.",
    "drivers/scsi/hv_storvsc",
    "drivers/scsi/megaraid/",
    "drivers/scsi/mpt3sas/",
    "drivers/scsi/sd_mod",
    "drivers/scsi/sr_mod",
    "drivers/scsi/virtio_scsi",
    "drivers/scsi/vmw_pvscsi",
    "drivers/virtio/",
    "fs/ext4/",
    "fs/fat/vfat",
    "fs/nls/nls_ascii",
    "fs/nls/nls_cp437",
    "fs/nls/nls_iso8859-1",
    "fs/nls/nls_utf8",
    "fs/overlayfs/",
    "fs/squashfs/",
    "net/packet/af_packet.",
];
/// What no device asks for, so that kiln-init has to load it by name.
const AT_START: &[&str] = &["overlay", "af_packet"];

/// What an image with packed root file systems needs.
pub const FOR_PACKED: &[&str] = &["loop", "squashfs", "overlay"];

/// The modules of an image.
#[derive(Debug)]
pub struct Modules {
    /// `lib/modules/RELEASE/…`.
    pub tree: Tree,
    /// Names of those to load at start, besides those that devices ask for.
    pub at_start: Vec<String>,
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

/// Takes modules out of the tree of a kernel package, with all that they depend on. They are unpacked into a file
/// without a name in the given directory.
///
/// # Errors
///
/// Fails when a named module does not exist, and when a module cannot be read.
pub fn collect(
    package: &Tree,
    release: &str,
    selection: &ModuleSelection,
    dir: &Path,
) -> Result<Modules, ModulesError> {
    collect_with(package, release, selection, &[], dir)
}

/// As [`collect`], with modules that the image needs whatever the selection says, such as [`FOR_PACKED`]. What this
/// kernel has built in, or not at all, is left out.
///
/// # Errors
///
/// As [`collect`].
pub fn collect_with(
    package: &Tree,
    release: &str,
    selection: &ModuleSelection,
    needs: &[&str],
    dir: &Path,
) -> Result<Modules, ModulesError> {
    let base = format!("usr/lib/modules/{release}/");
    let all = available(package, &base);
    let builtin = builtin_names(package, &base);
    let mut wanted: Vec<String> = match selection {
        ModuleSelection::None => Vec::new(),
        ModuleSelection::Auto => all
            .iter()
            .filter(|(_, file)| AUTO.iter().any(|part| file["kernel/".len()..].starts_with(part)))
            .map(|(name, _)| name.clone())
            .collect(),
        ModuleSelection::Named(names) => {
            let names: Vec<_> = names.iter().map(|name| normal(name)).collect();
            for name in &names {
                if !all.contains_key(name) && !builtin.contains(name) {
                    return Err(ModulesError::Unknown {
                        name: name.clone(),
                        release: release.to_owned(),
                    });
                }
            }
            names
        }
    };
    let named = wanted.clone();
    wanted.extend(needs.iter().map(|name| normal(name)));

    let mut spool = Spool::new(dir)?;
    let mut chosen: BTreeMap<String, Chosen> = BTreeMap::new();
    let mut aliases = Aliases { package, base: &base, all: &all, known: None };
    while let Some(name) = wanted.pop() {
        // What is not there as a file is built in.
        let Some(file) = all.get(&name).filter(|_| !chosen.contains_key(&name)) else { continue };
        let mut module = spool.unpack(package, &base, file)?;
        for line in &mut module.info.softdeps {
            *line = aliases.resolve(line, &builtin)?;
        }
        wanted.extend(module.info.depends.iter().cloned());
        wanted.extend(module.info.soft_names());
        chosen.insert(name, module);
    }

    let at_start = match selection {
        ModuleSelection::Named(_) => named,
        _ => AT_START.iter().map(|&name| name.to_owned()).collect(),
    };
    let at_start = at_start.into_iter().filter(|name| chosen.contains_key(name)).collect();
    let tree = place(package, &base, release, &chosen)?;
    Ok(Modules { tree, at_start })
}

/// The modules that say they serve a name, such as `crypto-crc32c`.
struct Aliases<'a> {
    package: &'a Tree,
    base: &'a str,
    all: &'a BTreeMap<String, String>,
    /// Read when it is first asked for: few modules depend on anything by such a name, and it takes all of them.
    known: Option<BTreeMap<String, Vec<String>>>,
}

impl Aliases<'_> {
    /// Puts the modules in the place of each alias: kiln-init looks for soft dependencies by the names of modules.
    /// What this kernel has nothing of stays as it is.
    fn resolve(&mut self, line: &str, builtin: &BTreeSet<String>) -> Result<String, ModulesError> {
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let name = normal(word);
            // `pre:` and `post:` stand between the names.
            let real = self.all.contains_key(&name) || builtin.contains(&name);
            if real || word.ends_with(':') {
                words.push(word.to_owned());
                continue;
            }
            match self.known()?.get(&name) {
                Some(modules) => words.extend(modules.iter().cloned()),
                None => words.push(word.to_owned()),
            }
        }
        Ok(words.join(" "))
    }

    fn known(&mut self) -> Result<&BTreeMap<String, Vec<String>>, ModulesError> {
        if self.known.is_none() {
            let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (module, file) in self.all {
                let (_, info) = read(self.package, self.base, file)?;
                for alias in &info.aliases {
                    known.entry(normal(alias)).or_default().push(module.clone());
                }
            }
            self.known = Some(known);
        }
        Ok(self.known.get_or_insert_default())
    }
}

/// Writes the modules and their lists where the kernel's tools look for them.
fn place(
    package: &Tree,
    base: &str,
    release: &str,
    chosen: &BTreeMap<String, Chosen>,
) -> Result<Tree, ModulesError> {
    let mut tree = Tree::new();
    if chosen.is_empty() {
        return Ok(tree);
    }
    let at = |file: &str| TreePath::new(&format!("lib/modules/{release}/{file}"));
    for module in chosen.values() {
        let node = Node::new(0o644, Kind::File(module.content.clone()));
        tree.insert(at(&module.file)?, node);
    }
    for file in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
        if let Some(content) = package.content(&TreePath::new(&format!("{base}{file}"))?) {
            tree.insert(at(file)?, Node::new(0o644, Kind::File(content.clone())));
        }
    }
    tree.insert(at("modules.dep")?, Node::file(0o644, lists::dependencies(chosen)));
    tree.insert(at("modules.alias")?, Node::file(0o644, lists::aliases(chosen)));
    tree.insert(at("modules.softdep")?, Node::file(0o644, lists::soft_dependencies(chosen)));
    Ok(tree)
}

/// Returns the files of all modules below the release's directory, by module name.
fn available(package: &Tree, base: &str) -> BTreeMap<String, String> {
    package
        .iter()
        .filter_map(|(path, _)| {
            let file = path.as_str().strip_prefix(base)?;
            let name = module_name(file).filter(|_| file.starts_with("kernel/"))?;
            Some((name, file.to_owned()))
        })
        .collect()
}

/// Returns the names of the modules that are part of the kernel itself.
fn builtin_names(package: &Tree, base: &str) -> BTreeSet<String> {
    TreePath::new(&format!("{base}modules.builtin"))
        .ok()
        .and_then(|path| package.content(&path)?.read_all(1 << 20).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).lines().filter_map(module_name).collect())
        .unwrap_or_default()
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

/// Unpacked modules, in one file that has no name.
struct Spool<'a> {
    dir: &'a Path,
    file: Arc<File>,
    end: u64,
}

impl<'a> Spool<'a> {
    fn new(dir: &'a Path) -> Result<Self, ModulesError> {
        let file = tempfile::tempfile_in(dir).map_err(ModulesError::spool(dir))?;
        Ok(Self { dir, file: Arc::new(file), end: 0 })
    }

    fn unpack(&mut self, package: &Tree, base: &str, file: &str) -> Result<Chosen, ModulesError> {
        let (bytes, info) = read(package, base, file)?;
        let offset = self.end;
        self.file.write_all_at(&bytes, offset).map_err(ModulesError::spool(self.dir))?;
        let len = bytes.len() as u64;
        self.end += len;
        let content = Content::Span { file: Arc::clone(&self.file), offset, len };
        let file = plain(file).to_owned();
        Ok(Chosen { file, info, content })
    }
}

/// Reads a module and what it says about itself.
fn read(package: &Tree, base: &str, file: &str) -> Result<(Vec<u8>, ModuleInfo), ModulesError> {
    let path = TreePath::new(&format!("{base}{file}"))?;
    let failed = |source| ModulesError::Read { path: path.clone(), source };
    let content = package.content(&path).ok_or_else(|| failed(io::ErrorKind::NotFound.into()))?;
    let bytes = unpack(file, content).map_err(failed)?;
    let info = ModuleInfo::parse(&bytes)
        .map_err(|source| ModulesError::NotModule { path: path.clone(), source })?;
    Ok((bytes, info))
}

/// Unpacks a module: inside a segment, which is compressed as a whole, it takes less room that way.
fn unpack(file: &str, content: &Content) -> io::Result<Vec<u8>> {
    let packed = content.reader();
    let reader: Box<dyn Read + '_> = match file.rsplit('.').next() {
        Some("xz") => {
            let stream = liblzma::stream::Stream::new_stream_decoder(XZ_MEMORY, 0)?;
            Box::new(liblzma::read::XzDecoder::new_stream(packed, stream))
        }
        Some("zst") => {
            let mut decoder = zstd::Decoder::new(packed)?;
            decoder.window_log_max(WINDOW_LOG)?;
            Box::new(decoder)
        }
        Some("gz") => Box::new(flate2::read::MultiGzDecoder::new(packed)),
        _ => Box::new(packed),
    };
    let mut bytes = Vec::new();
    reader.take(MAX_MODULE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_MODULE {
        return Err(io::Error::other("it unpacks to more than 128 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
