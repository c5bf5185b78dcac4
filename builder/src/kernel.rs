//! Takes the kernel out of a Debian kernel package.

use std::io::{self, Read};

use crate::tree::{Content, Tree, TreePath};

/// No kernel comes near this.
const MAX_KERNEL: u64 = 256 << 20;

/// A kernel that machines can start.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// What `uname -r` says.
    pub release: String,
    /// The file, as loaders take it.
    pub bytes: Vec<u8>,
    /// Whether UEFI can start it.
    pub efi_stub: bool,
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
    /// The kernel could not be read or unpacked.
    #[error("cannot read the kernel `{path}`")]
    Read {
        /// The file.
        path: TreePath,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Finds the kernel in the tree of its packages.
///
/// # Errors
///
/// Fails when there is not exactly one, and when it cannot be read.
pub fn extract(tree: &Tree, package: &str) -> Result<Kernel, KernelError> {
    let release = |path: &TreePath| path.as_str().strip_prefix("boot/vmlinuz-").map(str::to_owned);
    let found: Vec<_> = tree
        .iter()
        .filter_map(|(path, _)| Some((path, release(path)?, tree.content(path)?)))
        .collect();
    let [(path, release, content)] = found.as_slice() else {
        return Err(KernelError::NotOne { package: package.to_owned(), found: found.len() });
    };
    let bytes =
        read(content).map_err(|source| KernelError::Read { path: (*path).clone(), source })?;
    Ok(Kernel { release: release.clone(), efi_stub: has_efi_stub(&bytes), bytes })
}

/// A kernel of arm64 may be plain gzip, which neither UEFI nor iPXE can start. What has an EFI stub is left as it is.
fn read(content: &Content) -> io::Result<Vec<u8>> {
    let bytes = content.read_all(MAX_KERNEL)?;
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return Ok(bytes);
    }
    let mut unpacked = Vec::new();
    flate2::read::GzDecoder::new(&bytes[..]).take(MAX_KERNEL + 1).read_to_end(&mut unpacked)?;
    if unpacked.len() as u64 > MAX_KERNEL {
        return Err(io::Error::other("it unpacks to more than 256 MiB"));
    }
    Ok(unpacked)
}

/// Returns whether the file has the headers of a PE program: `MZ`, and `PE` where its word at 0x3c says.
fn has_efi_stub(bytes: &[u8]) -> bool {
    let word = |at: usize| bytes.get(at..at.checked_add(4)?).and_then(|word| word.try_into().ok());
    bytes.starts_with(b"MZ")
        && word(0x3c)
            .and_then(|at| usize::try_from(u32::from_le_bytes(at)).ok())
            .and_then(word)
            .is_some_and(|mark: [u8; 4]| mark == *b"PE\0\0")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::tree::Node;

    fn pe() -> Vec<u8> {
        let mut bytes = vec![0; 0x80];
        bytes[..2].copy_from_slice(b"MZ");
        bytes[0x3c] = 0x40;
        bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
        bytes
    }

    fn tree(name: &str, bytes: Vec<u8>) -> Tree {
        let mut tree = Tree::new();
        tree.insert(TreePath::new(name).unwrap(), Node::file(0o644, bytes));
        tree
    }

    #[test]
    fn the_release_comes_from_the_name_and_the_stub_from_the_headers() {
        let kernel = extract(&tree("boot/vmlinuz-6.12-cloud", pe()), "linux").unwrap();
        assert_eq!((kernel.release.as_str(), kernel.efi_stub), ("6.12-cloud", true));
        let mut broken = pe();
        broken[0x3f] = 0xff;
        assert!(!extract(&tree("boot/vmlinuz-1", broken), "linux").unwrap().efi_stub);
        assert!(!extract(&tree("boot/vmlinuz-1", b"MZ".to_vec()), "linux").unwrap().efi_stub);
    }

    #[test]
    fn a_gzipped_kernel_is_unpacked() {
        let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gz.write_all(&pe()).unwrap();
        let kernel = extract(&tree("boot/vmlinuz-1", gz.finish().unwrap()), "linux").unwrap();
        assert_eq!(kernel.bytes, pe());
    }

    #[test]
    fn a_package_without_a_kernel_is_named() {
        let error = extract(&tree("boot/config-1", Vec::new()), "linux-doc").unwrap_err();
        assert!(error.to_string().contains("`linux-doc` has 0 kernels"), "{error}");
    }
}
