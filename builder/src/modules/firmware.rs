//! Firmware that modules load into devices: what they declare (`MODULE_FIRMWARE` of the kernel) is taken from where the
//! kernel or packages have it, with the links that lead there.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Kind, Node, Tree, TreePath, TreePathError};

/// Where packages have firmware; kernels look in the second place.
const DIRS: [&str; 2] = ["usr/lib/firmware/", "lib/firmware/"];
/// How its files may be compressed (`CONFIG_FW_LOADER_COMPRESS`). They stay so.
const COMPRESSED: [&str; 2] = [".xz", ".zst"];
/// Symbolic links are followed so many times.
const MAX_LINKS: usize = 16;
/// So many modules are named where firmware is missing.
const NAMED: usize = 5;

/// What modules declare.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Declared {
    /// The files of each module, some of which are alternatives.
    pub modules: BTreeMap<String, Vec<String>>,
    /// Files of what is part of the kernel itself.
    pub builtin: BTreeSet<String>,
}

impl Declared {
    /// Reads `modules.builtin.modinfo`: entries such as `MODULE.firmware=FILE`, with a NUL after each.
    pub(super) fn of_builtin(modinfo: &[u8]) -> Self {
        let entries = modinfo.split(|byte| *byte == 0).filter_map(|it| str::from_utf8(it).ok());
        let files = entries.filter_map(|it| it.split_once(".firmware="));
        Self { builtin: files.map(|(_, file)| file.to_owned()).collect(), ..Self::default() }
    }

    pub(super) fn add(&mut self, module: &str, files: &[String]) {
        if !files.is_empty() {
            self.modules.insert(module.to_owned(), files.to_vec());
        }
    }
}

/// The firmware of an image.
#[derive(Debug, Default)]
pub struct Firmware {
    /// `lib/firmware/…`.
    pub tree: Tree,
    /// Modules of which no file was found, and one file that each declares.
    pub missing: BTreeMap<String, String>,
}

impl Firmware {
    /// Takes what is declared out of trees, the first of which counts where several have a file.
    ///
    /// # Errors
    ///
    /// Fails when a path is too long.
    pub fn take(declared: &Declared, trees: &[&Tree]) -> Result<Self, TreePathError> {
        let index = Index::new(trees);
        let mut taken = Self::default();
        for (module, names) in &declared.modules {
            let mut found = false;
            for name in names {
                found |= index.take(name, &mut taken.tree)?;
            }
            if let Some(first) = names.first().filter(|_| !found) {
                taken.missing.insert(module.clone(), first.clone());
            }
        }
        for name in &declared.builtin {
            index.take(name, &mut taken.tree)?;
        }
        Ok(taken)
    }

    /// Says what is missing, in a sentence.
    pub fn warning(&self, release: &str) -> Option<String> {
        let named: Vec<_> = self.missing.iter().take(NAMED).collect();
        if named.is_empty() {
            return None;
        }
        let named: Vec<_> = named.iter().map(|(name, file)| format!("{name} ({file})")).collect();
        let more = match self.missing.len() - named.len() {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        Some(format!(
            "kernel {release}: there is no firmware for {}{more}; name the packages that have it in \
             `kernel.firmware`, if machines with such devices are to use them",
            named.join(", ")
        ))
    }
}

/// Takes all firmware out of a tree, whether something declares it or not.
pub fn remove_firmware(tree: &mut Tree) -> Result<(), TreePathError> {
    for dir in DIRS {
        tree.remove(&TreePath::new(dir)?);
    }
    Ok(())
}

/// The files and links of several trees, by their path below the firmware's folder, without the ending of compression.
struct Index<'a> {
    files: BTreeMap<&'a str, (&'a Tree, &'a TreePath)>,
}

impl<'a> Index<'a> {
    fn new(trees: &[&'a Tree]) -> Self {
        let mut files = BTreeMap::new();
        for tree in trees {
            for (path, node) in tree.iter() {
                if matches!(node.kind, Kind::Dir) {
                    continue;
                }
                let Some(name) = below(path.as_str()) else { continue };
                let name = COMPRESSED.iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
                files.entry(name).or_insert((*tree, path));
            }
        }
        Self { files }
    }

    /// Takes a file, or all that a pattern fits. Returns whether there is any.
    fn take(&self, name: &str, out: &mut Tree) -> Result<bool, TreePathError> {
        let Ok(clean) = TreePath::new(name) else { return Ok(false) };
        let name = clean.as_str();
        if name.contains(['*', '?']) {
            let fits: Vec<_> = self.files.iter().filter(|(file, _)| fits(name, file)).collect();
            for (_, (tree, path)) in &fits {
                place(tree, path, out, MAX_LINKS)?;
            }
            return Ok(!fits.is_empty());
        }
        if let Some((tree, path)) = self.files.get(name) {
            return place(tree, path, out, MAX_LINKS);
        }
        // A folder on the way may be a link.
        let trees = self.files.values().map(|(tree, _)| *tree);
        let mut seen: Vec<&Tree> = Vec::new();
        for tree in trees {
            if seen.iter().any(|it| std::ptr::eq(*it, tree)) {
                continue;
            }
            seen.push(tree);
            for dir in DIRS {
                for end in ["", COMPRESSED[0], COMPRESSED[1]] {
                    let path = TreePath::new(&format!("{dir}{name}{end}"))?;
                    if place(tree, &path, out, MAX_LINKS)? {
                        return Ok(true);
                    }
                }
            }
        }
        Ok(false)
    }
}

/// Puts a file into its place, with every link that leads to it. Returns whether it leads to a file.
fn place(tree: &Tree, path: &TreePath, out: &mut Tree, left: usize) -> Result<bool, TreePathError> {
    let (Some(name), Some(left)) = (below(path.as_str()), left.checked_sub(1)) else {
        return Ok(false);
    };
    let to = TreePath::new(&format!("lib/firmware/{name}"))?;
    if let Some(content) = tree.content(path) {
        out.insert(to, Node::new(0o644, Kind::File(content.clone())));
        return Ok(true);
    }
    let above = std::iter::successors(Some(path.clone()), TreePath::parent);
    for link in above {
        let Some(Kind::Symlink(target)) = tree.get(&link).map(|node| &node.kind) else { continue };
        let rest = path.as_str().get(link.as_str().len()..).unwrap_or_default();
        let Some(real) = target_of(&link, target) else { return Ok(false) };
        let real = TreePath::new(&format!("{real}{rest}"))?;
        if !place(tree, &real, out, left)? {
            return Ok(false);
        }
        if let Some(name) = below(link.as_str()) {
            // Without `usr`, which packages may name.
            let target = match target.strip_prefix("/usr/") {
                Some(rest) => format!("/{rest}"),
                None => target.clone(),
            };
            out.insert(TreePath::new(&format!("lib/firmware/{name}"))?, Node::symlink(target));
        }
        return Ok(true);
    }
    Ok(false)
}

/// Returns what a link leads to inside the tree.
fn target_of(link: &TreePath, target: &str) -> Option<String> {
    let mut parts: Vec<&str> = match target.starts_with('/') {
        true => Vec::new(),
        false => link.as_str().split('/').collect(),
    };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

fn below(path: &str) -> Option<&str> {
    DIRS.iter().find_map(|dir| path.strip_prefix(dir))
}

/// Returns whether a pattern with `*` and `?`, neither of which stands for a slash, fits a path.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path) = (pattern.as_bytes(), path.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the last star is, and how far it reaches.
    let mut star: Option<(usize, usize)> = None;
    while let Some(&byte) = path.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&wanted) if wanted == byte || wanted == b'?' && byte != b'/' => {
                p += 1;
                t += 1;
            }
            _ => match star {
                Some((at, reach)) if path.get(reach) != Some(&b'/') => {
                    star = Some((at, reach + 1));
                    p = at + 1;
                    t = reach + 1;
                }
                _ => return false,
            },
        }
    }
    pattern.get(p..).is_some_and(|rest| rest.iter().all(|byte| *byte == b'*'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> Tree {
        let mut tree = Tree::new();
        for (path, content) in files {
            let node = match content.strip_prefix("-> ") {
                Some(target) => Node::symlink(target),
                None => Node::file(0o600, content.as_bytes()),
            };
            tree.insert(TreePath::new(path).unwrap(), node);
        }
        tree
    }

    fn take(names: &[&str], trees: &[&Tree]) -> (Vec<String>, bool) {
        let names: Vec<_> = names.iter().map(|&name| name.to_owned()).collect();
        let mut declared = Declared::default();
        declared.add("card", &names);
        let taken = Firmware::take(&declared, trees).unwrap();
        let all = taken.tree.iter().filter(|(_, node)| !matches!(node.kind, Kind::Dir));
        let shown = all.map(|(path, node)| match &node.kind {
            Kind::Symlink(target) => format!("{path} -> {target}"),
            _ => path.to_string(),
        });
        (shown.collect(), taken.missing.is_empty())
    }

    #[test]
    fn files_are_found_below_usr_or_not_and_compressed_or_not() {
        let kernel = tree(&[("lib/firmware/a/one.bin", "1")]);
        let package =
            tree(&[("usr/lib/firmware/a/one.bin", "other"), ("usr/lib/firmware/two.fw.zst", "2")]);
        let names = ["a/one.bin", "two.fw", "../../../etc/shadow", "none"];
        let (files, found) = take(&names, &[&kernel, &package]);
        assert_eq!(files, ["lib/firmware/a/one.bin", "lib/firmware/two.fw.zst"]);
        assert!(found);
    }

    #[test]
    fn links_come_with_what_they_lead_to_and_lead_nowhere_else() {
        let package = tree(&[
            ("usr/lib/firmware/real/x.bin", "1"),
            ("usr/lib/firmware/a/x.bin", "-> ../real/x.bin"),
            ("usr/lib/firmware/dir", "-> real"),
            ("usr/lib/firmware/abs", "-> /usr/lib/firmware/a/x.bin"),
            ("usr/lib/firmware/out", "-> ../../../etc/shadow"),
            ("usr/lib/firmware/loop", "-> loop"),
            ("etc/shadow", "secret"),
        ]);
        let (files, _) = take(&["a/x.bin"], &[&package]);
        assert_eq!(files, ["lib/firmware/a/x.bin -> ../real/x.bin", "lib/firmware/real/x.bin"]);
        let (files, _) = take(&["dir/x.bin"], &[&package]);
        assert_eq!(files, ["lib/firmware/dir -> real", "lib/firmware/real/x.bin"]);
        let (files, _) = take(&["abs"], &[&package]);
        assert_eq!(files[1], "lib/firmware/abs -> /lib/firmware/a/x.bin");
        for name in ["out", "loop"] {
            assert_eq!(take(&[name], &[&package]), (Vec::new(), false), "{name}");
        }
    }

    #[test]
    fn a_pattern_takes_all_that_it_fits_in_its_folder() {
        let package = tree(&[
            ("lib/firmware/brcm/a-sdio.one.bin", "1"),
            ("lib/firmware/brcm/a-sdio.two.bin", "2"),
            ("lib/firmware/brcm/deeper/a-sdio.bin", "3"),
        ]);
        let (files, found) = take(&["brcm/a*-sdio.*.bin"], &[&package]);
        assert_eq!((files.len(), found), (2, true), "{files:?}");
        assert!(fits("a?c*", "abcd/e") == fits("x", "y") && fits("*", "") && fits("a**b", "acb"));
    }

    #[test]
    fn what_is_built_in_gets_its_firmware_and_is_not_missed() {
        let declared =
            Declared::of_builtin(b"tg3.license=GPL\0tg3.firmware=tigon/tg3.bin\0x.firmware=y");
        let package = tree(&[("usr/lib/firmware/tigon/tg3.bin", "1")]);
        let taken = Firmware::take(&declared, &[&package]).unwrap();
        assert!(taken.tree.contains(&TreePath::new("lib/firmware/tigon/tg3.bin").unwrap()));
        assert!(taken.missing.is_empty());
    }

    #[test]
    fn modules_without_any_of_their_firmware_are_named() {
        let card = |n: u8| (format!("card{n}"), vec![format!("card{n}.bin")]);
        let declared = Declared { modules: (0..7).map(card).collect(), builtin: BTreeSet::new() };
        let package = tree(&[("lib/firmware/card0.bin", "1")]);
        let warning = Firmware::take(&declared, &[&package]).unwrap().warning("6").unwrap();
        assert!(warning.contains("for card1 (card1.bin), card2 (card2.bin), "), "{warning}");
        assert!(warning.contains(" and 1 more; name the packages"), "{warning}");
        assert_eq!(Firmware::default().warning("6"), None);
    }
}
