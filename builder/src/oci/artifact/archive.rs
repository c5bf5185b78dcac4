use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use kiln_types::{Arch, Digest};
use tar::{Builder, Header};
use tempfile::NamedTempFile;

use super::{Artifact, index};
use crate::durable::{folder_of, persist};
use crate::oci::OciError;
use crate::store::{Store, VersionEntry};

/// Names an image in the index of a layout (OCI image specification 1.1, `annotations.md`).
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Writes a version as an OCI layout in a tar, with its attachments. The same version and attachments give the same
/// bytes.
///
/// # Errors
///
/// Fails when the store lacks a part, or the file cannot be written.
pub fn write_archive(
    store: &Store,
    arch: Arch,
    version: &VersionEntry,
    path: &Path,
) -> Result<PathBuf, OciError> {
    let artifact = Artifact::of(store, arch, version)?;
    let written = |source| OciError::Artifact { path: path.to_owned(), source };
    let mut named = artifact.descriptor.clone();
    named.annotations.insert(REF_NAME.to_owned(), artifact.image.clone());
    let top = index(vec![&named], None)?;
    let fill = || {
        let mut file = NamedTempFile::new_in(folder_of(path))?;
        let mut out = Builder::new(io::BufWriter::new(file.as_file_mut()));
        small(&mut out, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        small(&mut out, "index.json", &top)?;
        small(&mut out, &blob(&artifact.descriptor.digest), &artifact.bytes)?;
        let mut parts: Vec<_> = artifact.parts.iter().collect();
        parts.sort_by_key(|part| part.digest);
        for part in parts {
            let from = File::open(store.artifact(&part.digest))?;
            if from.metadata()?.len() != part.size {
                return Err(io::Error::other(format!("{} of the store is damaged", part.digest)));
            }
            let mut header = header(part.size);
            out.append_data(&mut header, blob(&part.digest), from)?;
        }
        out.into_inner()?.flush()?;
        persist(file, path, 0o644)
    };
    fill().map_err(written)?;
    Ok(path.to_owned())
}

fn blob(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn small<W: Write>(out: &mut Builder<W>, name: &str, bytes: &[u8]) -> io::Result<()> {
    out.append_data(&mut header(bytes.len() as u64), name, bytes)
}

/// Nothing of it comes from the host.
fn header(size: u64) -> Header {
    let mut header = Header::new_ustar();
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header
}
