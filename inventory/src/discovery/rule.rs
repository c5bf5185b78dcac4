use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{ATTRIBUTES, Discovered, NameTemplate, is_attribute};
use crate::{Document, Selector, Term, is_label};

/// What a rule does with a machine that nobody has added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Makes a machine of it.
    Approve,
    /// Leaves it alone: it gets no answer.
    Ignore,
    /// Leaves it to a person, whatever weaker rules say.
    Hold,
}

/// What becomes of machines that nobody has added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DiscoveryRule {
    /// Unique name.
    pub name: String,
    /// Which machines: terms about vendor, arch, firmware, mac, oui, uuid, serial, asset-tag, hostname, subnet, relay,
    /// circuit-id, vendor-class, duid and facts.PATH.
    pub selector: Selector,
    /// Which rule is looked at first: the one with the highest number, then the one whose name comes first.
    #[serde(default)]
    pub priority: i32,
    /// What it does.
    pub action: Action,
    /// How the machines are named.
    #[serde(default, rename = "machine-name", skip_serializing_if = "Option::is_none")]
    pub machine_name: Option<NameTemplate>,
    /// The list of expected machines that gives the names instead, in its order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Labels of the machines.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl DiscoveryRule {
    /// Orders rules, the strongest first.
    pub fn by_strength(&self, other: &Self) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| self.name.cmp(&other.name))
    }

    /// Returns whether it is about this entry.
    pub fn matches(&self, entry: &Discovered, vendor: &str) -> bool {
        entry.fits(&self.selector, vendor)
    }
}

impl Discovered {
    /// Returns whether it is what a selector of rules asks for.
    pub fn fits(&self, selector: &Selector, vendor: &str) -> bool {
        let mut values = self.attributes(vendor);
        for term in selector.terms() {
            if let Some(path) = term.key().strip_prefix("facts.")
                && let Some(fact) = self.fact(path)
            {
                values.insert(term.key().to_owned(), fact);
            }
        }
        selector.matches(&values)
    }

    /// Looks whether a selector asks for nothing but what is seen of machines.
    ///
    /// # Errors
    ///
    /// Says what is never seen, and what is.
    pub fn can_be_asked(selector: &Selector) -> Result<(), String> {
        let Some(term) = selector.terms().iter().find(|term| !is_attribute(term.key())) else {
            return Ok(());
        };
        let (key, all) = (term.key(), ATTRIBUTES.join(", "));
        Err(format!("`{key}` is nothing that is seen of a machine; use {all} or facts.PATH"))
    }
}

impl Document for DiscoveryRule {
    const NOUN: &'static str = "discovery-rule";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, selector, action, machine_name, list, labels, .. } = self;
        check_name("discovery rule", name)?;
        Discovered::can_be_asked(selector).map_err(|why| format!("rule `{name}`: {why}"))?;
        match (action, machine_name, list) {
            (Action::Approve, Some(_), None) | (Action::Approve, None, Some(_)) => {}
            (Action::Approve, ..) => {
                return Err(format!(
                    "rule `{name}` approves, so it needs either a template for names, as rack1-{{n:02}}, or a list"
                ));
            }
            (_, None, None) if labels.is_empty() => {}
            _ => {
                return Err(format!(
                    "rule `{name}` approves nothing; leave out its template, list and labels"
                ));
            }
        }
        if let Some(list) = list {
            check_name("list", list)?;
        }
        check_labels(&format!("rule `{name}`"), labels)
    }
}

/// Refuses what cannot be the name of a rule or of a list.
pub(super) fn check_name(what: &str, name: &str) -> Result<(), String> {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let good = name.bytes().next().is_some_and(plain)
        && name.len() <= 63
        && name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'));
    if good {
        return Ok(());
    }
    let shown: String = name.escape_debug().take(80).collect();
    Err(format!(
        "`{shown}` cannot be the name of a {what}; use at most 63 lower-case letters, digits, `-`, `_` and `.`, with a \
         letter or digit first"
    ))
}

pub(super) fn check_labels(whose: &str, labels: &BTreeMap<String, String>) -> Result<(), String> {
    let wrong = |text: &String| text.len() > 256 || text.chars().any(char::is_control);
    if labels.len() > 64 {
        return Err(format!("{whose} has more than 64 labels"));
    }
    if let Some((key, _)) = labels.iter().find(|(_, value)| wrong(value)) {
        let key: String = key.escape_debug().take(80).collect();
        return Err(format!(
            "{whose}: the value of label `{key}` is longer than 256 bytes or has a control character"
        ));
    }
    match labels.keys().find(|key| !is_label(key) || wrong(key)) {
        None => Ok(()),
        Some(key) => {
            let key: String = key.escape_debug().take(80).collect();
            Err(format!(
                "{whose}: `{key}` cannot be the name of a label; use letters, digits and - _ . / : + @"
            ))
        }
    }
}

impl Term {
    /// Returns the name of what it is about.
    pub fn key(&self) -> &str {
        match self {
            Self::In(key, _) | Self::IsNot(key, _) | Self::Has(key) | Self::HasNot(key) => key,
        }
    }
}
