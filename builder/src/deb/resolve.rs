use std::collections::VecDeque;

use super::chosen::Chosen;
use super::packages::{Package, PackageIndex, Relation};

/// Why packages cannot be installed together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResolveError {
    /// There is no package of that name.
    #[error("there is no package `{name}` for {arch}{}", hint.as_deref().unwrap_or_default())]
    Unknown {
        /// The name.
        name: String,
        /// Debian's name of the architecture.
        arch: &'static str,
        /// What may have been meant.
        hint: Option<String>,
    },
    /// Nothing satisfies a dependency.
    #[error("`{package}` needs `{needs}`, which nothing in this suite can give{because}")]
    Unmet {
        /// The package that has the dependency.
        package: String,
        /// The dependency.
        needs: String,
        /// What stands against it.
        because: String,
    },
    /// Two packages cannot be installed together.
    #[error("`{first}` and `{second}` cannot be installed together; leave one of them out")]
    Conflict {
        /// One of them.
        first: String,
        /// The other one.
        second: String,
    },
}

impl PackageIndex {
    /// Returns the packages with everything they depend on (`Pre-Depends` and `Depends`), sorted by name. A name may
    /// also be one that a package provides, or `name=version`. The same names give the same packages in any order.
    ///
    /// # Errors
    ///
    /// Fails when a name is unknown, when a dependency cannot be met, or when two packages conflict.
    pub fn resolve(&self, names: &[String]) -> Result<Vec<&Package>, ResolveError> {
        let mut chosen = Chosen::default();
        let mut queue = VecDeque::new();
        let mut names: Vec<_> = names.iter().map(|it| it.trim()).collect();
        names.sort_unstable();
        // What is asked for comes first: it may settle alternatives of the rest.
        for name in names {
            let package = self.asked(name)?;
            if chosen.insert(package) {
                queue.push_back(package);
            }
        }
        while let Some(package) = queue.pop_front() {
            for group in &package.depends {
                if group.iter().any(|relation| chosen.meets(relation)) {
                    continue;
                }
                let found =
                    self.choose(group, &chosen).ok_or_else(|| unmet(package, group, &chosen))?;
                chosen.insert(found);
                queue.push_back(found);
            }
        }
        if let Some((first, second)) = chosen.conflicts() {
            let (first, second) = (first.name.clone(), second.name.clone());
            return Err(ResolveError::Conflict { first, second });
        }
        Ok(chosen.into_packages())
    }

    fn asked(&self, name: &str) -> Result<&Package, ResolveError> {
        let (name, version) = match name.split_once('=') {
            Some((name, version)) => (name, Some(version)),
            None => (name, None),
        };
        let mut providers = self.providers(name);
        let found = match version {
            Some(version) => self.versions(name).find(|it| it.version.as_str() == version),
            None => self.get(name).or_else(|| best(self.providers(name))),
        };
        found.ok_or_else(|| ResolveError::Unknown {
            name: version.map_or_else(|| name.to_owned(), |version| format!("{name}={version}")),
            arch: self.arch().debian(),
            hint: match self.get(name) {
                Some(package) => Some(format!("; there is version {}", package.version)),
                None if providers.next().is_some() => None,
                None => self.nearest(name).map(|it| format!("; did you mean `{it}`?")),
            },
        })
    }

    /// Takes the first alternative that can be had: the package of that name, else one that provides it.
    fn choose(&self, group: &[Relation], chosen: &Chosen<'_>) -> Option<&Package> {
        group.iter().find_map(|relation| {
            let fits = |it: &&Package| {
                relation.holds(it)
                    // One version of a package only.
                    && chosen.get(&it.name).is_none()
                    && chosen.conflict(it).is_none()
            };
            let named = self.versions(&relation.name).filter(fits);
            named
                .max_by(|a, b| a.version.cmp(&b.version))
                .or_else(|| best(self.providers(&relation.name).filter(fits)))
        })
    }

    fn nearest(&self, name: &str) -> Option<&str> {
        let limit = (name.chars().count() / 4).max(1);
        let close = |it: &&str| it.len().abs_diff(name.len()) <= limit;
        let scored = self.names().filter(close).map(|it| (distance(name, it), it));
        scored.filter(|(score, _)| *score <= limit).min().map(|(_, it)| it)
    }
}

/// Of several providers, takes the one of the highest priority and then the first by name, as a rule that lasts.
fn best<'a>(providers: impl Iterator<Item = &'a Package>) -> Option<&'a Package> {
    const ORDER: [&str; 4] = ["required", "important", "standard", "optional"];
    let rank = |it: &Package| ORDER.iter().position(|name| *name == it.priority).unwrap_or(4);
    providers.min_by(|a, b| {
        rank(a)
            .cmp(&rank(b))
            .then_with(|| a.name.cmp(&b.name))
            .then_with(|| b.version.cmp(&a.version))
    })
}

fn unmet(package: &Package, group: &[Relation], chosen: &Chosen<'_>) -> ResolveError {
    let needs: Vec<_> = group.iter().map(ToString::to_string).collect();
    let other = group.iter().find_map(|it| chosen.get(&it.name));
    ResolveError::Unmet {
        package: package.name.clone(),
        needs: needs.join(" | "),
        because: other
            .map_or_else(String::new, |it| format!(" (chosen is {} {})", it.name, it.version)),
    }
}

/// The edit distance of two names.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<_> = b.chars().collect();
    let mut row: Vec<_> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let cost = (diagonal + usize::from(x != *y)).min(row[j] + 1).min(row[j + 1] + 1);
            diagonal = std::mem::replace(&mut row[j + 1], cost);
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::packages::tests::index;

    fn resolve(stanzas: &str, names: &[&str]) -> Result<String, String> {
        let names: Vec<_> = names.iter().map(|it| (*it).to_owned()).collect();
        match index(stanzas).resolve(&names) {
            Ok(list) => Ok(list.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(" ")),
            Err(error) => Err(error.to_string()),
        }
    }

    #[test]
    fn the_closure_follows_circles_and_both_kinds_of_dependency() {
        let text = "Package: a\nDepends: b\n\nPackage: b\nPre-Depends: c (>= 1)\nDepends: a\n\nPackage: c\n\n\
                    Package: d\nRecommends: x";
        assert_eq!(resolve(text, &["a"]).unwrap(), "a b c");
        assert_eq!(resolve(text, &["d", "c", "d"]).unwrap(), "c d");
    }

    #[test]
    fn alternatives_take_what_is_there_then_the_first_then_a_provider() {
        let text = "Package: a\nDepends: x | y\n\nPackage: x\n\nPackage: y\n\n\
                    Package: m\nDepends: mta | none\n\nPackage: q\nProvides: mta\nPriority: optional\n\n\
                    Package: p\nProvides: mta\nPriority: optional\n\n\
                    Package: s\nProvides: mta\nPriority: extra\n\n\
                    Package: n\nDepends: none | x";
        assert_eq!(resolve(text, &["a"]).unwrap(), "a x");
        assert_eq!(resolve(text, &["a", "y"]).unwrap(), "a y");
        assert_eq!(resolve(text, &["m"]).unwrap(), "m p");
        assert_eq!(resolve(text, &["m", "q"]).unwrap(), "m q");
        assert_eq!(resolve(text, &["n"]).unwrap(), "n x");
        assert_eq!(resolve(text, &["mta"]).unwrap(), "p");
    }

    #[test]
    fn versions_bind_and_conflicts_turn_to_another_alternative() {
        let text = "Package: a\nDepends: x (>= 2) | y\n\nPackage: x\n\nPackage: y\n\n\
                    Package: b\nDepends: x (>= 2)\n\nPackage: c\nConflicts: x\nDepends: x | y\n\n\
                    Package: own\nProvides: only\nConflicts: only\n\nPackage: d\nBreaks: y (<< 2)";
        assert_eq!(resolve(text, &["a"]).unwrap(), "a y");
        assert_eq!(
            resolve(text, &["b"]).unwrap_err(),
            "`b` needs `x (>= 2)`, which nothing in this suite can give"
        );
        assert_eq!(resolve(text, &["c"]).unwrap(), "c y");
        assert_eq!(resolve(text, &["own"]).unwrap(), "own");
        assert_eq!(
            resolve(text, &["y", "d"]).unwrap_err(),
            "`d` and `y` cannot be installed together; leave one of them out"
        );
        assert_eq!(resolve(text, &["x=1"]).unwrap(), "x");
        assert_eq!(
            resolve(text, &["x=2"]).unwrap_err(),
            "there is no package `x=2` for amd64; there is version 1"
        );
    }

    #[test]
    fn a_provided_name_has_the_version_that_is_said_and_no_other() {
        let text = "Package: a\nDepends: v (>= 2)\n\nPackage: p\nVersion: 9\nProvides: v\n\n\
                    Package: q\nVersion: 9\nProvides: v (= 1)\n\nPackage: r\nProvides: v (= 1), v (= 3)\n\n\
                    Package: b\nDepends: v (>= 4)\n\nPackage: c\nDepends: p:any, q:native (>= 9)\n\n\
                    Package: d\nDepends: none:arm64 | p";
        assert_eq!(resolve(text, &["a"]).unwrap(), "a r");
        assert_eq!(resolve(text, &["a", "p", "q"]).unwrap(), "a p q r");
        assert_eq!(
            resolve(text, &["b", "r"]).unwrap_err(),
            "`b` needs `v (>= 4)`, which nothing in this suite can give"
        );
        assert_eq!(resolve(text, &["c"]).unwrap(), "c p q");
        assert_eq!(resolve(text, &["d"]).unwrap(), "d p");
    }

    #[test]
    fn conflicts_count_from_both_sides_and_by_provided_names() {
        let text = "Package: a\nBreaks: mta (<< 3)\n\nPackage: b\nProvides: mta (= 2)\n\n\
                    Package: c\nProvides: mta\n\nPackage: d\nVersion: 3\nProvides: mta (= 3)\n\n\
                    Package: needs\nDepends: mta\n\nPackage: old\n\nPackage: old\nVersion: 2\nConflicts: a";
        let together = |first, second| {
            format!("`{first}` and `{second}` cannot be installed together; leave one of them out")
        };
        assert_eq!(resolve(text, &["b", "a"]).unwrap_err(), together("a", "b"));
        assert_eq!(resolve(text, &["a", "old"]).unwrap_err(), together("a", "old"));
        // A bound says nothing of a name that is provided without a version.
        assert_eq!(resolve(text, &["a", "c"]).unwrap(), "a c");
        assert_eq!(resolve(text, &["needs"]).unwrap(), "b needs");
        assert_eq!(resolve(text, &["needs", "a"]).unwrap(), "a c needs");
    }

    #[test]
    fn a_closure_of_thousands_among_a_hundred_thousand_packages_is_no_trouble() {
        // Each of the first ones needs the next, the last of them the first.
        let (count, circle) = (100_000, 10_000);
        let mut text = String::new();
        for n in 0..count {
            let next = (n + 1) % circle;
            text.push_str(&format!(
                "Package: p{n}\nDepends: none | v{next} (>= 1), p0\nProvides: v{n} (= 1)\nBreaks: x{next} (<< 1)\n\n"
            ));
        }
        let index = index(text.trim());
        assert_eq!(index.len(), count);
        assert_eq!(index.resolve(&["p7".to_owned()]).unwrap().len(), circle);
    }

    #[test]
    fn a_misspelt_name_gets_a_hint() {
        let text = "Package: dropbear-bin\n\nPackage: other";
        assert_eq!(
            resolve(text, &["dropber-bin"]).unwrap_err(),
            "there is no package `dropber-bin` for amd64; did you mean `dropbear-bin`?"
        );
        assert_eq!(
            resolve(text, &["nothing-like-it"]).unwrap_err(),
            "there is no package `nothing-like-it` for amd64"
        );
    }
}
