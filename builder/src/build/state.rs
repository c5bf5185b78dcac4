//! The programs that make and check the state partition: kiln-init has none, so the image brings those of e2fsprogs
//! along, each with the libraries and the loader of the same release, in a folder of their own.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use super::BuildError;
use super::elf::{self, Wants};
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// What it is called in reports.
pub(super) const COMPONENT: &str = "state-tools";
/// The package with the programs.
pub(super) const PACKAGE: &str = "e2fsprogs";
const FOLDER: &str = "usr/lib/kiln/state";
const PROGRAMS: [&str; 2] = ["usr/sbin/mke2fs", "usr/sbin/e2fsck"];
const SETTINGS: &str = "etc/mke2fs.conf";
/// The largest program or library that is read.
const LARGEST: u64 = 32 << 20;
/// Links that lead to links.
const DEEPEST: usize = 8;

/// Returns whether a package has any of the files; the others are those of its scripts.
pub(super) fn is_needed(package: &str) -> bool {
    package == PACKAGE || package.starts_with("lib") && !package.starts_with("libgcc")
}

/// Takes the programs and all that they load out of unpacked packages.
pub(super) fn tools(packages: &Tree) -> Result<Tree, BuildError> {
    let mut names = Names::new(packages);
    let mut tree = Tree::new();
    let mut place = |name: &str, mode, content: &Content| {
        let path = TreePath::new(&format!("{FOLDER}/{name}"));
        let failed = |source| BuildError::Place { component: COMPONENT.to_owned(), source };
        tree.insert(path.map_err(failed)?, Node::new(mode, Kind::File(content.clone())));
        Ok::<_, BuildError>(())
    };
    let settings = names.file(SETTINGS)?;
    place("mke2fs.conf", 0o644, settings)?;
    let mut waiting = VecDeque::new();
    let mut loader = None;
    for program in PROGRAMS {
        let content = names.file(program)?;
        let wants = wants(program, content)?;
        let interpreter = wants.interpreter.ok_or_else(|| missing(program))?;
        loader = Some(last_part(&interpreter).to_owned());
        place(last_part(program), 0o755, content)?;
        waiting.extend(wants.libraries);
    }
    let loader = loader.ok_or_else(|| missing("ld.so"))?;
    place("ld.so", 0o755, names.library(&loader)?)?;
    while let Some(library) = waiting.pop_front() {
        // The loader is its own library.
        if library == loader || !names.seen.insert(library.clone()) {
            continue;
        }
        let content = names.library(&library)?;
        waiting.extend(wants(&library, content)?.libraries);
        place(&library, 0o644, content)?;
    }
    Ok(tree)
}

fn missing(file: &str) -> BuildError {
    BuildError::StateTools { file: file.to_owned() }
}

fn last_part(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The files of the packages, and those below `lib` by their names.
struct Names<'a> {
    tree: &'a Tree,
    libraries: BTreeMap<&'a str, &'a TreePath>,
    seen: BTreeSet<String>,
}

impl<'a> Names<'a> {
    fn new(tree: &'a Tree) -> Self {
        let below_lib =
            |path: &TreePath| path.as_str().split('/').any(|part| part.starts_with("lib"));
        let mut libraries = BTreeMap::new();
        for (path, node) in tree.iter().filter(|(path, _)| below_lib(path)) {
            match node.kind {
                Kind::Dir => {}
                // The loader has a link of its own name in another folder.
                Kind::Symlink(_) => {
                    libraries.entry(path.file_name()).or_insert(path);
                }
                _ => {
                    libraries.insert(path.file_name(), path);
                }
            }
        }
        Self { tree, libraries, seen: BTreeSet::new() }
    }

    fn file(&self, path: &str) -> Result<&'a Content, BuildError> {
        let path = TreePath::new(path).map_err(|_| missing(path))?;
        self.tree.content(&path).ok_or_else(|| missing(path.as_str()))
    }

    /// Finds a library by its name, through links to files beside it or elsewhere.
    fn library(&self, name: &str) -> Result<&'a Content, BuildError> {
        let mut wanted = name.to_owned();
        for _ in 0..DEEPEST {
            let path = self.libraries.get(wanted.as_str()).ok_or_else(|| missing(name))?;
            match self.tree.get(path).map(|node| &node.kind) {
                Some(Kind::Symlink(target)) => last_part(target).clone_into(&mut wanted),
                _ => return self.tree.content(path).ok_or_else(|| missing(name)),
            }
        }
        Err(missing(name))
    }
}

fn wants(name: &str, content: &Content) -> Result<Wants, BuildError> {
    let mut bytes = Vec::new();
    let mut reader = std::io::Read::take(content.reader(), LARGEST);
    std::io::Read::read_to_end(&mut reader, &mut bytes)
        .map_err(|source| BuildError::Source { path: PathBuf::from(name), source })?;
    elf::wants(&bytes).ok_or_else(|| missing(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program of this computer, which is one of Linux with a loader and a C library.
    fn shell() -> Vec<u8> {
        std::fs::read("/bin/sh").unwrap()
    }

    fn packages() -> Tree {
        let mut tree = Tree::new();
        let mut add = |path: &str, node| tree.insert(TreePath::new(path).unwrap(), node);
        for path in PROGRAMS {
            add(path, Node::file(0o755, shell()));
        }
        add(SETTINGS, Node::file(0o644, *b"[defaults]\n"));
        let wants = elf::wants(&shell()).unwrap();
        let loader = last_part(wants.interpreter.as_deref().unwrap()).to_owned();
        // The loader is beside a link of its own name, and a library behind one of another name.
        add(&format!("usr/lib/some/{loader}"), Node::file(0o755, *b"loader"));
        add(&format!("usr/lib64/{loader}"), Node::symlink(format!("../lib/some/{loader}")));
        for library in wants.libraries {
            add(&format!("usr/lib/some/{library}.1"), Node::file(0o644, shell()));
            add(&format!("usr/lib/some/{library}"), Node::symlink(format!("{library}.1")));
        }
        tree
    }

    #[test]
    fn programs_come_with_their_loader_and_all_libraries_in_one_folder() {
        let tree = tools(&packages()).unwrap();
        let wants = elf::wants(&shell()).unwrap();
        assert!(wants.libraries.iter().any(|library| library.starts_with("libc.so.")));
        let names = ["ld.so", "mke2fs", "e2fsck", "mke2fs.conf"].map(str::to_owned);
        for name in names.iter().chain(&wants.libraries) {
            let path = TreePath::new(&format!("{FOLDER}/{name}")).unwrap();
            assert!(tree.content(&path).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let library = elf::wants(&shell()).unwrap().libraries.remove(0);
        for gone in [PROGRAMS[1], SETTINGS, &format!("usr/lib/some/{library}.1")] {
            let mut tree = packages();
            tree.remove(&TreePath::new(gone).unwrap());
            let said = tools(&tree).unwrap_err().to_string();
            let name = if gone.starts_with("usr/lib/") { &library } else { gone };
            assert!(said.contains(&format!("`{name}` is missing")), "{said}");
        }
    }

    #[test]
    fn packages_of_scripts_are_left_out() {
        for (name, needed) in
            [("e2fsprogs", true), ("libc6", true), ("logsave", false), ("gcc-14-base", false)]
        {
            assert_eq!(is_needed(name), needed, "{name}");
        }
    }
}
