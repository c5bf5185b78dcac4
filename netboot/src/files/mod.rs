//! Files that describe the inventory: what `kiln apply` reads and `kiln export` writes.
//!
//! ```text
//!  directory ──▶ gather ──▶ (name, text) ──▶ read ──▶ Described: each noun with its place
//!                                                        │ put together, twice is wrong
//!                                                        ▼
//!  POST /api/v1/apply ◀── Wanted ── and back: a pointer of the server's answer ──▶ file:line:column
//! ```
//!
//! A noun that files can describe is a list in [`Wanted`] and in `Lists`, and a line in each `match` over them.

mod gather;
mod read;
mod schema;
mod table;
mod write;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use kiln_builder::spec::{Place, SpecError};
use kiln_inventory::{DiscoveryRule, Group, NewMachine, Wanted};
use serde::Deserialize;

pub use self::gather::{Gathered, gather, gather_text, source_of};
pub use self::read::{Format, read};
pub use self::schema::json_schema;
pub use self::table::read_table;
pub use self::write::{Style, write};

/// A description in files, each noun with the place where it is.
#[derive(Debug, Default)]
pub struct Described {
    /// What they say.
    pub wanted: Wanted,
    /// Where each machine is, in the order of the list.
    pub machines: Vec<Place>,
    /// Where each group is.
    pub groups: Vec<Place>,
    /// Where each rule is.
    pub discovery_rules: Vec<Place>,
}

/// Files cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FilesError {
    /// One cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is more than an inventory can be.
    #[error("{}: {what}", .path.display())]
    TooMuch {
        /// Where.
        path: PathBuf,
        /// What is too much.
        what: String,
    },
    /// Places that are wrong.
    #[error("{0}")]
    Wrong(Problems),
}

/// Places that are wrong, one in each line.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

/// Places that are named at a time.
const MOST_SHOWN: usize = 20;

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0[..self.0.len().min(MOST_SHOWN)].join("\n"))?;
        match self.0.len().saturating_sub(MOST_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl Described {
    /// Reads every file and puts together what they say.
    ///
    /// # Errors
    ///
    /// Names every file that is wrong, or every noun that is there twice.
    pub fn of(files: &[Gathered]) -> Result<Self, FilesError> {
        let mut all = Self::default();
        let mut problems = Vec::new();
        for Gathered { name, format, text } in files {
            match read(name, *format, text) {
                Ok(read) => all.join(read),
                Err(SpecError::Wrong { place, problem }) => {
                    problems.push(format!("{place}: {problem}"));
                }
                Err(error) => problems.push(crate::cli::chain(&error)),
            }
        }
        if problems.is_empty() {
            problems = all.twice();
        }
        if problems.is_empty() { Ok(all) } else { Err(FilesError::Wrong(Problems(problems))) }
    }

    fn join(&mut self, other: Self) {
        self.wanted.machines.extend(other.wanted.machines);
        self.wanted.groups.extend(other.wanted.groups);
        self.machines.extend(other.machines);
        self.groups.extend(other.groups);
        self.wanted.discovery_rules.extend(other.wanted.discovery_rules);
        self.discovery_rules.extend(other.discovery_rules);
    }

    /// Finds what two nouns cannot both have, and names both places.
    fn twice(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut seen: HashMap<String, &Place> = HashMap::new();
        let mut once = |what: String, place| {
            if let Some(first) = seen.get(&what) {
                problems.push(format!("{place}: {what} is at {first} already; say it once"));
            } else {
                seen.insert(what, place);
            }
        };
        for (machine, place) in self.wanted.machines.iter().zip(&self.machines) {
            once(format!("machine `{}`", quoted(&machine.name)), place);
            for mac in &machine.macs {
                once(format!("the MAC address {mac}"), place);
            }
            if let Some(address) = machine.address {
                once(format!("the address {address}"), place);
            }
            if let Some(address) = machine.address6 {
                once(format!("the address {address}"), place);
            }
        }
        for (group, place) in self.wanted.groups.iter().zip(&self.groups) {
            once(format!("group `{}`", quoted(&group.name)), place);
        }
        for (rule, place) in self.wanted.discovery_rules.iter().zip(&self.discovery_rules) {
            once(format!("discovery rule `{}`", quoted(&rule.name)), place);
        }
        problems
    }

    /// Returns the place that a server means by a JSON pointer: `/files/machines/3/macs`.
    pub fn place(&self, pointer: &str) -> Option<&Place> {
        let mut parts = pointer.strip_prefix("/files/")?.split('/');
        let (list, index) = (parts.next()?, parts.next()?);
        self.place_in(list, index.parse().ok()?)
    }

    /// Returns the place of what is so far behind in a list.
    pub fn place_in(&self, list: &str, index: usize) -> Option<&Place> {
        let places = match list {
            "machines" => &self.machines,
            "groups" => &self.groups,
            "discovery-rules" => &self.discovery_rules,
            _ => return None,
        };
        places.get(index)
    }
}

/// Shortens a text for a message, and takes out what would disturb a terminal.
fn quoted(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

/// The lists of one file. What they hold knows its place, each format in its own way.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    bound = "M: Deserialize<'de>, G: Deserialize<'de>, R: Deserialize<'de>"
)]
struct Lists<M, G, R> {
    #[serde(default = "Vec::new")]
    machines: Vec<M>,
    #[serde(default = "Vec::new")]
    groups: Vec<G>,
    #[serde(default = "Vec::new", rename = "discovery-rules")]
    discovery_rules: Vec<R>,
}

/// What a file holds before its places are known.
trait Part<T> {
    fn part(self, file: &str, text: &str) -> (T, Place);
}

impl<M, G, R> Lists<M, G, R> {
    fn described(self, file: &str, text: &str) -> Described
    where
        M: Part<NewMachine>,
        G: Part<Group>,
        R: Part<DiscoveryRule>,
    {
        let mut all = Described::default();
        for machine in self.machines {
            let (machine, place) = machine.part(file, text);
            all.wanted.machines.push(machine);
            all.machines.push(place);
        }
        for group in self.groups {
            let (group, place) = group.part(file, text);
            all.wanted.groups.push(group);
            all.groups.push(place);
        }
        for rule in self.discovery_rules {
            let (rule, place) = rule.part(file, text);
            all.wanted.discovery_rules.push(rule);
            all.discovery_rules.push(place);
        }
        all
    }
}

#[cfg(test)]
mod tests;
