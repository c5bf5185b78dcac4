//! Folders and archives with images: OCI layouts (image specification 1.1, `image-layout.md`), such as LinuxKit's
//! cache or what `skopeo` writes, the same as a tar, and what `docker save` writes.

mod archive;
mod choose;
mod docker;

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use kiln_types::Digest;
use serde::Deserialize;

use self::archive::Members;
pub(crate) use self::choose::Miss;
use super::document::{Descriptor, MAX_DOCUMENT};
use super::{OciError, Reference};
use crate::hash::sha256;

/// Names that tools give an image in a layout, in the order of trust: where Docker and containerd write both, the
/// second one is only the tag.
const NAMES: [&str; 2] = ["io.containerd.image.name", "org.opencontainers.image.ref.name"];

/// The most documents about an image that are looked at.
const MAX_ABOUT: usize = 16;

/// One folder or archive.
#[derive(Debug)]
pub(crate) struct Local {
    path: PathBuf,
    entries: Vec<Entry>,
    parts: Parts,
}

/// An image that is named.
#[derive(Debug)]
struct Entry {
    /// Its whole name, where it has one.
    name: Option<String>,
    /// What it is called, as it is written there.
    called: Vec<String>,
    descriptor: Descriptor,
}

/// Where the parts of images are.
#[derive(Debug)]
enum Parts {
    /// `blobs/sha256/HEX` in a folder.
    Folder,
    /// The same in an archive.
    Archive(Members),
    /// Wherever `manifest.json` of an archive says; and documents made from it.
    Docker(Members, HashMap<Digest, String>, HashMap<Digest, Vec<u8>>),
}

#[derive(Deserialize)]
struct IndexFile {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

impl Local {
    /// Opens a folder or an archive.
    ///
    /// # Errors
    ///
    /// Fails when it is neither a layout nor what `docker save` writes.
    pub(crate) fn open(path: &Path) -> Result<Self, OciError> {
        let wrong = |problem: String| OciError::Source { path: path.to_owned(), problem };
        let meta = std::fs::metadata(path).map_err(|error| wrong(error.to_string()))?;
        if meta.is_dir() {
            let index = read_file(&path.join("index.json"))
                .map_err(|error| wrong(format!("its index.json cannot be read ({error})")))?;
            let entries = entries(&index).map_err(wrong)?;
            return Ok(Self { path: path.to_owned(), entries, parts: Parts::Folder });
        }
        let members = Members::read(path).map_err(wrong)?;
        if let Some(index) = members.bytes(path, "index.json", MAX_DOCUMENT) {
            let entries = entries(&index).map_err(wrong)?;
            return Ok(Self { path: path.to_owned(), entries, parts: Parts::Archive(members) });
        }
        let images = docker::read(path, &members).map_err(wrong)?;
        let parts = Parts::Docker(members, images.layers, images.documents);
        Ok(Self { path: path.to_owned(), entries: images.entries, parts })
    }

    /// Returns what its index names, in the order in which it does.
    pub(crate) fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        self.entries.iter().map(|entry| &entry.descriptor)
    }

    /// Returns the folder or file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Finds an image by its name: the digest of its manifest or index. A digest in the name is enough by itself.
    pub(crate) fn find(&self, reference: &Reference) -> Option<Digest> {
        if let Some(digest) = reference.digest() {
            return self.has(&digest).then_some(digest);
        }
        let wanted = with_tag(reference);
        let named = |entry: &&Entry| entry.name.as_deref() == Some(wanted.as_str());
        // What was added last replaces what was there.
        self.entries.iter().rev().find(named).map(|entry| entry.descriptor.digest)
    }

    /// Returns what is named as something about a manifest or index: its signatures as cosign tags them, and what
    /// refers to it under the tag that stands in for referrers.
    pub(crate) fn about(&self, subject: &Digest) -> Vec<Digest> {
        let tag = format!("sha256-{}", subject.hex());
        // Some tools write the whole name, some the tag alone.
        let about =
            |name: &str| name.contains(&format!("{tag}.sig")) || name.ends_with(&format!(":{tag}"));
        let named = self.entries.iter().filter(|entry| entry.name.as_deref().is_some_and(about));
        named.map(|entry| entry.descriptor.digest).take(MAX_ABOUT).collect()
    }

    /// Returns whether a part is here.
    pub(crate) fn has(&self, digest: &Digest) -> bool {
        match &self.parts {
            Parts::Docker(_, layers, documents) => {
                layers.contains_key(digest) || documents.contains_key(digest)
            }
            _ => self.file(digest).is_some(),
        }
    }

    /// Reads a small part and checks it.
    pub(crate) fn read(&self, digest: &Digest) -> Option<Vec<u8>> {
        if let Parts::Docker(_, _, documents) = &self.parts {
            return documents.get(digest).cloned();
        }
        let (path, offset, len) = self.file(digest)?;
        let bytes = archive::read_part(&path, offset, len, MAX_DOCUMENT)?;
        (sha256(&bytes) == *digest).then_some(bytes)
    }

    /// Returns the file that has a part, where in it that begins, and how long it is.
    pub(crate) fn file(&self, digest: &Digest) -> Option<(PathBuf, u64, u64)> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let (members, name) = match &self.parts {
            Parts::Folder => {
                let path = self.path.join(name);
                let meta = std::fs::metadata(&path).ok().filter(std::fs::Metadata::is_file)?;
                return Some((path, 0, meta.len()));
            }
            Parts::Archive(members) => (members, name),
            Parts::Docker(members, layers, _) => (members, layers.get(digest)?.clone()),
        };
        let (offset, len) = members.find(&name)?;
        Some((self.path.clone(), offset, len))
    }
}

fn entries(index: &[u8]) -> Result<Vec<Entry>, String> {
    let index: IndexFile = serde_json::from_slice(index)
        .map_err(|error| format!("its index.json is wrong: {error}"))?;
    let entry = |descriptor: Descriptor| {
        let called = NAMES.iter().filter_map(|name| descriptor.annotations.get(*name).cloned());
        let called: Vec<_> = called.collect();
        Entry { name: called.first().and_then(|text| whole_name(text)), called, descriptor }
    };
    Ok(index.manifests.into_iter().map(entry).collect())
}

/// Returns the whole form of a name, if it is one.
fn whole_name(text: &str) -> Option<String> {
    Reference::in_registry(text).ok().map(|reference| with_tag(&reference))
}

/// Returns the whole name of an image, with the tag that goes without saying.
fn with_tag(reference: &Reference) -> String {
    let tag = reference.tag().unwrap_or("latest");
    format!("{}/{}:{tag}", reference.registry(), reference.repository())
}

fn read_file(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_DOCUMENT {
        return Err(std::io::Error::other("it is too large"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
