use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::BuildError;
use crate::bundle::Ids;
use crate::spec::{FileSpec, MetadataFormat, Placed, Spec, SpecError, UserId};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// Makes the tree of `files`. Directories above them that nothing else brings are for those who may read them, as
/// LinuxKit has it: `root/.ssh` is as private as the keys in it.
pub(super) fn tree(spec: &Spec, files: &[FileSpec], ids: &Ids) -> Result<Tree, BuildError> {
    let mut tree = Tree::new();
    for file in files {
        let (default_mode, kind) = if file.directory {
            (0o700, Kind::Dir)
        } else if let Some(target) = &file.symlink {
            (0o777, Kind::Symlink(target.clone()))
        } else if let Some(source) = &file.source {
            let path = source.path();
            match open(path) {
                Ok(content) => (0o600, Kind::File(content)),
                Err(e) if file.optional && e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(source) => {
                    let (place, path) = (file.path.place().clone(), path.to_owned());
                    return Err(BuildError::Open { place, path, source });
                }
            }
        } else {
            let text = match file.metadata {
                None => file.contents.clone().unwrap_or_default(),
                Some(MetadataFormat::Yaml) => spec.to_yaml()?,
                Some(MetadataFormat::Json) => spec.to_json()?,
            };
            (0o600, Kind::File(Content::Bytes(text.into_bytes().into())))
        };
        let mode = file.mode.map_or(default_mode, |mode| mode.bits());
        let number = |id: &Option<Placed<UserId>>| match id {
            None => Ok(0),
            Some(id) => ids.number(id).map_err(|user| {
                let problem = format!("there is no container `{user}` whose number could own it");
                BuildError::Spec(SpecError::Wrong { place: id.place().clone(), problem })
            }),
        };
        let (uid, gid) = (number(&file.uid)?, number(&file.gid)?);
        let above = Node { uid, gid, ..Node::new(searchable(mode), Kind::Dir) };
        let mut dirs: Vec<_> =
            std::iter::successors(file.path.parent(), TreePath::parent).collect();
        dirs.reverse();
        for dir in &dirs {
            tree.imply(dir, above.clone());
        }
        tree.insert(TreePath::clone(&file.path), Node { uid, gid, ..Node::new(mode, kind) });
    }
    Ok(tree)
}

/// Lets those search a directory who have any right to a file in it.
fn searchable(mode: u32) -> u32 {
    let rights = [0o100, 0o010, 0o001];
    rights.into_iter().filter(|x| mode & (7 * x) != 0).fold(mode & 0o777, |mode, x| mode | x)
}

fn open(path: &Path) -> std::io::Result<Content> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(std::io::Error::other("it is not a regular file"));
    }
    Ok(Content::Span { file: Arc::new(file), offset: 0, len: metadata.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_that_is_not_there_is_told_with_its_place_unless_it_is_optional() {
        let made = |rest: &str| {
            let yaml = format!("files:\n  - {{path: /a, source: /nowhere/a{rest}}}\n");
            let spec = crate::spec::parse("web.yml", &yaml).unwrap();
            tree(&spec, &spec.files, &Ids::default())
        };
        assert!(made(", optional: true").unwrap().is_empty());
        assert_eq!(made("").unwrap_err().to_string(), "web.yml:2:12: cannot read `/nowhere/a`");
    }

    #[test]
    fn directories_above_a_file_are_as_private_as_it_is_and_leave_others_as_they_are() {
        let yaml = "files:\n  - {path: root/.ssh/keys, contents: k, uid: 7}\n  - {path: srv/a/b, contents: b, mode: '0644'}\n";
        let spec = crate::spec::parse("web.yml", yaml).unwrap();
        let made = tree(&spec, &spec.files, &Ids::default()).unwrap();
        let mut over = Tree::new();
        over.insert(TreePath::new("srv").unwrap(), Node::dir());
        over.merge(made);
        let of = |path: &str| {
            let node = over.get(&TreePath::new(path).unwrap()).unwrap();
            (node.mode, node.uid)
        };
        assert_eq!(of("root"), (0o700, 7));
        assert_eq!(of("root/.ssh"), (0o700, 7));
        assert_eq!(of("srv/a"), (0o755, 0));
        assert_eq!(of("srv"), (0o755, 0));
    }

    #[test]
    fn metadata_is_the_specification_and_reads_as_the_same() {
        let yaml = "onboot:\n  - {name: a, image: 'busybox:1'}\nfiles:\n  - {path: a, metadata: yaml}\n  - {path: b, metadata: json}\n";
        let spec = crate::spec::parse("web.yml", yaml).unwrap();
        let made = tree(&spec, &spec.files, &Ids::default()).unwrap();
        for path in ["a", "b"] {
            let bytes = made.content(&TreePath::new(path).unwrap()).unwrap().read_all(9999);
            let text = String::from_utf8(bytes.unwrap()).unwrap();
            let again = crate::spec::parse("again", &text).unwrap();
            assert_eq!(again.to_yaml().unwrap(), spec.to_yaml().unwrap());
        }
    }
}
