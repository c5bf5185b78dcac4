//! Makes the archives of the tests.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;

use super::*;
use crate::hash::sha256;
use crate::oci::{Compression, LayerRef};
use crate::tree::{Kind, TreePath};

/// One entry (POSIX ustar). Devices are 1:3.
pub(super) fn entry(name: &str, kind: u8, link: &str, mode: u32, data: &[u8]) -> Vec<u8> {
    header(name.as_bytes(), kind, link, mode, data.len() as u64, data)
}

pub(super) fn header(
    name: &[u8],
    kind: u8,
    link: &str,
    mode: u32,
    size: u64,
    data: &[u8],
) -> Vec<u8> {
    let mut header = [0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name);
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000007\0");
    put(116, b"0000010\0");
    match size < 1 << 33 {
        true => put(124, format!("{size:011o}\0").as_bytes()),
        // GNU's form for large numbers.
        false => put(124, &[&[0x80, 0, 0, 0][..], &size.to_be_bytes()].concat()),
    }
    put(136, b"00000000000\0");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    put(329, b"0000001\0");
    put(337, b"0000003\0");
    sign(&mut header);
    let mut out = header.to_vec();
    out.extend(data);
    out.resize(out.len().next_multiple_of(512), 0);
    out
}

/// Puts the sum of a header in.
pub(super) fn sign(header: &mut [u8]) {
    header[148..156].copy_from_slice(b"        ");
    let sum: u32 = header[..512].iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

pub(super) fn file(name: &str, data: &str) -> Vec<u8> {
    entry(name, b'0', "", 0o644, data.as_bytes())
}

pub(super) fn dir(name: &str, mode: u32) -> Vec<u8> {
    entry(name, b'5', "", mode, b"")
}

pub(super) fn symlink(name: &str, target: &str) -> Vec<u8> {
    entry(name, b'2', target, 0o777, b"")
}

pub(super) fn link(name: &str, target: &str) -> Vec<u8> {
    entry(name, b'1', target, 0o644, b"")
}

/// A PAX header for the entry that follows.
pub(super) fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut data = Vec::new();
    for (key, value) in records {
        crate::pax::push(&mut data, key, value);
    }
    entry("PaxHeaders/x", b'x', "", 0o644, &data)
}

pub(super) fn tar(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut out = entries.concat();
    out.resize(out.len() + 1024, 0);
    out
}

pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

pub(super) fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).unwrap();
    out
}

/// Puts a layer into a directory. Its digest tells its number: `sha256:0101…` is the first.
pub(super) fn store(dir: &Path, number: u8, bytes: &[u8], unpacked: &[u8]) -> LayerFile {
    let path = dir.join(format!("layer{number}"));
    // With something around it, as in an archive of a whole image.
    fs::write(&path, [b"before", bytes, b"after"].concat()).unwrap();
    let digest = kiln_types::Digest::from_bytes([number; 32]);
    let (diff_id, len) = (sha256(unpacked), bytes.len() as u64);
    let layer = LayerRef { digest, diff_id, size: len, compression: Compression::None };
    LayerFile { layer, path, offset: 6, len }
}

/// Flattens layers of these entries.
pub(super) fn flatten_entries(layers: &[&[Vec<u8>]], limits: &Limits) -> Result<Tree, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for (number, entries) in (1..).zip(layers) {
        let tar = tar(entries);
        files.push(store(dir.path(), number, &tar, &tar));
    }
    let spool = tempfile::tempdir().unwrap();
    let result = flatten(&files, limits, spool.path()).map_err(|error| error.to_string());
    // Nothing ever has a name, whatever the entries are called.
    assert_eq!(fs::read_dir(spool.path()).unwrap().count(), 0);
    result
}

/// Flattens what must be good, and shows it: a line per node.
pub(super) fn show(layers: &[&[Vec<u8>]]) -> Vec<String> {
    show_tree(&flatten_entries(layers, &Limits::default()).unwrap())
}

pub(super) fn show_tree(tree: &Tree) -> Vec<String> {
    let show = |(path, node): (&TreePath, &crate::tree::Node)| {
        let kind = match &node.kind {
            Kind::Dir => return format!("{path}/ {:o}", node.mode),
            Kind::File(content) => String::from_utf8(content.read_all(1 << 20).unwrap()).unwrap(),
            Kind::Symlink(target) => format!("-> {target}"),
            Kind::Hardlink(target) => format!("= {target}"),
            Kind::CharDevice(major, minor) => format!("char {major}:{minor}"),
            Kind::BlockDevice(major, minor) => format!("block {major}:{minor}"),
            Kind::Fifo => "fifo".to_owned(),
        };
        format!("{path} {kind}")
    };
    tree.iter().map(show).collect()
}
