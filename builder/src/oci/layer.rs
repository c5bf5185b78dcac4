use std::path::PathBuf;

use kiln_types::Digest;

/// A layer, as the manifest and the configuration of an image name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRef {
    /// Of the bytes as they are transferred.
    pub digest: Digest,
    /// Of the archive in them, after decompression.
    pub diff_id: Digest,
    /// How many bytes are transferred.
    pub size: u64,
    /// How they are compressed.
    pub compression: Compression,
}

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// By gzip (RFC 1952), perhaps in several members.
    Gzip,
    /// By Zstandard (RFC 8878), perhaps in several frames.
    Zstd,
}

/// A layer on disk, whose digest has been checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerFile {
    /// The layer.
    pub layer: LayerRef,
    /// The file that has its bytes, among others where it is an archive of a whole image.
    pub path: PathBuf,
    /// Where in the file they begin.
    pub offset: u64,
    /// How many there are.
    pub len: u64,
}
