use std::fs::File;
use std::path::Path;
use std::sync::Arc;

use super::BuildError;
use crate::bundle::Ids;
use crate::spec::{FileSpec, Placed, SpecError, UserId};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// Makes the tree of `files`.
pub(super) fn tree(files: &[FileSpec], ids: &Ids) -> Result<Tree, BuildError> {
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
            let text = file.contents.as_deref().unwrap_or_default();
            (0o600, Kind::File(Content::Bytes(text.as_bytes().into())))
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
        tree.insert(TreePath::clone(&file.path), Node { uid, gid, ..Node::new(mode, kind) });
    }
    Ok(tree)
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
            tree(&crate::spec::parse("web.yml", &yaml).unwrap().files, &Ids::default())
        };
        assert!(made(", optional: true").unwrap().is_empty());
        assert_eq!(made("").unwrap_err().to_string(), "web.yml:2:12: cannot read `/nowhere/a`");
    }
}
