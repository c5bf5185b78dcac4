//! Finds the groups of a machine without asking each of them: a hundred groups and a hundred thousand machines are ten
//! million questions, of which nearly all have the answer no.

use std::collections::{BTreeMap, HashMap};

use crate::{Group, Term};

/// Groups by a label that their machines must have.
#[derive(Debug, Default)]
pub(crate) struct GroupIndex<'a> {
    by_value: HashMap<(&'a str, &'a str), Vec<u32>>,
    by_key: HashMap<&'a str, Vec<u32>>,
    /// Groups that a machine without any label can be in.
    others: Vec<u32>,
}

impl<'a> GroupIndex<'a> {
    pub(crate) fn new(groups: &[&'a Group]) -> Self {
        let mut all = Self::default();
        for (number, group) in (0_u32..).zip(groups) {
            let terms = group.selector.terms();
            let value = terms.iter().find_map(|term| match term {
                Term::In(key, values) => Some((key, values)),
                _ => None,
            });
            let key = terms.iter().find_map(|term| match term {
                Term::Has(key) => Some(key),
                _ => None,
            });
            match (value, key) {
                (Some((key, values)), _) => {
                    for value in values {
                        all.by_value.entry((key, value)).or_default().push(number);
                    }
                }
                (None, Some(key)) => all.by_key.entry(key).or_default().push(number),
                (None, None) => all.others.push(number),
            }
        }
        all
    }

    /// Returns the numbers of the groups of a machine with these labels, in ascending order.
    pub(crate) fn matching(
        &self,
        groups: &[&Group],
        labels: &BTreeMap<String, String>,
    ) -> Vec<u32> {
        let mut found = self.others.clone();
        for (key, value) in labels {
            found.extend(self.by_value.get(&(key.as_str(), value.as_str())).into_iter().flatten());
            found.extend(self.by_key.get(key.as_str()).into_iter().flatten());
        }
        found.retain(|number| groups[*number as usize].selector.matches(labels));
        found.sort_unstable();
        found.dedup();
        found
    }
}
