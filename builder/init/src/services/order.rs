//! In which order services stop: the reverse of the one in which they start.

use std::collections::{BTreeMap, BTreeSet};

type After = BTreeMap<String, Vec<String>>;

/// Returns the services that name this one in their `after`.
pub(super) fn direct_users(after: &After, name: &str) -> Vec<String> {
    let uses = |others: &Vec<String>| others.iter().any(|other| other == name);
    after.iter().filter(|(_, others)| uses(others)).map(|(user, _)| user.clone()).collect()
}

/// Sorts all services into groups that stop together, the first group first: nobody stops before those that come
/// after it. Those in a circle stop together at the end.
pub(super) fn waves_of_stops(after: &After) -> Vec<Vec<String>> {
    let mut left: BTreeSet<&String> = after.keys().collect();
    let mut waves = Vec::new();
    while !left.is_empty() {
        let used: BTreeSet<&String> = left
            .iter()
            .flat_map(|user| after.get(*user).into_iter().flatten().filter(move |n| n != user))
            .collect();
        let mut wave: Vec<&String> =
            left.iter().filter(|name| !used.contains(*name)).copied().collect();
        if wave.is_empty() {
            wave = left.iter().copied().collect();
        }
        for name in &wave {
            left.remove(name);
        }
        waves.push(wave.into_iter().cloned().collect());
    }
    waves
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(pairs: &[(&str, &[&str])]) -> After {
        pairs
            .iter()
            .map(|(name, after)| {
                ((*name).to_owned(), after.iter().map(|name| (*name).to_owned()).collect())
            })
            .collect()
    }

    #[test]
    fn who_comes_after_others_stops_before_them() {
        let after =
            after(&[("db", &[]), ("web", &["db", "unknown"]), ("log", &[]), ("proxy", &["web"])]);
        let waves = waves_of_stops(&after);
        assert_eq!(waves, [vec!["log", "proxy"], vec!["web"], vec!["db"]]);
        assert_eq!(direct_users(&after, "db"), ["web"]);
        assert!(direct_users(&after, "proxy").is_empty());
    }

    #[test]
    fn those_in_a_circle_stop_together() {
        let after = after(&[("a", &["b"]), ("b", &["a"]), ("c", &["c"]), ("d", &["a"])]);
        assert_eq!(waves_of_stops(&after), [vec!["c", "d"], vec!["a", "b"]]);
        assert!(waves_of_stops(&After::new()).is_empty());
    }
}
