//! In which order profiles count: a later one of a node's list wins, and one that a profile names comes before it. Groups
//! have one order for all machines, by a number.

use std::collections::{BTreeMap, BTreeSet};

use super::file::Node;

pub(super) type Profiles = BTreeMap<String, (Option<usize>, Node)>;

/// The profile that nodes have of which nothing else is said.
pub(super) const DEFAULT: &str = "default";

/// The profiles of a node, weakest first: with those that they name, and without those that it takes away with `~`. None
/// where that takes more steps than are left.
pub(super) fn expand(
    list: &[String],
    profiles: &Profiles,
    steps: &mut usize,
) -> Option<Vec<String>> {
    let mut out = Vec::new();
    let mut seen = BTreeSet::new();
    // What is still to be looked at, the next one last; a profile whose own ones are done comes with `true`.
    let mut open: Vec<(&str, bool)> =
        list.iter().rev().map(|name| (name.as_str(), false)).collect();
    let mut without = BTreeSet::new();
    while let Some((name, done)) = open.pop() {
        *steps = steps.checked_sub(1)?;
        if let Some(name) = name.strip_prefix('~') {
            without.insert(name);
        } else if done {
            out.push(name.to_owned());
        } else if seen.insert(name) {
            open.push((name, true));
            let inner = profiles.get(name).and_then(|(_, profile)| profile.profiles.as_deref());
            open.extend(inner.unwrap_or_default().iter().rev().map(|name| (name.as_str(), false)));
        }
    }
    out.retain(|name| !without.contains(name.as_str()));
    Some(out)
}

/// Numbers the profiles so that a later one of each list has a higher number, as far as the lists agree.
pub(super) fn ranks<'a>(
    names: impl Iterator<Item = &'a str>,
    lists: &[Vec<String>],
) -> BTreeMap<String, i32> {
    let mut before: BTreeMap<&str, BTreeSet<&str>> =
        names.map(|name| (name, BTreeSet::new())).collect();
    for list in lists {
        let known: Vec<&str> =
            list.iter().map(String::as_str).filter(|name| before.contains_key(name)).collect();
        for (one, next) in known.iter().zip(known.iter().skip(1)) {
            before.entry(next).or_default().insert(one);
        }
    }
    let mut ranks = BTreeMap::new();
    for rank in 0.. {
        let free =
            before.iter().find(|(_, before)| before.is_empty()).or_else(|| before.iter().next());
        let Some((&name, _)) = free else { break };
        before.remove(name);
        for before in before.values_mut() {
            before.remove(name);
        }
        ranks.insert(name.to_owned(), rank);
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(names: &str) -> Vec<String> {
        names.split_ascii_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn a_profile_comes_behind_those_that_it_names() {
        let profile = |inner: &str| (None, Node { profiles: Some(list(inner)), ..Node::default() });
        let profiles: Profiles = [
            ("gpu".to_owned(), profile("base net")),
            ("net".to_owned(), profile("base ~old")),
            ("loop".to_owned(), profile("loop")),
        ]
        .into();
        for (said, expanded) in [
            ("a b", "a b"),
            ("gpu", "base net gpu"),
            ("net gpu", "base net gpu"),
            ("old net", "base net"),
            ("gpu ~base", "net gpu"),
            ("loop a", "loop a"),
        ] {
            assert_eq!(expand(&list(said), &profiles, &mut 1), None);
            let found = expand(&list(said), &profiles, &mut 100);
            assert_eq!(found, Some(list(expanded)), "{said}");
        }
    }

    #[test]
    fn ranks_follow_the_lists_and_lists_that_contradict_each_other_do_not_stop_them() {
        let lists = |all: &[&str]| all.iter().map(|names| list(names)).collect::<Vec<_>>();
        let order = |names: &str, said: &[&str]| {
            let ranks = ranks(names.split(' '), &lists(said));
            let mut order: Vec<_> = ranks.into_iter().map(|(name, rank)| (rank, name)).collect();
            order.sort();
            order.into_iter().map(|(_, name)| name).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(order("a b c", &["c a", "b c"]), "b c a");
        assert_eq!(order("a b", &["b unknown a"]), "b a");
        assert_eq!(order("a b c", &["b a", "a b"]).len(), 5);
        assert_eq!(order("a b c", &[]), "a b c");
    }
}
