//! Chooses one image of a folder or archive that a specification names.

use std::collections::BTreeSet;

use kiln_types::{Arch, Digest};

use super::super::document::is_attestation;
use super::super::select;
use super::{Entry, Local, whole_name};

/// As many images are named in a message.
const NAMED: usize = 8;

/// Why there is no image to take.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Miss {
    /// There are images for other architectures.
    NotForArch(Vec<String>),
    /// The name fits none, or several do.
    Name(String),
}

impl Local {
    /// Returns the manifest or index of the image of this name, or of the only one when there is no name. Where a
    /// layout lists the architectures of an image side by side, it is the manifest for this one.
    pub(crate) fn choose(&self, name: Option<&str>, arch: Arch) -> Result<Digest, Miss> {
        let images = self.entries.iter().filter(|entry| is_image(entry));
        let fits = |entry: &&Entry| name.is_none_or(|name| entry.is_called(name));
        let found: Vec<_> = images.clone().filter(fits).collect();
        let digests: BTreeSet<_> = found.iter().map(|entry| entry.descriptor.digest).collect();
        match (digests.len(), name) {
            (0, None) => Err(Miss::Name("there is no image in it".to_owned())),
            (0, Some(name)) => {
                let name: String = name.chars().take(200).flat_map(char::escape_default).collect();
                Err(Miss::Name(format!("it has no image `{name}`{}", names(images))))
            }
            (1, _) => {
                found.last().map(|it| it.descriptor.digest).ok_or(Miss::NotForArch(Vec::new()))
            }
            // One image whose architectures are side by side.
            _ if same_name(&found) && found.iter().all(|it| it.descriptor.platform.is_some()) => {
                let all: Vec<_> = found.iter().map(|entry| entry.descriptor.clone()).collect();
                select::pick(&all, arch).map(|it| it.digest).map_err(Miss::NotForArch)
            }
            // What was added last replaces what was there.
            (_, Some(_)) => {
                found.last().map(|it| it.descriptor.digest).ok_or(Miss::NotForArch(Vec::new()))
            }
            (many, None) => Err(Miss::Name(format!(
                "it has {many} images; add a colon and the name of one{}",
                names(images)
            ))),
        }
    }
}

impl Entry {
    fn is_called(&self, name: &str) -> bool {
        self.called.iter().any(|called| called == name)
            || self.name.is_some() && self.name == whole_name(name)
    }
}

/// Returns whether it is neither a signature nor something else about an image.
fn is_image(entry: &Entry) -> bool {
    let about = |called: &String| {
        let tag = called.rsplit(':').next().unwrap_or_default();
        tag.starts_with("sha256-") && tag.len() >= "sha256-".len() + 64
    };
    !is_attestation(&entry.descriptor) && !entry.called.iter().any(about)
}

fn same_name(found: &[&Entry]) -> bool {
    found.windows(2).all(|two| two[0].called == two[1].called)
}

/// Lists what there is to choose from.
fn names<'a>(images: impl Iterator<Item = &'a Entry>) -> String {
    let called: BTreeSet<_> = images.filter_map(|entry| entry.called.first()).collect();
    if called.is_empty() {
        return String::new();
    }
    let short = |name: &&String| {
        format!("`{}`", name.chars().take(200).flat_map(char::escape_default).collect::<String>())
    };
    let named: Vec<_> = called.iter().take(NAMED).map(short).collect();
    let more = if called.len() > NAMED { ", …" } else { "" };
    format!("; there are {}{more}", named.join(", "))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::Parts;
    use super::*;
    use crate::oci::document::{Descriptor, Platform};

    fn local(entries: &[(u8, Option<&str>, &[&str])]) -> Local {
        let entry = |(n, arch, called): &(u8, Option<&str>, &[&str])| Entry {
            name: called.first().and_then(|name| whole_name(name)),
            called: called.iter().map(|name| (*name).to_owned()).collect(),
            descriptor: Descriptor {
                media_type: String::new(),
                digest: Digest::from_bytes([*n; 32]),
                size: 1,
                platform: arch.map(|arch| Platform {
                    architecture: arch.to_owned(),
                    os: "linux".to_owned(),
                    variant: None,
                }),
                annotations: Default::default(),
                artifact_type: None,
            },
        };
        let entries = entries.iter().map(entry).collect();
        Local { path: Path::new("x").to_owned(), entries, parts: Parts::Folder }
    }

    fn choose(local: &Local, name: Option<&str>) -> Result<u8, String> {
        match local.choose(name, Arch::Arm64) {
            Ok(digest) => Ok(digest.as_bytes()[0]),
            Err(Miss::Name(problem)) => Err(problem),
            Err(Miss::NotForArch(there)) => Err(format!("for {}", there.join(" "))),
        }
    }

    #[test]
    fn the_only_image_needs_no_name_and_one_of_several_does() {
        let one = local(&[(1, None, &["web:1"])]);
        assert_eq!(choose(&one, None), Ok(1));
        // Another name of the same image is no second image, nor is its signature.
        let signature = format!("sha256-{}.sig", "a".repeat(64));
        let same = local(&[(1, None, &["a"]), (1, None, &["b"]), (2, None, &[&signature])]);
        assert_eq!(choose(&same, None), Ok(1));
        let two = local(&[(1, None, &["web:1"]), (2, None, &["db", "x.example/a/db:7"])]);
        let problem = "it has 2 images; add a colon and the name of one; there are `db`, `web:1`";
        assert_eq!(choose(&two, None), Err(problem.to_owned()));
        assert_eq!(choose(&two, Some("db")), Ok(2));
        assert_eq!(choose(&two, Some("x.example/a/db:7")), Ok(2));
        assert_eq!(choose(&two, Some("library/web:1")), Ok(1));
        let problem = "it has no image `7`; there are `db`, `web:1`";
        assert_eq!(choose(&two, Some("7")), Err(problem.to_owned()));
        assert_eq!(choose(&local(&[]), None), Err("there is no image in it".to_owned()));
    }

    #[test]
    fn architectures_side_by_side_are_one_image_and_what_came_last_replaces_what_was_there() {
        let side = local(&[(1, Some("amd64"), &["1"]), (2, Some("arm64"), &["1"])]);
        assert_eq!(choose(&side, None), Ok(2));
        assert_eq!(choose(&side, Some("1")), Ok(2));
        let others = local(&[(1, Some("amd64"), &[]), (2, Some("s390x"), &[])]);
        assert_eq!(choose(&others, None), Err("for linux/amd64 linux/s390x".to_owned()));
        let again = local(&[(1, None, &["1"]), (2, None, &["1"])]);
        assert_eq!(choose(&again, Some("1")), Ok(2));
    }
}
