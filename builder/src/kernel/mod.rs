//! The kernel of an image: out of Debian packages or out of a kernel image of LinuxKit, with its release, what it was
//! built with, and what loaders can do with it.

mod archive;
mod config;
mod form;
mod initrd;
pub mod kspp;
mod ram;

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

pub use self::config::{Feature, KernelConfig, Setting};
pub use self::form::Form;
pub use self::ram::{Load, min_ram};
use crate::spec::KernelSpec;
use crate::tree::{Content, Tree, TreePath, TreePathError};

/// No kernel comes near this.
const MAX_KERNEL: u64 = 256 << 20;
/// The permissions of a kernel that has none of its own.
const USUAL_MODE: u32 = 0o644;
/// The fields of all headers are in it.
const HEAD: u64 = 4096;

/// A kernel that machines can start, and what comes with it.
#[derive(Clone, Debug)]
pub struct KernelParts {
    /// What `uname -r` says.
    pub release: String,
    /// The file, as loaders take it.
    pub bytes: Vec<u8>,
    /// The permissions of its file there.
    pub mode: u32,
    /// Its form.
    pub form: Form,
    /// Whether UEFI can start it.
    pub efi_stub: bool,
    /// What it was built with, where that can be found out.
    pub config: Option<KernelConfig>,
    /// Modules and all else that goes to the root file system as it is; empty where modules are chosen from packages.
    pub modules: Tree,
    /// A cpio archive of processor microcode, which goes before all that is compressed.
    pub ucode: Option<Content>,
}

/// There is no kernel to take.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KernelError {
    /// No file looks like a kernel, or several do.
    #[error("package `{package}` has {found} kernels (boot/vmlinuz-*); one is needed")]
    NotOne {
        /// The package.
        package: String,
        /// How many there are.
        found: usize,
    },
    /// A kernel image lacks a file that it should have.
    #[error("the kernel's image has no file `{path}`; `kernel.{key}` names it")]
    Missing {
        /// The file.
        path: String,
        /// The key of the specification.
        key: &'static str,
    },
    /// The kernel could not be read or unpacked.
    #[error("cannot read the kernel `{path}`")]
    Read {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The tar of modules is broken.
    #[error("cannot read the kernel's modules in `{path}`")]
    Tar {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A name in the specification is none.
    #[error("`kernel.{key}` is no name of a file")]
    Name {
        /// The key of the specification.
        key: &'static str,
        /// Why.
        #[source]
        source: TreePathError,
    },
    /// Nothing says which release the kernel has.
    #[error("`{path}` does not say which release of the kernel it is")]
    NoRelease {
        /// The file.
        path: TreePath,
    },
}

/// Finds the kernel in the tree of its Debian packages.
///
/// # Errors
///
/// Fails when there is not exactly one, and when it cannot be read.
pub fn from_packages(tree: &Tree, package: &str) -> Result<KernelParts, KernelError> {
    let release = |path: &TreePath| path.as_str().strip_prefix("boot/vmlinuz-").map(str::to_owned);
    let found: Vec<_> = tree
        .iter()
        .filter_map(|(path, _)| Some((path, release(path)?, tree.content(path)?)))
        .collect();
    let [(path, release, content)] = found.as_slice() else {
        return Err(KernelError::NotOne { package: package.to_owned(), found: found.len() });
    };
    let bytes = read(path, content)?;
    let config = find_config(tree, &format!("boot/config-{release}"), &bytes);
    Ok(parts(release.clone(), bytes, config))
}

/// Takes the kernel out of an image made for LinuxKit: a file `kernel`, and its modules in `kernel.tar`
/// (`docs/kernels.md` of LinuxKit). Everything else in the image is left out.
///
/// # Errors
///
/// Fails when a file that the specification names is not there, cannot be read or is broken.
pub fn from_image(tree: &Tree, spec: &KernelSpec) -> Result<KernelParts, KernelError> {
    let binary = spec.binary.as_deref().filter(|name| !name.is_empty()).unwrap_or("kernel");
    let (path, content) = file(tree, binary, "binary")?;
    let bytes = read(&path, content)?;
    let modules = match spec.tar.as_deref().unwrap_or("kernel.tar") {
        "" | "none" => Tree::new(),
        name => {
            let (path, content) = file(tree, name, "tar")?;
            archive::read(content).map_err(|source| KernelError::Tar { path, source })?
        }
    };
    let ucode = match spec.ucode.as_deref() {
        None | Some("") => None,
        Some(name) => Some(file(tree, name, "ucode")?.1.clone()),
    };
    let unpacked = |source| KernelError::Read { path: path.clone(), source };
    let release = match form::release(&bytes).or_else(|| module_release(&modules)) {
        Some(release) => release,
        None => match form::unpacked(&bytes).map_err(unpacked)? {
            Some(kernel) => form::find_release(kernel).map_err(unpacked)?,
            None => None,
        }
        .ok_or_else(|| KernelError::NoRelease { path: path.clone() })?,
    };
    let config = find_config(tree, "kernel_config", &bytes);
    let mode = tree.get(&path).map_or(USUAL_MODE, |node| node.mode & 0o777);
    Ok(KernelParts { modules, ucode, mode, ..parts(release, bytes, config) })
}

impl KernelParts {
    /// Puts the uncompressed kernel in the place of one that unpacks itself, for loaders that cannot start such a
    /// one, as `linuxkit build --decompress-kernel` does. It can then not be started by UEFI any more, unless it is an
    /// Image of arm64.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be unpacked.
    pub fn decompress(&mut self) -> io::Result<()> {
        self.bytes = form::unpack(&self.bytes)?;
        self.form = Form::of(&self.bytes);
        self.efi_stub = form::has_efi_stub(&self.bytes);
        Ok(())
    }
}

fn parts(release: String, bytes: Vec<u8>, config: Option<KernelConfig>) -> KernelParts {
    KernelParts {
        release,
        mode: USUAL_MODE,
        form: Form::of(&bytes),
        efi_stub: form::has_efi_stub(&bytes),
        bytes,
        config,
        modules: Tree::new(),
        ucode: None,
    }
}

fn file<'a>(
    tree: &'a Tree,
    name: &str,
    key: &'static str,
) -> Result<(TreePath, &'a Content), KernelError> {
    let path = TreePath::new(name).map_err(|source| KernelError::Name { key, source })?;
    match tree.content(&path) {
        Some(content) => Ok((path, content)),
        None => Err(KernelError::Missing { path: name.to_owned(), key }),
    }
}

/// A kernel of arm64 may be plain gzip, which neither UEFI nor iPXE can start. What has an EFI stub is left as it is.
fn read(path: &TreePath, content: &Content) -> Result<Vec<u8>, KernelError> {
    let failed = |source| KernelError::Read { path: path.clone(), source };
    let bytes = content.read_all(MAX_KERNEL).map_err(failed)?;
    match Form::of(&bytes) {
        Form::Gzip => form::unpack(&bytes).map_err(failed),
        _ => Ok(bytes),
    }
}

/// Returns what the kernel was built with: a file beside it says, or the kernel itself. What cannot be read is not
/// known; the kernel may run all the same.
fn find_config(tree: &Tree, file: &str, kernel: &[u8]) -> Option<KernelConfig> {
    for name in [file, "config", "kernel-config"] {
        let content = TreePath::new(name).ok().and_then(|path| tree.content(&path));
        let known = content.and_then(|content| KernelConfig::read(content.reader()).ok().flatten());
        if known.is_some() {
            return known;
        }
    }
    config_of(kernel)
}

/// Returns how much memory a kernel takes for itself once it runs, by the head of its file.
///
/// # Errors
///
/// Fails when the file cannot be read.
pub fn memory_of(kernel: &Path) -> io::Result<u64> {
    let file = File::open(kernel)?;
    let len = file.metadata()?.len();
    let mut head = Vec::new();
    file.take(HEAD).read_to_end(&mut head)?;
    Ok(form::memory(&head, len))
}

/// Returns what a kernel says it was built with, whatever form it has. Most of Debian's say nothing.
pub fn config_of(kernel: &[u8]) -> Option<KernelConfig> {
    let reader = form::unpacked(kernel).ok().flatten()?;
    KernelConfig::find_in(reader.take(MAX_KERNEL)).ok().flatten()
}

/// Returns the only release that there are modules of.
fn module_release(modules: &Tree) -> Option<String> {
    let mut releases = modules.iter().filter_map(|(path, _)| {
        let path = path.as_str();
        let rest = path.strip_prefix("usr/").unwrap_or(path).strip_prefix("lib/modules/")?;
        (!rest.contains('/')).then_some(rest)
    });
    let first = releases.next()?;
    releases.next().is_none().then(|| first.to_owned())
}

#[cfg(test)]
mod tests;
