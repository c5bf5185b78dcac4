use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

/// Directories of the root that are links into `/usr` on every Debian since 12.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// What packages carry that no machine needs. Copyright files stay: licences ask for them.
const LEFT_OUT: [&str; 5] =
    ["usr/share/doc", "usr/share/info", "usr/share/lintian", "usr/share/locale", "usr/share/man"];

/// Returns where a package's file goes, or nothing when it is left out.
pub(crate) fn place(path: &TreePath, is_link: bool) -> Result<Option<TreePath>, TreePathError> {
    let text = path.as_str();
    let (first, rest) = text.split_once('/').unwrap_or((text, ""));
    let path = match MERGED.contains(&first) {
        // The link itself, which base-files ships.
        true if rest.is_empty() && is_link => path.clone(),
        true => TreePath::new(&format!("usr/{text}"))?,
        false => path.clone(),
    };
    let below = |dir: &str| {
        path.as_str().strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    if !LEFT_OUT.iter().any(|dir| below(dir)) {
        return Ok(Some(path));
    }
    // A whole directory of copyright may also be a link to that of another package.
    let depth = path.as_str().split('/').count();
    let copyright = path.as_str().starts_with("usr/share/doc/")
        && ((depth == 5 && path.file_name() == "copyright") || (depth == 4 && is_link));
    Ok(copyright.then_some(path))
}

/// Adds the links `bin`, `lib`, `lib64` and `sbin` into `usr` for those that exist there, unless the tree has them.
/// Without `lib64`, no program of an x86_64 package finds its loader; the links belong to the package `base-files`,
/// on which nothing depends.
pub fn link_merged_usr(tree: &mut Tree) {
    for name in MERGED {
        let (Ok(link), Ok(target)) = (TreePath::new(name), TreePath::new(&format!("usr/{name}")))
        else {
            continue;
        };
        let is_dir = matches!(tree.get(&target), Some(Node { kind: Kind::Dir, .. }));
        if is_dir && !tree.contains(&link) {
            tree.insert(link, Node::symlink(target.as_str()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_go_below_usr_and_documents_are_left_out() {
        for (from, is_link, to) in [
            ("bin/sh", true, Some("usr/bin/sh")),
            ("bin", true, Some("bin")),
            ("lib", false, Some("usr/lib")),
            ("lib64/ld-linux-x86-64.so.2", true, Some("usr/lib64/ld-linux-x86-64.so.2")),
            ("library/x", false, Some("library/x")),
            ("etc/passwd", false, Some("etc/passwd")),
            ("usr/share/man", false, None),
            ("usr/share/manual/x", false, Some("usr/share/manual/x")),
            ("usr/share/doc/a/copyright", false, Some("usr/share/doc/a/copyright")),
            ("usr/share/doc/a/README", false, None),
            ("usr/share/doc/a", true, Some("usr/share/doc/a")),
            ("usr/share/doc/a", false, None),
        ] {
            let got = place(&TreePath::new(from).unwrap(), is_link).unwrap();
            assert_eq!(got, to.map(|it| TreePath::new(it).unwrap()), "{from}");
        }
    }

    #[test]
    fn only_links_that_lead_somewhere_are_added() {
        let mut tree = Tree::new();
        tree.insert(TreePath::new("usr/lib/x").unwrap(), Node::file(0o644, *b"x"));
        link_merged_usr(&mut tree);
        let lib = tree.get(&TreePath::new("lib").unwrap()).unwrap();
        assert!(matches!(&lib.kind, Kind::Symlink(target) if target == "usr/lib"));
        assert!(!tree.contains(&TreePath::new("lib64").unwrap()));
    }
}
