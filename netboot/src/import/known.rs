//! Which machine an entry is about: found by hardware address or name among those that earlier entries are about.

use std::collections::{BTreeSet, HashMap};

use kiln_types::Mac;

use super::Found;
use super::name::label;

/// So many machines of one name are compared with an entry. Where there are more, it is a machine of its own.
const MOST_NAMESAKES: usize = 100;

/// Machines as far as entries were read.
#[derive(Default)]
pub(super) struct Known {
    pub(super) machines: Vec<Found>,
    by_mac: HashMap<Mac, usize>,
    /// By the whole name: those with a domain, and those of which none is said.
    by_name: HashMap<String, Vec<usize>>,
    /// By the first label, whatever their domains.
    by_label: HashMap<String, Vec<usize>>,
}

impl Known {
    /// Returns the place of the machine that an entry is about: the one that has one of its hardware addresses, or its
    /// name and no other address.
    pub(super) fn of(&self, one: &Found) -> Option<usize> {
        let same_mac = one.macs.iter().find_map(|mac| self.by_mac.get(mac)).copied();
        same_mac.or_else(|| {
            let name = one.name.as_deref()?;
            let label = label(name)?;
            let (exact, other) = match has_domain(name) {
                true => (self.by_name.get(name), self.by_name.get(&label)),
                false => (self.by_label.get(&label), None),
            };
            let all = [exact, other].into_iter().flatten().flatten().copied();
            all.take(MOST_NAMESAKES).find(|at| {
                self.machines.get(*at).is_some_and(|there| {
                    same_host(there.name.as_deref(), name)
                        && agree(there.address, one.address)
                        && agree(there.address6, one.address6)
                })
            })
        })
    }

    /// Adds a machine, or puts what an entry says to the machine that it is about.
    pub(super) fn add(&mut self, one: Found, join: impl FnOnce(&mut Found, Found)) {
        let macs = one.macs.clone();
        let place = self.of(&one);
        let at = place.unwrap_or(self.machines.len());
        let before = place.and_then(|at| self.machines.get(at)?.name.clone());
        match place.and_then(|at| self.machines.get_mut(at)) {
            Some(into) => join(into, one),
            None => self.machines.push(one),
        }
        self.by_mac.extend(macs.into_iter().map(|mac| (mac, at)));
        let now = self.machines.get(at).and_then(|machine| machine.name.as_deref());
        if let Some(name) = now.filter(|name| before.as_deref() != Some(*name)) {
            self.by_name.entry(name.to_owned()).or_default().push(at);
            if let (None, Some(label)) = (before, label(name)) {
                self.by_label.entry(label).or_default().push(at);
            }
        }
    }
}

/// Returns whether a name is of a machine: they are the same, or one of them leaves the domain open.
fn same_host(there: Option<&str>, name: &str) -> bool {
    there.is_some_and(|there| there == name || !has_domain(there) || !has_domain(name))
}

pub(super) fn has_domain(name: &str) -> bool {
    name.contains('.')
}

fn agree<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one == other,
        _ => true,
    }
}

/// Names that are given, each once.
#[derive(Default)]
pub(super) struct Given {
    taken: BTreeSet<String>,
    /// The number from which on a name is looked for.
    next: HashMap<String, usize>,
}

impl Given {
    /// Gives a name, or a similar one that nobody has yet.
    pub(super) fn free(&mut self, wanted: &str, longest: usize) -> String {
        let number = self.next.entry(wanted.to_owned()).or_insert(1);
        loop {
            let end = if *number > 1 { format!("-{number}") } else { String::new() };
            let room = wanted.len().min(longest.saturating_sub(end.len()));
            let start = wanted.get(..room).unwrap_or(wanted);
            *number += 1;
            let name = match end.as_str() {
                "" => wanted.to_owned(),
                end => format!("{}{end}", start.trim_end_matches('-')),
            };
            if self.taken.insert(name.clone()) {
                return name;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_taken_get_a_number_and_stay_as_short_as_they_may_be() {
        let mut given = Given::default();
        let long = "x".repeat(63);
        for (wanted, name) in [
            ("a", "a"),
            ("a", "a-2"),
            ("a-3", "a-3"),
            ("a", "a-4"),
            (long.as_str(), long.as_str()),
            (long.as_str(), &format!("{}-2", "x".repeat(61))),
        ] {
            assert_eq!(given.free(wanted, 63), name);
        }
    }
}
