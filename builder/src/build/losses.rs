//! What the files of a component lose on their way into a segment, told in the report.

use kiln_types::Digest;

use super::BuildError;
use crate::cpio;
use crate::hash::Hasher;
use crate::packed::Packed;
use crate::store::Store;
use crate::tree::Tree;

/// Stands for the name of the component, which may have another one in the next build that takes its segment.
const COMPONENT: &str = "\0";
/// As many files are named; the others are counted.
const NAMED: usize = 3;

/// Returns what an archive cannot carry of a root file system. A container may be packed instead.
pub(super) fn of_archive(root: &Tree, may_be_packed: bool) -> Vec<String> {
    let lost = cpio::lost(root);
    let instead = if may_be_packed { "; use `layout: packed`" } else { "" };
    let mut losses = Vec::new();
    if let Some(named) = lost.capabilities.get(..lost.capabilities.len().min(NAMED))
        && !named.is_empty()
    {
        let named: Vec<_> = named.iter().map(|path| format!("{COMPONENT}:/{path}")).collect();
        let more = match lost.capabilities.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let named = named.join(", ");
        losses.push(format!(
            "file capabilities of {named}{more} are lost in the cpio layout{instead}"
        ));
    }
    let others = lost.nodes - lost.capabilities.len();
    if others > 0 {
        let files = if others == 1 { "file" } else { "files" };
        losses.push(format!(
            "extended attributes of {others} {files} of {COMPONENT} are lost in the cpio layout{instead}"
        ));
    }
    losses
}

/// Returns what a packed file system could not hold.
pub(super) fn of_packed(packed: &Packed) -> Vec<String> {
    let dropped = packed.dropped.iter().map(|(count, first)| {
        format!(
            "{count} extended attributes of {COMPONENT} cannot be in a packed file system and are lost, the first \
             of /{first}"
        )
    });
    dropped.collect()
}

/// Remembers losses with the segment of a key, for the builds that take it as it is.
pub(super) fn remember(store: &Store, key: &Digest, losses: &[String]) -> Result<(), BuildError> {
    if !losses.is_empty() {
        store.remember(&place(key), &losses)?;
    }
    Ok(())
}

/// Returns what was lost when a segment was made.
pub(super) fn known(store: &Store, key: &Digest, component: &str) -> Vec<String> {
    told(store.remembered(&place(key)).unwrap_or_default(), component)
}

/// Returns losses with the name of the component.
pub(super) fn told(losses: Vec<String>, component: &str) -> Vec<String> {
    losses.into_iter().map(|text| text.replace(COMPONENT, component)).collect()
}

fn place(key: &Digest) -> Digest {
    let mut hasher = Hasher::default();
    hasher.field("losses");
    hasher.update(key.as_bytes());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Node, TreePath, Xattrs};

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        for (path, attribute) in files {
            let mut node = Node::file(0o755, *b"x");
            node.xattrs.insert(attribute, b"1");
            tree.insert(TreePath::new(path).unwrap(), node);
        }
        tree
    }

    #[test]
    fn lost_capabilities_are_named_with_the_way_to_keep_them() {
        let root = tree(&[("usr/bin/ping", Xattrs::CAPABILITY), ("etc/x", "user.note")]);
        assert_eq!(
            told(of_archive(&root, true), "web"),
            [
                "file capabilities of web:/usr/bin/ping are lost in the cpio layout; use `layout: packed`",
                "extended attributes of 1 file of web are lost in the cpio layout; use `layout: packed`",
            ]
        );
        let cap = Xattrs::CAPABILITY;
        let root = tree(&[("a", cap), ("b", cap), ("c", cap), ("d", cap), ("e", cap)]);
        assert_eq!(
            told(of_archive(&root, false), "init"),
            [
                "file capabilities of init:/a, init:/b, init:/c and 2 more are lost in the cpio layout"
            ]
        );
        assert_eq!(of_archive(&Tree::new(), true), Vec::<String>::new());
    }

    #[test]
    fn losses_are_told_by_every_build_that_takes_the_segment() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (key, other) = (crate::hash::sha256(b"key"), crate::hash::sha256(b"other"));
        remember(&store, &key, &of_archive(&tree(&[("etc/x", "user.note")]), false)).unwrap();
        for name in ["web", "front"] {
            let lost = "extended attributes of 1 file of {} are lost in the cpio layout";
            assert_eq!(known(&store, &key, name), [lost.replace("{}", name)]);
        }
        assert_eq!(known(&store, &other, "web"), Vec::<String>::new());
    }
}
