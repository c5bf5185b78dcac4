use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use kiln_types::{Arch, Digest};
use memchr::memmem;

use super::stanza::field;
use super::version::{Bound, Op, Version};

/// One binary package of a suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Package {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: Version,
    /// Debian's name of its architecture, or `all`.
    pub arch: String,
    /// Where it is, relative to the mirror's base address.
    pub filename: String,
    /// Its size in bytes.
    pub size: u64,
    /// Its hash.
    pub sha256: Digest,
    /// `Pre-Depends` and `Depends`: of each group, one relation must hold.
    pub depends: Vec<Vec<Relation>>,
    /// `Conflicts` and `Breaks`: none of them may hold.
    pub conflicts: Vec<Relation>,
    /// What else it can be depended on as, and in which version.
    pub provides: Vec<Provided>,
    /// `required`, `important`, `standard`, `optional` or `extra`.
    pub priority: String,
}

/// A package that is depended on, by its own name or one it provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relation {
    /// The name.
    pub name: String,
    /// The bound on its version.
    pub bound: Option<Bound>,
}

/// A name that a package provides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Provided {
    /// The name.
    pub name: String,
    /// The version; a name without one satisfies no bound.
    pub version: Option<Version>,
}

/// All packages of a suite for one architecture. Packages are parsed when they are asked for.
pub struct PackageIndex {
    arch: Arch,
    parts: Vec<String>,
    // Both are sorted by name.
    stanzas: Vec<Stanza>,
    provides: Vec<(String, usize)>,
}

struct Stanza {
    part: usize,
    name: Range<usize>,
    text: Range<usize>,
    parsed: OnceLock<Option<Box<Package>>>,
}

impl Relation {
    /// Returns whether a package satisfies it, by its own name or one it provides.
    pub fn holds(&self, package: &Package) -> bool {
        let allows = |version: &Version| self.bound.as_ref().is_none_or(|it| it.allows(version));
        (package.name == self.name && allows(&package.version))
            || package.provides.iter().any(|it| {
                it.name == self.name
                    && match (&it.version, &self.bound) {
                        (_, None) => true,
                        (Some(version), Some(_)) => allows(version),
                        (None, Some(_)) => false,
                    }
            })
    }
}

impl fmt::Display for Relation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.bound {
            Some(bound) => write!(f, "{} ({bound})", self.name),
            None => f.write_str(&self.name),
        }
    }
}

impl fmt::Debug for PackageIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PackageIndex")
            .field("arch", &self.arch)
            .field("packages", &self.stanzas.len())
            .finish_non_exhaustive()
    }
}

impl PackageIndex {
    /// Indexes the texts of `Packages` files, one per component.
    pub(crate) fn new(arch: Arch, parts: Vec<String>) -> Self {
        let mut stanzas = Vec::new();
        let mut provided = Vec::new();
        let provides = memmem::Finder::new(b"\nProvides:");
        for (part, all) in parts.iter().enumerate() {
            let ends = memmem::find_iter(all.as_bytes(), b"\n\n").chain([all.len()]);
            let mut start = 0;
            for end in ends {
                let text = start..end;
                start = (end + 2).min(all.len());
                let stanza = &all[text.clone()];
                let Some(name) = name(stanza) else { continue };
                let name = text.start + name.start..text.start + name.end;
                if let Some(at) = provides.find(stanza.as_bytes()) {
                    let value = field(&stanza[at + 1..], "Provides").unwrap_or_default();
                    let id = stanzas.len();
                    provided.extend(parse_provides(value).into_iter().map(|it| (it.name, id)));
                }
                stanzas.push(Stanza { part, name, text, parsed: OnceLock::new() });
            }
        }
        let name_of = |stanza: &Stanza| &parts[stanza.part][stanza.name.clone()];
        let mut order: Vec<usize> = (0..stanzas.len()).collect();
        order.sort_by(|a, b| name_of(&stanzas[*a]).cmp(name_of(&stanzas[*b])));
        let mut place = vec![0; order.len()];
        for (new, old) in order.iter().enumerate() {
            place[*old] = new;
        }
        for (_, id) in &mut provided {
            *id = place[*id];
        }
        provided.sort();
        let mut sorted: Vec<_> = place.into_iter().zip(stanzas).collect();
        sorted.sort_by_key(|(place, _)| *place);
        let stanzas = sorted.into_iter().map(|(_, stanza)| stanza).collect();
        Self { arch, parts, stanzas, provides: provided }
    }

    /// Returns the architecture that the packages are for.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// Returns how many packages there are.
    pub fn len(&self) -> usize {
        self.stanzas.len()
    }

    /// Returns whether there is no package.
    pub fn is_empty(&self) -> bool {
        self.stanzas.is_empty()
    }

    /// Returns the newest package of a name.
    pub fn get(&self, name: &str) -> Option<&Package> {
        self.versions(name).max_by(|a, b| a.version.cmp(&b.version))
    }

    /// Returns every package of a name.
    pub(crate) fn versions(&self, name: &str) -> impl Iterator<Item = &Package> {
        let start = self.stanzas.partition_point(|it| self.name(it) < name);
        let same = self.stanzas[start..].iter().take_while(move |it| self.name(it) == name);
        same.filter_map(|it| self.package(it))
    }

    /// Returns the packages that provide a name, sorted by their own.
    pub(crate) fn providers(&self, name: &str) -> impl Iterator<Item = &Package> {
        let start = self.provides.partition_point(|(it, _)| it.as_str() < name);
        let same = self.provides[start..].iter().take_while(move |(it, _)| it == name);
        same.filter_map(|(_, id)| self.package(self.stanzas.get(*id)?))
    }

    /// Returns every name there is, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.stanzas.iter().map(|it| self.name(it))
    }

    fn name(&self, stanza: &Stanza) -> &str {
        &self.parts[stanza.part][stanza.name.clone()]
    }

    fn package<'a>(&self, stanza: &'a Stanza) -> Option<&'a Package> {
        let parsed = stanza.parsed.get_or_init(|| {
            let package = parse(&self.parts[stanza.part][stanza.text.clone()], self.arch);
            if package.is_none() {
                tracing::debug!(package = self.name(stanza), "skipped a malformed package stanza");
            }
            package.map(Box::new)
        });
        parsed.as_deref()
    }
}

/// Returns where the name stands; in practice it is always in the first line.
fn name(stanza: &str) -> Option<Range<usize>> {
    let start = match stanza.starts_with("Package:") {
        true => 0,
        false => memmem::find(stanza.as_bytes(), b"\nPackage:")? + 1,
    } + "Package:".len();
    let line = stanza[start..].split('\n').next().unwrap_or_default();
    let name = line.trim();
    let start = start + (line.len() - line.trim_start().len());
    (!name.is_empty()).then(|| start..start + name.len())
}

fn parse(stanza: &str, arch: Arch) -> Option<Package> {
    let text = |name| field(stanza, name);
    let list = |name| text(name).unwrap_or_default();
    let mut depends = parse_groups(list("Pre-Depends"), arch);
    depends.extend(parse_groups(list("Depends"), arch));
    let mut conflicts = parse_groups(list("Conflicts"), arch);
    conflicts.extend(parse_groups(list("Breaks"), arch));
    let filename = text("Filename")?;
    // The path becomes part of an address: it must stay below the mirror.
    let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '\\');
    if filename.split('/').any(|part| matches!(part, "" | "." | "..")) || filename.contains(odd) {
        return None;
    }
    Some(Package {
        name: text("Package")?.to_owned(),
        version: Version::new(text("Version")?),
        arch: text("Architecture")?.to_owned(),
        filename: filename.to_owned(),
        size: text("Size")?.parse().ok()?,
        sha256: text("SHA256")?.parse().ok()?,
        depends,
        conflicts: conflicts.into_iter().flatten().collect(),
        provides: parse_provides(list("Provides")),
        priority: list("Priority").to_owned(),
    })
}

/// Parses `a (>= 1) | b, c:any`.
pub(crate) fn parse_groups(value: &str, arch: Arch) -> Vec<Vec<Relation>> {
    value
        .split(',')
        .map(|group| group.split('|').filter_map(|it| relation(it, arch)).collect())
        .filter(|group: &Vec<_>| !group.is_empty())
        .collect()
}

fn relation(text: &str, arch: Arch) -> Option<Relation> {
    let (name, bound) = split_bound(text)?;
    let (name, qualifier) = name.split_once(':').unwrap_or((name, "any"));
    matches!(qualifier, "any" | "native" | "all")
        .then_some(())
        .or_else(|| (qualifier == arch.debian()).then_some(()))?;
    Some(Relation { name: name.to_owned(), bound })
}

fn parse_provides(value: &str) -> Vec<Provided> {
    let one = |text| {
        let (name, bound) = split_bound(text)?;
        let name = name.split(':').next().unwrap_or(name).to_owned();
        Some(Provided { name, version: bound.map(|it| it.version) })
    };
    value.split(',').filter_map(one).collect()
}

/// Splits `name (op version) [restrictions]`.
fn split_bound(text: &str) -> Option<(&str, Option<Bound>)> {
    let text = text.trim();
    let name = text.split(|c: char| c.is_whitespace() || c == '(' || c == '[').next()?;
    if name.is_empty() {
        return None;
    }
    let Some((_, rest)) = text.split_once('(') else { return Some((name, None)) };
    let (op, version) = Op::split(rest.split(')').next()?.trim())?;
    Some((name, Some(Bound { op, version: Version::new(version) })))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Makes an index from stanzas that lack the fields that are always the same.
    pub(crate) fn index(stanzas: &str) -> PackageIndex {
        let mut text = String::new();
        for stanza in stanzas.split("\n\n") {
            let name = field(stanza, "Package").unwrap();
            let version = field(stanza, "Version").map_or("Version: 1\n", |_| "");
            let zeros = "0".repeat(64);
            text.push_str(&format!(
                "{}\n{version}Architecture: amd64\nFilename: pool/{name}.deb\nSize: 1\nSHA256: {zeros}\n\n",
                stanza.trim()
            ));
        }
        PackageIndex::new(Arch::X86_64, vec![text])
    }

    #[test]
    fn packages_are_found_by_name_and_by_what_they_provide() {
        let index = index(
            "Package: b\nProvides: v (= 2), w\nDepends: libc6:any (>= 2) | x, a:arm64, y [amd64]\n\n\
             Package: a\nVersion: 1\n\nPackage: a\nVersion: 1:0",
        );
        assert_eq!(index.len(), 3);
        assert_eq!(index.get("a").unwrap().version.as_str(), "1:0");
        assert!(index.get("v").is_none());
        let b = index.providers("v").next().unwrap();
        assert_eq!(b.name, "b");
        let groups: Vec<String> = b
            .depends
            .iter()
            .map(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(groups, ["libc6 (>= 2)|x", "y"]);
        let relation = |text| parse_groups(text, Arch::X86_64).remove(0).remove(0);
        assert!(relation("v (>= 1)").holds(b) && !relation("v (>= 3)").holds(b));
        assert!(relation("w").holds(b) && !relation("w (>= 1)").holds(b));
    }

    #[test]
    fn malformed_stanzas_are_skipped() {
        for text in [
            "",
            "\n\n\n\n",
            "Package:",
            "Package: a",
            "Package: a\nVersion: 1\nArchitecture: amd64\nFilename: ../x\nSize: 1\nSHA256: 00",
            "\u{e9}\nPackage",
        ] {
            let index = PackageIndex::new(Arch::Arm64, vec![text.to_owned()]);
            assert!(index.get("a").is_none());
        }
    }

    #[test]
    fn fuzzed_indexes_of_packages_are_read_as_far_as_they_make_sense() {
        let zeros = "0".repeat(64);
        let sample = format!(
            "Package: b\nProvides: v (= 2), w\nDepends: libc6:any (>= 2) | x, a:arm64, y [amd64]\n\
             Version: 1:2-3~a\nArchitecture: amd64\nFilename: pool/b.deb\nSize: 1\nSHA256: {zeros}\n\n\
             Package: a\nVersion: 1\nConflicts: b (<< 2)\n\n\nPackage: a\nVersion: 1:0\n"
        );
        kiln_fuzz::check("deb-packages", &[sample.as_bytes()], |bytes| {
            let text = String::from_utf8_lossy(bytes).into_owned();
            let index = PackageIndex::new(Arch::X86_64, vec![text]);
            assert!(index.len() <= bytes.len());
            for name in index.names() {
                let _ = (index.get(name), index.providers(name).count());
            }
        });
    }
}
