use std::io;

use crate::tree::{Node, Tree, TreePath, TreePathError};

/// Where Alpine's package manager writes down what is installed.
const INSTALLED: &str = "lib/apk/db/installed";
/// Whole distributions have a few megabytes.
const MAX_LEN: u64 = 64 << 20;

/// What is installed in several images that are laid over each other: the machine's own list would be that of the last
/// one alone. LinuxKit joins them in the same way.
#[derive(Debug, Default)]
pub struct ApkDatabases(Vec<u8>);

impl ApkDatabases {
    /// Takes the list of an image, if it has one.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, or is larger than any real one.
    pub fn add(&mut self, image: &Tree) -> io::Result<()> {
        let found = TreePath::new(INSTALLED).ok().and_then(|path| image.content(&path));
        if let Some(content) = found {
            self.0.extend(content.read_all(MAX_LEN)?);
        }
        Ok(())
    }

    /// Puts all of them into a tree, one after the other.
    ///
    /// # Errors
    ///
    /// Never in practice: the path is ours, and short.
    pub fn put(self, tree: &mut Tree) -> Result<(), TreePathError> {
        if !self.0.is_empty() {
            tree.insert(TreePath::new(INSTALLED)?, Node::file(0o644, self.0));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_installed_in_each_image_is_in_the_list_of_the_machine() {
        let image = |text: &str| {
            let mut tree = Tree::new();
            let node = Node::file(0o600, text.as_bytes());
            tree.insert(TreePath::new(INSTALLED).unwrap(), node);
            tree
        };
        let mut all = ApkDatabases::default();
        for tree in [image("P:a\n\n"), Tree::new(), image("P:b\n\n")] {
            all.add(&tree).unwrap();
        }
        let mut root = Tree::new();
        all.put(&mut root).unwrap();
        let content = root.content(&TreePath::new(INSTALLED).unwrap()).unwrap();
        assert_eq!(content.read_all(99).unwrap(), b"P:a\n\nP:b\n\n");
        let mut none = Tree::new();
        ApkDatabases::default().put(&mut none).unwrap();
        assert!(none.is_empty());
    }
}
