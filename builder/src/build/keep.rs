//! Takes named programs, and all that they need to run, out of unpacked packages: a small root file system out of large
//! ones.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use super::elf;
use crate::tree::{Content, Kind, Node, Tree, TreePath};

/// Where programs are looked for that are named without a path.
const PATH: [&str; 6] =
    ["usr/local/sbin", "usr/local/bin", "usr/sbin", "usr/bin", "usr/games", "usr/local/games"];
/// Directories of the root that are links into `/usr`, whether the link is there or not.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// The largest file that is looked into.
const LARGEST: u64 = 256 << 20;
/// Links that lead to links, as the kernel counts them.
const DEEPEST: usize = 40;
/// The longest first line of a script that counts.
const LINE: usize = 256;

/// Something cannot be kept of packages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeepError {
    /// It is in none of the packages.
    #[error(
        "`{name}` is in none of the packages; write the name of a program, or the path of a file or directory"
    )]
    Unknown {
        /// As it is written.
        name: String,
    },
    /// Something that is kept needs what is not there.
    #[error("`/{file}` needs `{needed}`, which is in none of the packages")]
    Lacks {
        /// The file that is kept.
        file: TreePath,
        /// What it names.
        needed: String,
    },
    /// A file cannot be read.
    #[error("cannot read `/{file}` of the packages")]
    Read {
        /// The file.
        file: TreePath,
    },
}

/// The name of the package that each file is from.
pub(super) type Owners<'a> = BTreeMap<&'a TreePath, &'a str>;

/// Returns who owns what of packages that are laid over each other in this order.
pub(super) fn owners<'a>(packages: impl Iterator<Item = (&'a str, &'a Tree)>) -> Owners<'a> {
    let files = packages.flat_map(|(name, tree)| {
        let files = tree.iter().filter(|(_, node)| !matches!(node.kind, Kind::Dir));
        files.map(move |(path, _)| (path, name))
    });
    files.collect()
}

/// Keeps what is named of packages, with the loaders, libraries and interpreters that it names itself, and the copyright
/// of every package of which something is left.
pub(super) fn keep(all: &Tree, owners: &Owners<'_>, names: &[String]) -> Result<Tree, KeepError> {
    let mut keeper = Keeper::new(all);
    for name in names {
        let found = find(all, name).ok_or_else(|| KeepError::Unknown { name: name.clone() })?;
        keeper.add(&found)?;
    }
    let of: BTreeSet<_> = keeper.kept.iter().filter_map(|path| owners.get(path)).collect();
    for package in of {
        // The directory may be a link to that of another package.
        if let Some(path) = place(all, &format!("usr/share/doc/{package}/copyright")) {
            keeper.add(&path)?;
        }
    }
    Ok(keeper.tree())
}

/// Finds a program by its name, or a file by its path.
fn find(tree: &Tree, name: &str) -> Option<TreePath> {
    if name.starts_with('/') {
        return place(tree, name);
    }
    PATH.iter().find_map(|dir| place(tree, &format!("{dir}/{name}")))
}

/// Returns where a path leads to, links in its directories followed and the last part left as it is, if there is
/// something.
fn place(tree: &Tree, path: &str) -> Option<TreePath> {
    let mut waiting: Vec<String> = parts(path);
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = waiting.pop() {
        if part == ".." {
            at.pop();
            continue;
        }
        at.push(part);
        let here = TreePath::new(&at.join("/")).ok()?;
        if waiting.is_empty() && tree.contains(&here) {
            return Some(here);
        }
        match tree.get(&here).map(|node| &node.kind) {
            Some(Kind::Symlink(target)) => {
                links += 1;
                if links > DEEPEST {
                    return None;
                }
                at.pop();
                if target.starts_with('/') {
                    at.clear();
                }
                waiting.extend(parts(target));
            }
            Some(_) => {}
            None if at.len() == 1 && MERGED.contains(&here.as_str()) => {
                at.insert(0, "usr".to_owned());
            }
            None => return None,
        }
    }
    None
}

/// Returns the parts of a path, the first one last.
fn parts(path: &str) -> Vec<String> {
    let parts = path.split('/').filter(|part| !part.is_empty() && *part != ".");
    parts.rev().map(str::to_owned).collect()
}

struct Keeper<'a> {
    tree: &'a Tree,
    /// Files in directories of libraries, by their names; the shallowest of each.
    libraries: BTreeMap<&'a str, &'a TreePath>,
    kept: BTreeSet<TreePath>,
}

impl<'a> Keeper<'a> {
    fn new(tree: &'a Tree) -> Self {
        let mut libraries: BTreeMap<&str, &TreePath> = BTreeMap::new();
        let depth = |path: &TreePath| path.as_str().split('/').count();
        for (path, node) in tree.iter() {
            let text = path.as_str();
            let is_library = text.starts_with("usr/lib") || text.starts_with("usr/local/lib");
            if is_library && !matches!(node.kind, Kind::Dir) {
                let entry = libraries.entry(path.file_name()).or_insert(path);
                if depth(path) < depth(entry) {
                    *entry = path;
                }
            }
        }
        Self { tree, libraries, kept: BTreeSet::new() }
    }

    /// Keeps what is at a path, all that is below it, where it leads to, and what all of that needs.
    fn add(&mut self, path: &TreePath) -> Result<(), KeepError> {
        let mut waiting = vec![path.clone()];
        while let Some(path) = waiting.pop() {
            let Some(node) = self.tree.get(&path) else { continue };
            if !self.kept.insert(path.clone()) {
                continue;
            }
            match &node.kind {
                Kind::Dir => {
                    let prefix = format!("{path}/");
                    let below = self.tree.iter().map(|(path, _)| path);
                    waiting.extend(below.filter(|at| at.as_str().starts_with(&prefix)).cloned());
                }
                Kind::Symlink(target) => {
                    let from = match (target.starts_with('/'), path.parent()) {
                        (false, Some(dir)) => format!("{dir}/{target}"),
                        _ => target.clone(),
                    };
                    // One that leads nowhere, or to what is made when the machine runs, stays as it is.
                    waiting.extend(place(self.tree, &from));
                }
                Kind::Hardlink(target) => waiting.push(target.clone()),
                Kind::File(content) => self.look_into(&path, content, &mut waiting)?,
                Kind::CharDevice(..) | Kind::BlockDevice(..) | Kind::Fifo => {}
            }
        }
        Ok(())
    }

    /// Adds what a file needs to run.
    fn look_into(
        &self,
        path: &TreePath,
        content: &Content,
        waiting: &mut Vec<TreePath>,
    ) -> Result<(), KeepError> {
        let lacks =
            |needed: &str| KeepError::Lacks { file: path.clone(), needed: needed.to_owned() };
        let read = |limit: u64| {
            let mut bytes = Vec::new();
            let done = content.reader().take(limit).read_to_end(&mut bytes);
            done.map(|_| bytes).map_err(|_| KeepError::Read { file: path.clone() })
        };
        let head = read(LINE as u64)?;
        if let Some(line) = head.strip_prefix(b"#!") {
            let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = String::from_utf8_lossy(line);
            let mut words = line.split_whitespace();
            let Some(program) = words.next() else { return Ok(()) };
            waiting.push(place(self.tree, program).ok_or_else(|| lacks(program))?);
            if program.ends_with("/env")
                && let Some(name) = words.find(|word| !word.starts_with('-') && !word.contains('='))
            {
                waiting.push(find(self.tree, name).ok_or_else(|| lacks(name))?);
            }
            return Ok(());
        }
        if !head.starts_with(b"\x7fELF") {
            return Ok(());
        }
        let wants = elf::wants(&read(LARGEST)?).unwrap_or_default();
        if let Some(loader) = wants.interpreter {
            waiting.push(place(self.tree, &loader).ok_or_else(|| lacks(&loader))?);
        }
        for library in &wants.libraries {
            let found = self.libraries.get(library.as_str()).ok_or_else(|| lacks(library))?;
            waiting.push(TreePath::clone(found));
        }
        Ok(())
    }

    /// Returns the tree of what is kept, in the directories in which it was.
    fn tree(self) -> Tree {
        let mut kept = Tree::new();
        for path in &self.kept {
            let above = std::iter::successors(path.parent(), TreePath::parent);
            for dir in above.collect::<Vec<_>>().into_iter().rev() {
                if let Some(node) = self.tree.get(&dir).filter(|_| !kept.contains(&dir)) {
                    put(&mut kept, &dir, node, self.tree.is_implied(&dir));
                }
            }
            if let Some(node) = self.tree.get(path) {
                put(&mut kept, path, node, self.tree.is_implied(path));
            }
        }
        kept
    }
}

fn put(tree: &mut Tree, path: &TreePath, node: &Node, implied: bool) {
    match implied {
        true => tree.imply(path, node.clone()),
        false => {
            tree.insert(path.clone(), node.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::new();
        for (path, node) in files {
            tree.insert(TreePath::new(path).unwrap(), node.clone());
        }
        tree
    }

    fn text(bytes: &str) -> Node {
        Node::file(0o755, bytes.as_bytes())
    }

    /// A shell of this computer with the libraries that it names, in the places of Debian, beside much else.
    fn packages() -> [(&'static str, Tree); 2] {
        let shell = std::fs::read("/bin/sh").unwrap();
        let wants = elf::wants(&shell).unwrap();
        let loader = wants.interpreter.unwrap().trim_start_matches('/').to_owned();
        let mut libc = vec![
            (format!("usr/{loader}"), Node::symlink("../some/ld.so")),
            ("usr/some/ld.so".to_owned(), text("loader")),
            ("usr/lib/any/gconv/large.so".to_owned(), text("large")),
            ("usr/share/doc/libc6/copyright".to_owned(), text("free")),
        ];
        for library in wants.libraries {
            libc.push((format!("usr/lib/any/{library}"), Node::symlink(format!("{library}.1"))));
            libc.push((format!("usr/lib/any/{library}.1"), text("library")));
        }
        let libc: Vec<_> = libc.iter().map(|(path, node)| (path.as_str(), node.clone())).collect();
        let tools = [
            ("usr/bin/sh", Node::symlink("dash")),
            ("usr/bin/dash", Node::file(0o755, shell)),
            ("usr/bin/script", text("#!/usr/bin/env -S A=b sh\nls\n")),
            ("usr/bin/other", text("#!/bin/sh -e\n")),
            ("usr/bin/env", text("env")),
            ("usr/bin/alone", text("#!/bin/nothing\n")),
            ("usr/share/doc/tools", Node::symlink("libc6")),
            ("etc/tools/a", text("a")),
            ("etc/tools/deep/b", text("b")),
            ("etc/loop", Node::symlink("loop")),
        ];
        [("libc6", tree(&libc)), ("tools", tree(&tools))]
    }

    fn keep_of(packages: &[(&str, Tree)], names: &[&str]) -> Result<Tree, KeepError> {
        let mut all = Tree::new();
        packages.iter().for_each(|(_, tree)| all.merge(tree.clone()));
        let owners = owners(packages.iter().map(|(name, tree)| (*name, tree)));
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        keep(&all, &owners, &names)
    }

    fn kept(names: &[&str]) -> Result<Vec<String>, String> {
        let tree = keep_of(&packages(), names).map_err(|error| error.to_string())?;
        let files = tree.iter().filter(|(_, node)| !matches!(node.kind, Kind::Dir));
        Ok(files.map(|(path, _)| path.as_str().to_owned()).collect())
    }

    #[test]
    fn a_program_comes_with_links_loader_libraries_and_copyright_and_nothing_else() {
        let files = kept(&["sh"]).unwrap();
        let has = |end: &str| files.iter().any(|file| file.ends_with(end));
        for end in
            ["bin/sh", "bin/dash", "some/ld.so", "libc.so.6", "libc.so.6.1", "doc/libc6/copyright"]
        {
            assert!(has(end), "{end} is not in {files:?}");
        }
        assert!(!has("large.so") && !has("bin/env") && !has("tools/a"), "{files:?}");
    }

    #[test]
    fn scripts_bring_who_runs_them_and_directories_all_they_hold() {
        let files = kept(&["script"]).unwrap();
        assert!(["usr/bin/env", "usr/bin/dash"].iter().all(|it| files.contains(&it.to_string())));
        // By the path that the script names, whether the link `bin` is there or not.
        assert!(kept(&["/bin/other"]).unwrap().contains(&"usr/bin/dash".to_owned()));
        let below: Vec<_> = kept(&["/etc/tools"]).unwrap();
        // What the package may be copied under is in that of another one.
        assert_eq!(below, ["etc/tools/a", "etc/tools/deep/b", "usr/share/doc/libc6/copyright"]);
        assert_eq!(kept(&["/etc/loop"]).unwrap()[..1], ["etc/loop"]);
    }

    #[test]
    fn what_is_not_there_is_named() {
        for (name, said) in [
            ("nothing", "`nothing` is in none of the packages; write"),
            ("/usr/bin/../../../nothing", "is in none of the packages"),
            ("alone", "`/usr/bin/alone` needs `/bin/nothing`, which is in none of the packages"),
        ] {
            let error = kept(&[name]).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn a_library_of_which_a_package_is_missing_is_named() {
        let [_, tools] = packages();
        let error = keep_of(&[tools], &["sh"]).unwrap_err().to_string();
        assert!(error.starts_with("`/usr/bin/dash` needs `"), "{error}");
    }
}
