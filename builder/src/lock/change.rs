use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use kiln_types::Arch;
use serde::{Serialize, Serializer};

use super::{Lock, PackagePin};

/// One thing that differs between two locks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The image reference or the name of the package.
    pub name: String,
    /// For which architecture.
    pub arch: Arch,
    /// The digest or version before; nothing when it is new.
    pub old: Option<String>,
    /// The digest or version after; nothing when it is gone.
    pub new: Option<String>,
    /// Whether it is a package and not an image.
    pub is_package: bool,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_package { "package" } else { "image" };
        let (old, new) = (self.old.as_deref(), self.new.as_deref());
        let (old, new) = (old.unwrap_or("(none)"), new.unwrap_or("(none)"));
        write!(f, "{kind} {} ({}): {old} → {new}", self.name, self.arch)
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Wire<'a> {
            kind: &'static str,
            name: &'a str,
            arch: Arch,
            old: Option<&'a str>,
            new: Option<&'a str>,
        }
        let wire = Wire {
            kind: if self.is_package { "package" } else { "image" },
            name: &self.name,
            arch: self.arch,
            old: self.old.as_deref(),
            new: self.new.as_deref(),
        };
        wire.serialize(serializer)
    }
}

impl Lock {
    /// Returns what moves from this lock to another one, images first, by name.
    pub fn changes_to(&self, other: &Self) -> Vec<Change> {
        let mut changes = differences(&self.image_digests(), &other.image_digests(), false);
        changes.extend(differences(&self.versions(), &other.versions(), true));
        changes
    }

    fn image_digests(&self) -> BTreeMap<(String, Arch), String> {
        let all = self.images.iter().flat_map(|(name, pin)| {
            pin.manifests
                .iter()
                .map(move |(arch, digest)| ((name.clone(), *arch), digest.to_string()))
        });
        all.collect()
    }

    /// Returns the versions of each package: of one name there are several where a list asks for an older one.
    fn versions(&self) -> BTreeMap<(String, Arch), String> {
        let mut all: BTreeMap<_, BTreeSet<&str>> = BTreeMap::new();
        for (key, packages) in &self.closures {
            for PackagePin { name, version, .. } in packages {
                all.entry((name.clone(), key.arch)).or_default().insert(version);
            }
        }
        all.into_iter()
            .map(|(key, versions)| (key, versions.into_iter().collect::<Vec<_>>().join(", ")))
            .collect()
    }
}

fn differences(
    old: &BTreeMap<(String, Arch), String>,
    new: &BTreeMap<(String, Arch), String>,
    is_package: bool,
) -> Vec<Change> {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    keys.into_iter()
        .filter(|key| old.get(key) != new.get(key))
        .map(|key| Change {
            old: old.get(&key).cloned(),
            new: new.get(&key).cloned(),
            name: key.0,
            arch: key.1,
            is_package,
        })
        .collect()
}
