use super::expected::describe;
use super::{Action, Discovered, DiscoveryRule, Expected};
use crate::{Clue, Likeness, NewMachine};

/// Everything that matters to an entry besides itself.
#[derive(Clone, Copy)]
pub struct World<'a> {
    /// The rules, the strongest first.
    pub rules: &'a [DiscoveryRule],
    /// The machines that are to come, oldest first.
    pub expected: &'a [Expected],
    /// The machines that it looks like, the likeliest first.
    pub looks_like: &'a [Likeness],
    /// Another entry that has its UUID or serial number.
    pub twin: Option<&'a Discovered>,
    /// Whether a machine has a name already.
    pub is_taken: &'a dyn Fn(&str) -> bool,
}

impl std::fmt::Debug for World<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("World").field("rules", &self.rules.len()).finish_non_exhaustive()
    }
}

/// What an entry turns into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Becomes {
    /// The machine.
    pub machine: NewMachine,
    /// The rule that approved it.
    pub rule: Option<String>,
    /// The expected machine that it is.
    pub expected: Option<String>,
}

/// What rules and lists make of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is a machine.
    Machine(Box<Becomes>),
    /// It is none of ours.
    Ignore {
        /// The rule that says so.
        rule: String,
    },
    /// A person has to look at it.
    Hold {
        /// The rule that says so.
        rule: Option<String>,
        /// Why it is not approved.
        why: Option<String>,
    },
    /// Nothing says anything about it.
    Wait,
}

/// Settles what becomes of an entry, by nothing but its arguments: the expected machine that it is, else the first rule
/// that is about it. Never approves what says to be a box that there is.
pub fn settle(entry: &Discovered, vendor: &str, world: &World<'_>) -> Settled {
    let hold = |rule: Option<&str>, why: String| Settled::Hold {
        rule: rule.map(str::to_owned),
        why: Some(why),
    };
    let becomes = |machine: NewMachine, rule: Option<&str>, expected: Option<&str>| {
        let own = |text: Option<&str>| text.map(str::to_owned);
        let (rule, expected) = (own(rule), own(expected));
        Settled::Machine(Box::new(Becomes { machine, rule, expected }))
    };
    let mut these = world.expected.iter().filter(|expected| expected.is(entry));
    match (these.next(), these.next()) {
        (Some(a), Some(b)) => {
            let why = format!("it may be the expected `{}` or `{}`", a.name, b.name);
            return hold(None, why);
        }
        (Some(expected), None) => {
            return match obstacle(entry, world) {
                Some(why) => {
                    hold(None, format!("it is the expected `{}`, but {why}", expected.name))
                }
                None if (world.is_taken)(&expected.name) => hold(
                    None,
                    format!(
                        "it is the expected `{0}`, and there is a machine `{0}`",
                        expected.name
                    ),
                ),
                None => becomes(expected.machine(entry), None, Some(&expected.name)),
            };
        }
        (None, _) => {}
    }
    let Some(rule) = world.rules.iter().find(|rule| rule.matches(entry, vendor)) else {
        return Settled::Wait;
    };
    let name = rule.name.as_str();
    match rule.action {
        Action::Ignore => return Settled::Ignore { rule: name.to_owned() },
        Action::Hold => return Settled::Hold { rule: Some(name.to_owned()), why: None },
        Action::Approve => {}
    }
    if let Some(why) = obstacle(entry, world) {
        return hold(Some(name), why);
    }
    let (mut machine, expected) = if let Some(list) = &rule.list {
        let next = world.expected.iter().find(|expected| {
            !expected.is_known()
                && expected.list.as_ref() == Some(list)
                && !(world.is_taken)(&expected.name)
        });
        let Some(next) = next else {
            return hold(Some(name), format!("no machine of the list `{list}` is left"));
        };
        (next.machine(entry), Some(next.name.as_str()))
    } else if let Some(template) = &rule.machine_name {
        let made = template.fill(
            &entry.attributes(vendor),
            |path| entry.fact(path),
            |name| (world.is_taken)(name) || world.expected.iter().any(|e| e.name == name),
        );
        match made {
            Ok(made) => (describe(&made, entry), None),
            Err(why) => return hold(Some(name), why),
        }
    } else {
        return hold(Some(name), "the rule gives it no name".to_owned());
    };
    for (key, value) in &rule.labels {
        machine.labels.entry(key.clone()).or_insert_with(|| value.clone());
    }
    becomes(machine, Some(name), expected)
}

/// Returns why nobody but a person may approve an entry.
fn obstacle(entry: &Discovered, world: &World<'_>) -> Option<String> {
    let tells = |clue: &Clue| !matches!(clue, Clue::Memory(..));
    let alike = world.looks_like.iter().find(|like| like.is_match() || like.same.iter().any(tells));
    if let Some(like) = alike {
        return Some(like.to_string());
    }
    let twin = world.twin?;
    let mac = twin.macs.first().or_else(|| entry.macs.first())?;
    Some(format!("its UUID or serial number is that of the entry of {mac} as well"))
}
