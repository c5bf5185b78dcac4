//! What changed from one version to another: files, packages, images, and bytes per component.

mod archive;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_types::Digest;
use serde::Serialize;

pub use self::archive::{Entry, EntryKind};
use crate::manifest::{Manifest, SegmentEntry};
use crate::store::Store;

/// What changed from one version to another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diff {
    /// Each component that differs.
    pub components: Vec<ComponentDiff>,
    /// Each file that differs, by path.
    pub files: Vec<FileDiff>,
    /// Packages whose versions differ: before and after, nothing where there is none.
    pub packages: BTreeMap<String, (Option<String>, Option<String>)>,
    /// Images whose digests differ, by component and reference.
    pub images: BTreeMap<String, (Option<Digest>, Option<Digest>)>,
    /// Kernel arguments before and after, where they differ.
    pub cmdline: Option<(String, String)>,
    /// Bytes to download, before and after.
    pub size: (u64, u64),
}

/// A component that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ComponentDiff {
    /// Its name.
    pub component: String,
    /// Its length in bytes before; nothing when it is new.
    pub old: Option<u64>,
    /// Its length in bytes after; nothing when it is gone.
    pub new: Option<u64>,
}

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileDiff {
    /// Its path.
    pub path: String,
    /// What it was; nothing when it is new.
    pub old: Option<Entry>,
    /// What it is; nothing when it is gone.
    pub new: Option<Entry>,
}

/// A version cannot be compared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiffError {
    /// A segment cannot be read.
    #[error("cannot read segment `{component}` from `{path}`")]
    Segment {
        /// The component.
        component: String,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Where archives have the root file systems of containers.
const ROOTS: &str = "containers/roots/";

/// Compares two versions. Segments that both have are not read.
///
/// # Errors
///
/// Fails when a segment is missing or is not an archive.
pub fn diff(store: &Store, old: &Manifest, new: &Manifest) -> Result<Diff, DiffError> {
    let digests =
        |manifest: &Manifest| manifest.segments.iter().map(|s| s.digest).collect::<BTreeSet<_>>();
    let (in_old, in_new) = (digests(old), digests(new));
    let before = files(store, old.segments.iter().filter(|s| !in_new.contains(&s.digest)))?;
    let after = files(store, new.segments.iter().filter(|s| !in_old.contains(&s.digest)))?;
    let paths: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let files = paths
        .into_iter()
        .map(|path| FileDiff {
            path: path.clone(),
            old: before.get(path).cloned(),
            new: after.get(path).cloned(),
        })
        .filter(|file| file.old != file.new)
        .collect();
    let packages = |manifest: &Manifest| {
        let all = manifest.packages.iter();
        all.map(|package| (package.name.clone(), package.version.clone())).collect()
    };
    let images = |manifest: &Manifest| {
        let all = manifest.sources.iter();
        all.map(|image| (format!("{}: {}", image.component, image.reference), image.digest))
            .collect()
    };
    Ok(Diff {
        components: components(old, new),
        files,
        packages: changed(packages(old), packages(new)),
        images: changed(images(old), images(new)),
        cmdline: (old.cmdline != new.cmdline).then(|| (old.cmdline.clone(), new.cmdline.clone())),
        size: (old.download_size(), new.download_size()),
    })
}

fn components(old: &Manifest, new: &Manifest) -> Vec<ComponentDiff> {
    let parts = |manifest: &Manifest| {
        let segments = manifest.segments.iter().map(|s| (s.component.clone(), (s.digest, s.size)));
        let kernel = ("kernel".to_owned(), (manifest.kernel.digest, manifest.kernel.size));
        segments.chain([kernel]).collect::<BTreeMap<_, _>>()
    };
    changed(parts(old), parts(new))
        .into_iter()
        .map(|(component, (old, new))| ComponentDiff {
            component,
            old: old.map(|(_, size)| size),
            new: new.map(|(_, size)| size),
        })
        .collect()
}

fn changed<T: Clone + PartialEq>(
    old: BTreeMap<String, T>,
    new: BTreeMap<String, T>,
) -> BTreeMap<String, (Option<T>, Option<T>)> {
    let names: BTreeSet<_> = old.keys().chain(new.keys()).cloned().collect();
    let all = names.into_iter().map(|name| {
        let pair = (old.get(&name).cloned(), new.get(&name).cloned());
        (name, pair)
    });
    all.filter(|(_, (old, new))| old != new).collect()
}

/// Reads every file of some segments. A later one replaces an earlier one, as it does when the kernel unpacks them.
fn files<'a>(
    store: &Store,
    segments: impl Iterator<Item = &'a SegmentEntry>,
) -> Result<BTreeMap<String, Entry>, DiffError> {
    let mut all = BTreeMap::new();
    for segment in segments {
        let path = store.artifact(&segment.digest);
        let mut files = BTreeMap::new();
        archive::read(&path, segment.compression, &mut files).map_err(|source| {
            DiffError::Segment { component: segment.component.clone(), path, source }
        })?;
        all.extend(files.into_iter().map(|(path, entry)| (shown(path, &segment.component), entry)));
    }
    Ok(all)
}

/// Names a file of a container by the container: the directory it is in is named by all that is in there, and so is
/// another one in every version.
fn shown(path: String, component: &str) -> String {
    let Some(name) = path.strip_prefix(ROOTS) else { return path };
    match name.split_once('/') {
        Some((_, inner)) => format!("{component}:/{inner}"),
        None if name.ends_with(".sqfs") => format!("{component}.sqfs"),
        None => format!("{component}:/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::sha256;
    use crate::manifest::{KernelEntry, PackageEntry, SCHEMA, SegmentCompression};
    use crate::segment::{self, Packing};
    use crate::tree::{Kind, Node, Tree, TreePath};

    fn manifest(store: &Store, trees: &[(&str, &[(&str, Node)])], version: &str) -> Manifest {
        let compressions =
            [SegmentCompression::Zstd, SegmentCompression::Gzip, SegmentCompression::None];
        let segments = trees.iter().zip(compressions).map(|((component, nodes), compression)| {
            let mut tree = Tree::new();
            for (path, node) in *nodes {
                tree.insert(TreePath::new(path).unwrap(), node.clone());
            }
            let packing = Packing { compression, ..Packing::default() };
            let key = sha256(format!("{component}{nodes:?}").as_bytes());
            segment::write(store, component, &key, &tree, packing).unwrap()
        });
        let digest = sha256(b"kernel");
        Manifest {
            schema: SCHEMA,
            image: "web".to_owned(),
            arch: kiln_types::Arch::X86_64,
            kernel: KernelEntry { digest, size: 1, release: "6".to_owned(), efi_stub: true },
            segments: segments.collect(),
            cmdline: String::new(),
            min_ram: 0,
            packages: vec![PackageEntry {
                name: "web".to_owned(),
                version: version.to_owned(),
                arch: "all".to_owned(),
                sha256: digest,
            }],
            sources: Vec::new(),
            sbom: None,
        }
    }

    #[test]
    fn files_of_a_container_are_compared_wherever_its_files_are() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = |text: &'static str| Node::file(0o644, text.as_bytes());
        let old: &[_] = &[
            ("containers/roots/0a/etc/a", file("1")),
            ("containers/roots/0a/etc/b", file("1")),
            ("containers/services/web/config.json", file("1")),
        ];
        let new: &[_] = &[
            ("containers/roots/0b/etc/a", file("1")),
            ("containers/roots/0b/etc/b", file("2")),
            ("containers/services/web/config.json", file("2")),
        ];
        let old = manifest(&store, &[("web", old)], "1");
        let new = manifest(&store, &[("web", new)], "1");
        let diff = diff(&store, &old, &new).unwrap();
        let paths: Vec<_> = diff.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["containers/services/web/config.json", "web:/etc/b"]);
        assert_eq!(shown("containers/roots/0a.sqfs".to_owned(), "web"), "web.sqfs");
        assert_eq!(shown("containers/roots".to_owned(), "web"), "containers/roots");
    }

    #[test]
    fn files_that_came_went_and_changed_are_found_in_every_compression() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let file = |text: &'static str| Node::file(0o644, text.as_bytes());
        let same: &[_] = &[("same", file("same"))];
        let link = Node::new(0o644, Kind::Hardlink(TreePath::new("etc/a").unwrap()));
        let old = manifest(
            &store,
            &[
                ("init", &[("etc/a", file("1")), ("etc/b", link.clone()), ("gone", file("x"))]),
                ("web", &[("link", Node::symlink("a"))]),
                ("same", same),
            ],
            "1",
        );
        let new = manifest(
            &store,
            &[
                ("init", &[("etc/a", file("2")), ("etc/b", link)]),
                ("web", &[("link", Node::symlink("b")), ("new", file("y"))]),
                ("same", same),
            ],
            "2",
        );
        let diff = diff(&store, &old, &new).unwrap();
        let paths: Vec<_> = diff.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["etc/a", "etc/b", "gone", "link", "new"]);
        assert_eq!(diff.files[3].new.as_ref().unwrap().kind, EntryKind::Symlink("b".to_owned()));
        let names: Vec<_> = diff.components.iter().map(|part| part.component.as_str()).collect();
        assert_eq!(names, ["init", "web"]);
        assert_eq!(diff.packages["web"], (Some("1".to_owned()), Some("2".to_owned())));
        assert_eq!(super::diff(&store, &new, &new).unwrap().files, []);
    }
}
