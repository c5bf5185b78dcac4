//! A folder of the computer that builds as an image of one layer: the same bytes wherever its files are the same.
//!
//! The layer goes into the cache and is then like any other: it is flattened under the same limits.

use std::collections::{BTreeSet, HashMap};
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiln_types::{Arch, Digest};
use serde_json::json;
use tar::{Builder, EntryType, Header};

use super::blobs::Blobs;
use super::select::oci_name;
use crate::hash::{Hasher, HashingWriter};
use crate::layer::Limits;
use crate::tree::Xattrs;

/// What a program runs on, in its ELF header (System V ABI, `e_machine`).
const ELF_MACHINES: [(u16, &str); 5] =
    [(3, "386"), (40, "arm"), (62, "amd64"), (183, "arm64"), (243, "riscv64")];

/// Why a folder cannot be an image.
#[derive(Debug)]
pub(super) enum Problem {
    /// Its programs run on something else.
    NotForArch(Vec<String>),
    /// Something in it cannot be read or kept.
    Path(PathBuf, io::Error),
    /// The cache cannot be written.
    Cache(io::Error),
}

/// Makes an image of a folder, keeps it, and returns the digest of its manifest.
pub(super) fn keep(root: &Path, arch: Arch, blobs: &Blobs) -> Result<Digest, Problem> {
    // Most of the time it is the same as in the build before, and nothing has to be written.
    let (mut layer, size, machines) = write(root, io::sink())?;
    let ours = oci_name(arch);
    if !machines.is_empty() && !machines.contains(ours) {
        return Err(Problem::NotForArch(machines.iter().map(|it| format!("linux/{it}")).collect()));
    }
    let mut size = size;
    if blobs.find(&layer).is_none() {
        let mut file = blobs.temporary().map_err(Problem::Cache)?;
        (layer, size, _) = write(root, io::BufWriter::new(file.as_file_mut()))?;
        blobs.keep(file, &layer).map_err(Problem::Cache)?;
    }
    let config = json!({
        "architecture": ours, "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let config = config.to_string();
    let digest = blobs.write(config.as_bytes()).map_err(Problem::Cache)?;
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": digest, "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": layer, "size": size,
        }],
    });
    let manifest = manifest.to_string();
    blobs.write(manifest.as_bytes()).map_err(Problem::Cache)
}

/// Writes a folder as a layer; returns its digest, its length and what its programs run on.
fn write(root: &Path, out: impl Write) -> Result<(Digest, u64, BTreeSet<&'static str>), Problem> {
    let fail = |source| Problem::Path(root.to_owned(), source);
    let top = fs::metadata(root).map_err(fail)?;
    if !top.is_dir() {
        return Err(fail(io::Error::other("it is no folder")));
    }
    let hashing = HashingWriter { out, hasher: Hasher::default(), written: 0 };
    let mut walk = Walk {
        tar: Builder::new(hashing),
        owner: (top.uid(), top.gid()),
        device: top.dev(),
        names: HashMap::new(),
        machines: BTreeSet::new(),
        limits: Limits::default(),
        files: 0,
        bytes: 0,
    };
    walk.folder(root, "", 0)?;
    let machines = walk.machines;
    let mut hashing = walk.tar.into_inner().map_err(Problem::Cache)?;
    hashing.flush().map_err(Problem::Cache)?;
    Ok((hashing.hasher.finish(), hashing.written, machines))
}

struct Walk<W: Write> {
    tar: Builder<HashingWriter<W>>,
    /// Who owns the folder: in the image that is root, whoever has unpacked it here.
    owner: (u32, u32),
    /// What is mounted in it is left out.
    device: u64,
    /// Where files with several names were met first.
    names: HashMap<(u64, u64), String>,
    machines: BTreeSet<&'static str>,
    limits: Limits,
    files: usize,
    bytes: u64,
}

impl<W: Write> Walk<W> {
    fn folder(&mut self, dir: &Path, inside: &str, depth: usize) -> Result<(), Problem> {
        let fail = |source| Problem::Path(dir.to_owned(), source);
        if depth > self.limits.path_depth {
            return Err(fail(io::Error::other("there are too many folders above it")));
        }
        let mut entries =
            fs::read_dir(dir).and_then(Iterator::collect::<io::Result<Vec<_>>>).map_err(fail)?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let fail = |source| Problem::Path(path.clone(), source);
            let name = entry.file_name();
            let name = name.to_str().ok_or_else(|| fail(wrong("its name is not UTF-8")))?;
            if name.starts_with(".wh.") {
                return Err(fail(wrong(
                    "in a layer its name would delete another file; rename it",
                )));
            }
            let inside =
                if inside.is_empty() { name.to_owned() } else { format!("{inside}/{name}") };
            let meta = fs::symlink_metadata(&path).map_err(fail)?;
            self.count(&meta).map_err(fail)?;
            self.entry(&path, &inside, &meta).map_err(fail)?;
            if meta.is_dir() && meta.dev() == self.device {
                self.folder(&path, &inside, depth + 1)?;
            }
        }
        Ok(())
    }

    fn count(&mut self, meta: &Metadata) -> io::Result<()> {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(if meta.is_file() { meta.len() } else { 0 });
        if self.files > self.limits.files {
            return Err(wrong(&format!("the folder has more than {} files", self.limits.files)));
        }
        if self.bytes > self.limits.bytes {
            return Err(wrong(&format!("the folder has more than {} bytes", self.limits.bytes)));
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, inside: &str, meta: &Metadata) -> io::Result<()> {
        let kind = meta.file_type();
        let mut header = Header::new_gnu();
        header.set_mode(meta.mode() & 0o7777);
        header.set_uid(u64::from(if meta.uid() == self.owner.0 { 0 } else { meta.uid() }));
        header.set_gid(u64::from(if meta.gid() == self.owner.1 { 0 } else { meta.gid() }));
        header.set_mtime(0);
        header.set_size(0);
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path)?;
            return self.tar.append_link(&mut header, inside, target);
        }
        if !kind.is_dir() && meta.nlink() > 1 {
            if let Some(first) = self.names.get(&(meta.dev(), meta.ino())) {
                header.set_entry_type(EntryType::Link);
                return self.tar.append_link(&mut header, inside, first);
            }
            self.names.insert((meta.dev(), meta.ino()), inside.to_owned());
        }
        if kind.is_file() {
            return self.file(path, inside, meta, header);
        }
        header.set_entry_type(match kind {
            _ if kind.is_dir() => EntryType::Directory,
            _ if kind.is_fifo() => EntryType::Fifo,
            _ if kind.is_char_device() => EntryType::Char,
            _ if kind.is_block_device() => EntryType::Block,
            // A socket is nothing without the program that listens there.
            _ => return Ok(()),
        });
        if kind.is_char_device() || kind.is_block_device() {
            let device = meta.rdev();
            let number = |n: u64| u32::try_from(n).map_err(io::Error::other);
            header.set_device_major(number(nix::sys::stat::major(device))?)?;
            header.set_device_minor(number(nix::sys::stat::minor(device))?)?;
        }
        self.tar.append_data(&mut header, inside, io::empty())
    }

    fn file(
        &mut self,
        path: &Path,
        inside: &str,
        meta: &Metadata,
        mut header: Header,
    ) -> io::Result<()> {
        // Were it replaced by a link or a pipe meanwhile, it would be neither followed nor waited for.
        let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
        let mut file = File::options().read(true).custom_flags(flags).open(path)?;
        let now = file.metadata()?;
        if (now.dev(), now.ino(), now.len()) != (meta.dev(), meta.ino(), meta.len()) {
            return Err(wrong("it changed while it was read"));
        }
        let mut start = [0; 20];
        let n = read_start(&mut file, &mut start)?;
        if meta.mode() & 0o111 != 0 {
            self.machines.extend(start.get(..n).and_then(machine));
        }
        if let Some(capability) = capability(&file)? {
            let name = format!("SCHILY.xattr.{}", Xattrs::CAPABILITY);
            self.tar.append_pax_extensions([(name.as_str(), capability.as_slice())])?;
        }
        header.set_entry_type(EntryType::Regular);
        header.set_size(meta.len());
        let rest = (&start[..n]).chain(file).take(meta.len());
        let mut counted = Counted { inner: rest, read: 0 };
        self.tar.append_data(&mut header, inside, &mut counted)?;
        match counted.read == meta.len() {
            true => Ok(()),
            false => Err(wrong("it changed while it was read")),
        }
    }
}

struct Counted<R> {
    inner: R,
    read: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.read += n as u64;
        Ok(n)
    }
}

fn read_start(file: &mut File, start: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = start.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            n => have += n,
        }
    }
    Ok(have)
}

/// Returns what a program runs on, if it is one.
fn machine(start: &[u8]) -> Option<&'static str> {
    let [0x7f, b'E', b'L', b'F', _, data, ..] = *start else { return None };
    let bytes: [u8; 2] = start.get(18..20)?.try_into().ok()?;
    let number = if data == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) };
    Some(
        ELF_MACHINES
            .iter()
            .find(|(it, _)| *it == number)
            .map_or("another machine", |(_, name)| name),
    )
}

/// Reads the file capabilities. Other attributes, such as SELinux's, say something about this computer.
fn capability(file: &File) -> io::Result<Option<Vec<u8>>> {
    use rustix::io::Errno;
    let mut value = [0_u8; 64];
    match rustix::fs::fgetxattr(file, Xattrs::CAPABILITY, &mut value) {
        Ok(n) => Ok(value.get(..n).map(<[u8]>::to_vec)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn wrong(problem: &str) -> io::Error {
    io::Error::other(problem.to_owned())
}

#[cfg(test)]
#[path = "directory_tests.rs"]
mod tests;
