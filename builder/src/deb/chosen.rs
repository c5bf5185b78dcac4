//! The packages that have been chosen so far, by what they give and what they stand against: every question is a
//! look-up, so that large closures take no longer than they have to.

use std::collections::{BTreeMap, HashMap};

use super::packages::{Package, Relation};

/// Packages that are to be installed together.
#[derive(Default)]
pub(super) struct Chosen<'a> {
    packages: BTreeMap<&'a str, &'a Package>,
    /// By their own names and those they provide.
    given: HashMap<&'a str, Vec<&'a Package>>,
    /// By the names that they conflict with.
    against: HashMap<&'a str, Vec<(&'a Package, &'a Relation)>>,
}

impl<'a> Chosen<'a> {
    /// Adds a package, and returns whether none of its name was there. Then nothing is added.
    pub(super) fn insert(&mut self, package: &'a Package) -> bool {
        if self.packages.contains_key(package.name.as_str()) {
            return false;
        }
        self.packages.insert(&package.name, package);
        for name in names(package) {
            let given = self.given.entry(name).or_default();
            // A package may provide its own name, or one in several versions.
            if given.last().is_none_or(|last| last.name != package.name) {
                given.push(package);
            }
        }
        for relation in &package.conflicts {
            self.against.entry(&relation.name).or_default().push((package, relation));
        }
        true
    }

    /// Returns the package of a name.
    pub(super) fn get(&self, name: &str) -> Option<&'a Package> {
        self.packages.get(name).copied()
    }

    /// Returns whether a dependency is met.
    pub(super) fn meets(&self, relation: &Relation) -> bool {
        self.giving(relation).next().is_some()
    }

    /// Returns a package that cannot be installed together with this one.
    pub(super) fn conflict(&self, package: &Package) -> Option<&'a Package> {
        // A package may conflict with a name that it provides itself, to be the only one.
        let other = |it: &&'a Package| it.name != package.name;
        if let Some(found) =
            package.conflicts.iter().find_map(|relation| self.giving(relation).find(other))
        {
            return Some(found);
        }
        let against = names(package).filter_map(|name| self.against.get(name)).flatten();
        against.filter(|(_, it)| it.holds(package)).map(|(it, _)| *it).find(other)
    }

    /// Returns the first two packages, by name, that cannot be installed together.
    pub(super) fn conflicts(&self) -> Option<(&'a Package, &'a Package)> {
        self.packages.values().find_map(|it| Some((*it, self.conflict(it)?)))
    }

    /// Returns all of them, sorted by name.
    pub(super) fn into_packages(self) -> Vec<&'a Package> {
        self.packages.into_values().collect()
    }

    fn giving(&self, relation: &Relation) -> impl Iterator<Item = &'a Package> {
        let given = self.given.get(relation.name.as_str()).into_iter().flatten().copied();
        given.filter(|package| relation.holds(package))
    }
}

/// Returns its name and those it provides.
fn names(package: &Package) -> impl Iterator<Item = &str> {
    [package.name.as_str()].into_iter().chain(package.provides.iter().map(|it| it.name.as_str()))
}
