//! The modules that a kernel comes with, and those of them that go into an image.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::unpack::{Spool, read};
use super::{Chosen, Declared, ModulesError, lists, module_name, normal, plain};
use crate::tree::{Kind, Node, Tree, TreePath};

/// The longest list of a kernel that is read.
const MAX_LIST: u64 = 16 << 20;

/// The modules that a kernel comes with.
pub(super) struct Source<'a> {
    package: &'a Tree,
    release: &'a str,
    /// Where they are, with a slash at its end.
    pub(super) base: String,
    /// Their files below that, by name.
    pub(super) all: BTreeMap<String, String>,
    /// Names of those that are part of the kernel itself.
    pub(super) builtin: BTreeSet<String>,
}

impl<'a> Source<'a> {
    pub(super) fn new(package: &'a Tree, release: &'a str) -> Self {
        // Debian has them below `usr`, LinuxKit at the root.
        let places = ["usr/lib/modules/", "lib/modules/"].map(|dir| format!("{dir}{release}/"));
        let mut found = places.into_iter().map(|base| (available(package, &base), base));
        let first = found.next().filter(|(all, _)| !all.is_empty());
        let (all, base) = first.or_else(|| found.next()).unwrap_or_default();
        let builtin = builtin_names(package, &base);
        Self { package, release, base, all, builtin }
    }

    /// Returns whether a machine can use everything as it is.
    pub(super) fn is_ready(&self) -> Result<bool, ModulesError> {
        let listed = |file: &str| TreePath::new(&format!("{}{file}", self.base));
        Ok(self.all.is_empty()
            || self.base.starts_with("lib/")
                && self.all.values().all(|file| plain(file) == file)
                && self.package.contains(&listed("modules.dep")?)
                && self.package.contains(&listed("modules.alias")?))
    }

    /// Reads modules and all that they depend on. What is not there as a file is built in.
    pub(super) fn close(
        &self,
        mut wanted: Vec<String>,
        dir: &Path,
    ) -> Result<BTreeMap<String, Chosen>, ModulesError> {
        let mut spool = Spool::new(dir)?;
        let mut chosen: BTreeMap<String, Chosen> = BTreeMap::new();
        let mut aliases = Aliases { source: self, known: None };
        while let Some(name) = wanted.pop() {
            let file = self.all.get(&name).filter(|_| !chosen.contains_key(&name));
            let Some(file) = file else { continue };
            let mut module = spool.unpack(self.package, &self.base, file)?;
            for line in &mut module.info.softdeps {
                *line = aliases.resolve(line)?;
            }
            wanted.extend(module.info.depends.iter().cloned());
            wanted.extend(module.info.soft_names());
            chosen.insert(name, module);
        }
        Ok(chosen)
    }

    /// Returns the firmware that modules, and what is built in, declare.
    pub(super) fn declared_by(&self, chosen: &BTreeMap<String, Chosen>) -> Declared {
        let file = TreePath::new(&format!("{}modules.builtin.modinfo", self.base)).ok();
        let bytes = file.and_then(|path| self.package.content(&path)?.read_all(MAX_LIST).ok());
        let mut declared = Declared::of_builtin(&bytes.unwrap_or_default());
        for (name, module) in chosen {
            declared.add(name, &module.info.firmware);
        }
        declared
    }

    /// Writes the modules and their lists where the kernel's tools look for them.
    pub(super) fn place(&self, chosen: &BTreeMap<String, Chosen>) -> Result<Tree, ModulesError> {
        let mut tree = Tree::new();
        if chosen.is_empty() {
            return Ok(tree);
        }
        let (base, release) = (&self.base, self.release);
        let at = |file: &str| TreePath::new(&format!("lib/modules/{release}/{file}"));
        for module in chosen.values() {
            let node = Node::new(0o644, Kind::File(module.content.clone()));
            tree.insert(at(&module.file)?, node);
        }
        for file in ["modules.builtin", "modules.builtin.modinfo", "modules.order"] {
            if let Some(content) = self.package.content(&TreePath::new(&format!("{base}{file}"))?) {
                tree.insert(at(file)?, Node::new(0o644, Kind::File(content.clone())));
            }
        }
        tree.insert(at("modules.dep")?, Node::file(0o644, lists::dependencies(chosen)));
        tree.insert(at("modules.alias")?, Node::file(0o644, lists::aliases(chosen)));
        tree.insert(at("modules.softdep")?, Node::file(0o644, lists::soft_dependencies(chosen)));
        Ok(tree)
    }
}

/// The modules that say they serve a name, such as `crypto-crc32c`.
struct Aliases<'a> {
    source: &'a Source<'a>,
    /// Read when it is first asked for: few modules depend on anything by such a name, and it takes all of them.
    known: Option<BTreeMap<String, Vec<String>>>,
}

impl Aliases<'_> {
    /// Puts the modules in the place of each alias: kiln-init looks for soft dependencies by the names of modules.
    /// What this kernel has nothing of stays as it is.
    fn resolve(&mut self, line: &str) -> Result<String, ModulesError> {
        let mut words = Vec::new();
        for word in line.split_whitespace() {
            let name = normal(word);
            // `pre:` and `post:` stand between the names.
            let real = self.source.all.contains_key(&name) || self.source.builtin.contains(&name);
            if real || word.ends_with(':') {
                words.push(word.to_owned());
                continue;
            }
            match self.known()?.get(&name) {
                Some(modules) => words.extend(modules.iter().cloned()),
                None => words.push(word.to_owned()),
            }
        }
        Ok(words.join(" "))
    }

    fn known(&mut self) -> Result<&BTreeMap<String, Vec<String>>, ModulesError> {
        if self.known.is_none() {
            let mut known: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (module, file) in &self.source.all {
                let (_, info) = read(self.source.package, &self.source.base, file)?;
                for alias in &info.aliases {
                    known.entry(normal(alias)).or_default().push(module.clone());
                }
            }
            self.known = Some(known);
        }
        Ok(self.known.get_or_insert_default())
    }
}

/// Returns the files of all modules below the release's directory, by module name.
fn available(package: &Tree, base: &str) -> BTreeMap<String, String> {
    package
        .iter()
        .filter_map(|(path, _)| {
            let file = path.as_str().strip_prefix(base)?;
            Some((module_name(file)?, file.to_owned()))
        })
        .collect()
}

/// Returns the names of the modules that are part of the kernel itself.
fn builtin_names(package: &Tree, base: &str) -> BTreeSet<String> {
    TreePath::new(&format!("{base}modules.builtin"))
        .ok()
        .and_then(|path| package.content(&path)?.read_all(1 << 20).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).lines().filter_map(module_name).collect())
        .unwrap_or_default()
}
