use kiln_types::{Arch, Digest, ImageRef};

use super::{Store, StoreError, VersionEntry};

impl Store {
    /// Finds a version by the name of its image and a channel, or the beginning of the version's digest.
    ///
    /// # Errors
    ///
    /// Fails when there is none, or when the index cannot be read.
    pub fn find(&self, image: &str, arch: Arch) -> Result<VersionEntry, StoreError> {
        let (name, rest) = match image.split_once('@') {
            Some((name, digest)) => (name, Some(digest.trim_start_matches("sha256:"))),
            None => (image, None),
        };
        let index = self.index()?;
        let reference = name.parse::<ImageRef>().ok();
        let arches = reference.as_ref().and_then(|it| index.images.get(it.name()));
        let unknown = || {
            let elsewhere = arches.filter(|all| !all.is_empty() && !all.contains_key(&arch));
            let others = elsewhere.map(|arches| {
                let others: Vec<String> = arches.keys().map(ToString::to_string).collect();
                format!(", but for {}", others.join(" and "))
            });
            StoreError::Unknown {
                what: format!("image `{image}` for {arch}{}", others.unwrap_or_default()),
                store: self.dir().to_owned(),
            }
        };
        let reference = reference.as_ref().ok_or_else(unknown)?;
        let entry = arches.and_then(|arches| arches.get(&arch)).ok_or_else(unknown)?;
        let channel = entry.channels.get(reference.channel());
        let mut fitting = entry.versions.iter().filter(|version| match rest {
            Some(digest) => digest.len() >= 6 && version.digest.hex().starts_with(digest),
            None => channel == Some(&version.digest),
        });
        fitting.next().cloned().ok_or_else(unknown)
    }

    /// Lets a channel name a version that is there already.
    ///
    /// # Errors
    ///
    /// Fails when the image has no such version, or when the index cannot be replaced.
    pub fn tag(&self, image: &ImageRef, arch: Arch, version: &Digest) -> Result<(), StoreError> {
        self.change(|index| {
            let entry = index.images.get_mut(image.name()).and_then(|all| all.get_mut(&arch));
            let known = |entry: &&mut super::ImageEntry| {
                entry.versions.iter().any(|known| known.digest == *version)
            };
            let entry = entry.filter(known).ok_or_else(|| StoreError::Unknown {
                what: format!("version {version} of image `{}` for {arch}", image.name()),
                store: self.dir().to_owned(),
            })?;
            entry.channels.insert(image.channel().to_owned(), *version);
            Ok(())
        })
    }

    /// Adds attachments to a version that is published already.
    ///
    /// # Errors
    ///
    /// Fails when the image has no such version, or when the index cannot be replaced.
    pub fn attach(
        &self,
        image: &str,
        arch: Arch,
        version: &Digest,
        attachments: impl IntoIterator<Item = (String, Digest)>,
    ) -> Result<(), StoreError> {
        self.change(|index| {
            let entry = index.images.get_mut(image).and_then(|all| all.get_mut(&arch));
            let found = entry
                .and_then(|entry| entry.versions.iter_mut().find(|known| known.digest == *version));
            let found = found.ok_or_else(|| StoreError::Unknown {
                what: format!("version {version} of image `{image}` for {arch}"),
                store: self.dir().to_owned(),
            })?;
            found.attachments.extend(attachments);
            Ok(())
        })
    }

    /// Removes a channel, or an image with all channels and versions of all architectures, from the index. The space
    /// is freed by garbage collection.
    ///
    /// # Errors
    ///
    /// Fails when there is no such image or channel, or when the index cannot be replaced.
    pub fn remove(&self, name: &str, channel: Option<&str>) -> Result<(), StoreError> {
        self.change(|index| {
            let unknown = || StoreError::Unknown {
                what: match channel {
                    Some(channel) => format!("channel `{name}:{channel}`"),
                    None => format!("image `{name}`"),
                },
                store: self.dir().to_owned(),
            };
            let Some(channel) = channel else {
                return index.images.remove(name).map(drop).ok_or_else(unknown);
            };
            let arches = index.images.get_mut(name).ok_or_else(unknown)?;
            let removed = arches.values_mut().filter_map(|entry| entry.channels.remove(channel));
            match removed.count() {
                0 => Err(unknown()),
                _ => Ok(()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::version;

    #[test]
    fn a_channel_is_moved_and_removed_and_a_version_is_found_by_its_digest() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let image: ImageRef = "web".parse().unwrap();
        let [a, b] = ["a", "b"].map(|text| version(&store, text));
        for digest in [a, b] {
            store.publish(&image, Arch::Arm64, VersionEntry::new(digest, 0, 0)).unwrap();
        }
        assert_eq!(store.find("web", Arch::Arm64).unwrap().digest, b);
        assert_eq!(store.find(&format!("web@{a}"), Arch::Arm64).unwrap().digest, a);
        assert_eq!(store.find(&format!("web@{}", a.short()), Arch::Arm64).unwrap().digest, a);
        let stable: ImageRef = "web:stable".parse().unwrap();
        store.tag(&stable, Arch::Arm64, &a).unwrap();
        assert_eq!(store.find("web:stable", Arch::Arm64).unwrap().digest, a);
        assert!(store.tag(&stable, Arch::X86_64, &a).is_err());
        let other = store.find("web", Arch::X86_64).unwrap_err().to_string();
        assert!(
            other.starts_with("there is no image `web` for x86_64, but for arm64 in "),
            "{other}"
        );
        let unknown = store.find("db", Arch::X86_64).unwrap_err().to_string();
        assert!(unknown.starts_with("there is no image `db` for x86_64 in the store"), "{unknown}");
        store.attach("web", Arch::Arm64, &a, [("signature".to_owned(), b)]).unwrap();
        assert_eq!(store.find("web:stable", Arch::Arm64).unwrap().attachments["signature"], b);
        store.remove("web", Some("stable")).unwrap();
        assert!(store.find("web:stable", Arch::Arm64).is_err());
        store.remove("web", None).unwrap();
        assert!(matches!(store.remove("web", None), Err(StoreError::Unknown { .. })));
    }
}
