//! What is in a version: every package, image, kernel and program, as an SPDX 2.3 document.
//!
//! Each component is looked through once, when it is packed, and what was found is remembered with its segment; the
//! document of a version is then put together from what is remembered.
//!
//! ```text
//! component: packages, image, tree ──of_component──▶ ComponentSbom ──┐
//! component: …                                                       ├──spdx──▶ SPDX JSON, same inputs same bytes
//! kernel, kiln-init ─────────────────────────────────────────────────┘
//! ```

mod copyright;
mod database;
mod document;
mod purl;
mod time;

use std::collections::{BTreeMap, BTreeSet};

use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use self::copyright::declared;
use self::database::read_databases;
use crate::manifest::PackageEntry;
use crate::tree::{Tree, TreePath};

pub use self::document::{About, spdx};
pub(crate) use self::time::rfc3339;

/// The most packages that are listed of one component; an image may pretend to hold any number.
const MAX_PACKAGES: usize = 50_000;

/// What one component holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentSbom {
    /// The component: `init`, `kernel-modules` or the name of a container.
    pub component: String,
    /// The image that it was made of, if it was made of one.
    pub image: Option<ImageItem>,
    /// Everything in it, by name.
    pub packages: Vec<PackageItem>,
}

/// An OCI image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageItem {
    /// What the specification calls it.
    pub reference: String,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// A package, or a program that is none.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct PackageItem {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// The name that tells it apart everywhere (a package URL), where there is one.
    pub purl: Option<String>,
    /// Digest of the file that it came in, where that is known.
    pub sha256: Option<Digest>,
    /// Its licence as an SPDX expression, where it is known.
    pub licence: Option<String>,
    /// Names of packages that it needs.
    pub depends: BTreeSet<String>,
}

/// A Debian package that a component was made from.
#[derive(Clone, Debug)]
pub struct DebianPackage<'a> {
    /// The package.
    pub entry: &'a PackageEntry,
    /// Names that its dependencies mention.
    pub depends: Vec<String>,
}

/// What a component was made from.
#[derive(Clone, Debug)]
pub enum Origin<'a> {
    /// Debian packages.
    Debian(&'a [DebianPackage<'a>]),
    /// An OCI image, with the SPDX documents that its makers published with it.
    Image {
        /// What the specification calls it.
        reference: &'a str,
        /// Digest of its manifest.
        digest: Digest,
        /// The SPDX documents, as JSON.
        attestations: &'a [Vec<u8>],
    },
    /// A folder of the host.
    Folder,
}

/// Looks through a component. `root` is its file system, before it is put to its place in the image.
///
/// In a tree of an image or folder the data bases of dpkg and apk are read; of Debian packages it is known already
/// what they are, and their licences are read.
pub fn of_component(component: &str, origin: &Origin<'_>, root: &Tree) -> ComponentSbom {
    let mut found = ComponentSbom { component: component.to_owned(), ..ComponentSbom::default() };
    match origin {
        Origin::Debian(packages) => {
            found.packages.extend(packages.iter().map(|package| debian(package, root)));
        }
        Origin::Image { reference, digest, attestations } => {
            found.image = Some(ImageItem { reference: (*reference).to_owned(), digest: *digest });
            found.packages = read_databases(root);
            for attestation in *attestations {
                document::merge(&mut found.packages, attestation);
            }
        }
        Origin::Folder => found.packages = read_databases(root),
    }
    found.packages.sort();
    found.packages.dedup();
    found.packages.truncate(MAX_PACKAGES);
    found
}

/// Returns, for each of several Debian packages, which of the others it depends on, by name or as one that provides what
/// it asks for. Each comes with its control file.
pub fn dependencies<'a>(
    packages: impl Iterator<Item = (&'a str, &'a String)>,
) -> BTreeMap<&'a str, Vec<String>> {
    let packages: Vec<_> = packages.collect();
    let mut found: BTreeMap<String, BTreeSet<&str>> = BTreeMap::new();
    for (name, control) in &packages {
        for provided in database::mentioned(control, &["Provides"]) {
            found.entry(provided).or_default().insert(name);
        }
    }
    // A package of that name counts before others that provide it.
    for (name, _) in &packages {
        found.insert((*name).to_owned(), BTreeSet::from([*name]));
    }
    let of = |control: &str| -> BTreeSet<&str> {
        let wanted = database::mentioned(control, &["Pre-Depends", "Depends"]);
        wanted.iter().filter_map(|name| found.get(name)).flatten().copied().collect()
    };
    let others = |name: &str, control: &str| -> Vec<String> {
        of(control).into_iter().filter(|it| *it != name).map(str::to_owned).collect()
    };
    packages.iter().map(|(name, control)| (*name, others(name, control))).collect()
}

/// Describes kiln-init, which this program carries.
pub fn of_init(component: &str, binary: Digest) -> ComponentSbom {
    let item = PackageItem {
        name: "kiln-init".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        purl: Some(format!("pkg:generic/kiln-init@{}", env!("CARGO_PKG_VERSION"))),
        sha256: Some(binary),
        licence: Some(env!("CARGO_PKG_LICENSE").to_owned()),
        depends: BTreeSet::new(),
    };
    ComponentSbom { component: component.to_owned(), image: None, packages: vec![item] }
}

/// Describes a kernel by what `uname -r` says of it, beside the packages or the image that it came from.
pub fn add_kernel(found: &mut ComponentSbom, release: &str, kernel: Digest) {
    let version = release.split('-').next().unwrap_or(release);
    found.packages.push(PackageItem {
        name: "linux".to_owned(),
        version: release.to_owned(),
        purl: Some(format!("pkg:generic/linux@{}", purl::encode(version))),
        sha256: Some(kernel),
        licence: Some("GPL-2.0-only WITH Linux-syscall-note".to_owned()),
        depends: BTreeSet::new(),
    });
    found.packages.sort();
}

fn debian(package: &DebianPackage<'_>, root: &Tree) -> PackageItem {
    let entry = package.entry;
    PackageItem {
        name: entry.name.clone(),
        version: entry.version.clone(),
        purl: Some(debian_purl(entry)),
        sha256: Some(entry.sha256),
        licence: read_licence(root, &entry.name),
        depends: package.depends.iter().cloned().collect(),
    }
}

/// Returns the package URL of a Debian package.
pub(crate) fn debian_purl(package: &PackageEntry) -> String {
    let PackageEntry { name, version, arch, .. } = package;
    purl::package("deb", Some("debian"), name, version, arch, None)
}

/// Returns the package URL of an OCI image.
pub(crate) fn image_purl(reference: &str, digest: &Digest) -> String {
    purl::image(reference, digest)
}

/// Reads the licence of a Debian package out of its copyright file.
fn read_licence(root: &Tree, package: &str) -> Option<String> {
    let path = TreePath::new(&format!("usr/share/doc/{package}/copyright")).ok()?;
    declared(&database::read(root, &path)?)
}

#[cfg(test)]
mod tests;
