//! The form of a lock file. A package is described once, however many lists it is in.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use kiln_types::{Arch, Digest};
use serde::{Deserialize, Serialize};

use super::{ClosureKey, HEADER, ImagePin, Lock, LockError, PackagePin, SCHEMA};

#[derive(Deserialize)]
struct Schema {
    schema: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    schema: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    image: Vec<Image>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    packages: Vec<Closure>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    package: Vec<Package>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Image {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    index: Option<Digest>,
    manifests: BTreeMap<Arch, Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Closure {
    wanted: Vec<String>,
    target: Arch,
    archive: String,
    /// Name and version, with `=` between.
    are: Vec<String>,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Package {
    name: String,
    version: String,
    target: Arch,
    archive: String,
    arch: String,
    file: String,
    size: u64,
    sha256: Digest,
}

pub(super) fn parse(path: &Path, text: &str) -> Result<Lock, LockError> {
    let wrong = |source| LockError::Parse { path: path.to_owned(), source: Box::new(source) };
    let Schema { schema } = toml::from_str(text).map_err(wrong)?;
    if schema > SCHEMA {
        return Err(LockError::Newer { path: path.to_owned(), schema });
    }
    let file: File = toml::from_str(text).map_err(wrong)?;
    let mut known = BTreeMap::new();
    for package in file.package {
        let Package { name, version, target, archive, arch, file, size, sha256 } = package;
        let id = (target, archive, format!("{name}={version}"));
        known.insert(id, PackagePin { name, version, arch, file, size, sha256 });
    }
    let mut lock = Lock::default();
    for Image { name, index, manifests } in file.image {
        lock.images.insert(name, ImagePin { index, manifests });
    }
    for Closure { wanted, target, archive, are } in file.packages {
        let mut packages = Vec::new();
        for package in are {
            match known.get(&(target, archive.clone(), package.clone())) {
                Some(pin) => packages.push(pin.clone()),
                None => return Err(LockError::Incomplete { path: path.to_owned(), package }),
            }
        }
        lock.pin_closure(ClosureKey::new(target, &archive, &wanted), packages);
    }
    Ok(lock)
}

pub(super) fn text(lock: &Lock) -> Result<String, toml::ser::Error> {
    let mut known = BTreeSet::new();
    let mut packages = Vec::new();
    for (key, pins) in &lock.closures {
        let ClosureKey { arch: target, archive, wanted } = key;
        let are = pins.iter().map(|pin| format!("{}={}", pin.name, pin.version)).collect();
        packages.push(Closure {
            wanted: wanted.clone(),
            target: *target,
            archive: archive.clone(),
            are,
        });
        known.extend(pins.iter().cloned().map(|pin| Package {
            name: pin.name,
            version: pin.version,
            target: *target,
            archive: archive.clone(),
            arch: pin.arch,
            file: pin.file,
            size: pin.size,
            sha256: pin.sha256,
        }));
    }
    let image = lock.images.iter().map(|(name, pin)| Image {
        name: name.clone(),
        index: pin.index,
        manifests: pin.manifests.clone(),
    });
    let file = File {
        schema: SCHEMA,
        image: image.collect(),
        packages,
        package: known.into_iter().collect(),
    };
    Ok(format!("{HEADER}{}", toml::to_string_pretty(&file)?))
}
