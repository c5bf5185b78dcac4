//! Volumes: directories that containers share, at `/containers/volumes/NAME`.

use std::collections::BTreeMap;

use super::BundleError;
use crate::spec::Mount;
use crate::tree::{Content, Kind, Node, Tree, TreePath, TreePathError};

const DIRECTORY: &str = "/containers/volumes";

/// The volumes of an image: which there are, and which of them nothing can be written to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes(BTreeMap<String, bool>);

/// What a volume holds at first.
#[derive(Debug)]
pub enum VolumeFiles {
    /// Nothing.
    Empty,
    /// These files: those of an image, or the directory of an OCI image layout.
    Own(Tree),
    /// The same as a SquashFS file system, which is read in place.
    Packed(Content),
}

impl Volumes {
    /// Takes each volume's name and whether it is read-only.
    pub fn new<'a>(volumes: impl IntoIterator<Item = (&'a str, bool)>) -> Self {
        Self(volumes.into_iter().map(|(name, readonly)| (name.to_owned(), readonly)).collect())
    }

    /// Puts the path of a volume in the place of its name. Only a bind can name a volume.
    pub(super) fn resolve(&self, container: &str, mount: &Mount) -> Result<Mount, BundleError> {
        let bind = mount.kind == "bind"
            || mount.options.iter().any(|option| matches!(option.as_str(), "bind" | "rbind"));
        if !bind || mount.source.starts_with('/') {
            return Ok(mount.clone());
        }
        let (container, volume) = (container.to_owned(), mount.source.clone());
        let destination = mount.destination.clone();
        match self.0.get(&mount.source) {
            None => Err(BundleError::UnknownVolume { container, volume, destination }),
            Some(true) if writable(&mount.options) => {
                Err(BundleError::ReadOnlyVolume { container, volume, destination })
            }
            Some(_) => Ok(Mount {
                source: format!("{DIRECTORY}/{}/merged", mount.source),
                ..mount.clone()
            }),
        }
    }
}

/// The last word counts.
fn writable(options: &[String]) -> bool {
    let words = options.iter().rev().map(String::as_str);
    words.into_iter().find(|word| matches!(*word, "ro" | "rw" | "rro")).is_none_or(|w| w == "rw")
}

/// Puts a volume into a tree of its own. One that nothing can be written to has no `tmp`: that is how the machine
/// tells it from others.
///
/// # Errors
///
/// Fails when a path becomes too long.
pub fn write_volume(name: &str, readonly: bool, files: VolumeFiles) -> Result<Tree, TreePathError> {
    let mut tree = Tree::new();
    let at = |part: &str| TreePath::new(&format!("{DIRECTORY}/{name}/{part}"));
    let lower = at("lower")?;
    tree.insert(lower.clone(), Node::dir());
    tree.insert(at("merged")?, Node::dir());
    if !readonly {
        tree.insert(at("tmp")?, Node::dir());
    }
    match files {
        VolumeFiles::Empty => {}
        VolumeFiles::Own(own) => super::root::graft(own, &lower, &mut tree)?,
        VolumeFiles::Packed(content) => {
            tree.insert(at("root.sqfs")?, Node::new(0o644, Kind::File(content)));
        }
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(kind: &str, source: &str, options: &[&str]) -> Mount {
        Mount {
            destination: "/data".to_owned(),
            kind: kind.to_owned(),
            source: source.to_owned(),
            options: options.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn the_name_of_a_volume_becomes_its_path_in_binds_and_in_mounts() {
        let volumes = Volumes::new([("data", false), ("fixed", true)]);
        let source = |mount: &Mount| volumes.resolve("a", mount).map(|mount| mount.source);
        for (mount, expected) in [
            (mount("bind", "data", &["rw", "rbind"]), "/containers/volumes/data/merged"),
            (mount("bind", "fixed", &["rbind", "ro"]), "/containers/volumes/fixed/merged"),
            (mount("none", "data", &["bind"]), "/containers/volumes/data/merged"),
            (mount("bind", "/data", &["rw"]), "/data"),
            (mount("tmpfs", "tmpfs", &[]), "tmpfs"),
        ] {
            assert_eq!(source(&mount).unwrap(), expected);
        }
    }

    #[test]
    fn a_volume_that_is_missing_or_not_to_be_written_is_refused() {
        let volumes = Volumes::new([("fixed", true)]);
        let error = |source, options: &[&str]| {
            volumes.resolve("web", &mount("bind", source, options)).unwrap_err().to_string()
        };
        assert!(error("other", &["ro"]).starts_with("container `web` has the volume `other` on"));
        for options in [&["rw", "rbind", "rshared"][..], &["rbind"], &["ro", "rw"]] {
            assert!(error("fixed", options).contains("the volume is read-only"), "{options:?}");
        }
    }

    #[test]
    fn a_read_only_volume_has_nothing_to_write_to() {
        let paths = |readonly, files| -> Vec<String> {
            let tree = write_volume("v", readonly, files).unwrap();
            let inside = |path: &TreePath| {
                path.as_str().strip_prefix("containers/volumes/v/").map(str::to_owned)
            };
            tree.into_iter().filter_map(|(path, _)| inside(&path)).collect()
        };
        assert_eq!(paths(false, VolumeFiles::Empty), ["lower", "merged", "tmp"]);
        let mut own = Tree::new();
        own.insert(TreePath::new("etc/a").unwrap(), Node::file(0o600, *b"x"));
        assert_eq!(
            paths(true, VolumeFiles::Own(own)),
            ["lower", "lower/etc", "lower/etc/a", "merged"]
        );
        let content = Content::Bytes((*b"hsqs").into());
        assert_eq!(paths(true, VolumeFiles::Packed(content)), ["lower", "merged", "root.sqfs"]);
    }
}
