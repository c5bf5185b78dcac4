//! What a token or a user may do: scopes, and a selector of machines.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use kiln_inventory::Selector;
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};

/// One thing that a token or a user may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Scope {
    /// Everything.
    Admin,
    /// See everything except who may come and what they did.
    Read,
    /// See and change the same.
    Write,
    /// See one kind of noun.
    ReadOf(Noun),
    /// See and change one kind of noun.
    WriteOf(Noun),
}

/// The text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no scope; use admin, read, write, or NOUN:read and NOUN:write, as machine:read")]
pub struct ParseScopeError(String);

impl FromStr for Scope {
    type Err = ParseScopeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseScopeError(text.escape_debug().take(60).collect());
        match text {
            "admin" => return Ok(Self::Admin),
            "read" => return Ok(Self::Read),
            "write" => return Ok(Self::Write),
            _ => {}
        }
        let (noun, verb) = text.split_once(':').ok_or_else(wrong)?;
        let noun: Noun = noun.parse().map_err(|_| wrong())?;
        match verb {
            // Who can make tokens can do everything; only `admin` says so.
            "read" if !noun.is_guarded() || noun == Noun::Audit => Ok(Self::ReadOf(noun)),
            "write" if !noun.is_guarded() => Ok(Self::WriteOf(noun)),
            _ => Err(wrong()),
        }
    }
}

impl TryFrom<String> for Scope {
    type Error = ParseScopeError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Scope> for String {
    fn from(scope: Scope) -> Self {
        scope.to_string()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin => f.pad("admin"),
            Self::Read => f.pad("read"),
            Self::Write => f.pad("write"),
            Self::ReadOf(noun) => write!(f, "{noun}:read"),
            Self::WriteOf(noun) => write!(f, "{noun}:write"),
        }
    }
}

impl Scope {
    /// Returns the least scope that allows something: none for what anyone may ask.
    pub(super) fn least(access: Access) -> Option<Self> {
        let needed = match access {
            Access::Anyone => return None,
            Access::Read(noun) => Self::ReadOf(noun),
            Access::Write(noun) => Self::WriteOf(noun),
        };
        // There is no scope for one of the nouns that administrators alone see.
        Some(needed.to_string().parse().unwrap_or(Self::Admin))
    }

    const fn allows(self, access: Access) -> bool {
        let (Access::Read(noun) | Access::Write(noun)) = access else { return true };
        let write = matches!(access, Access::Write(_));
        match self {
            Self::Admin => true,
            Self::Read => !write && !noun.is_guarded(),
            Self::Write => !noun.is_guarded(),
            Self::ReadOf(own) => !write && own as u8 == noun as u8,
            Self::WriteOf(own) => own as u8 == noun as u8,
        }
    }
}

/// All that somebody may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rights {
    /// Who may open the socket.
    All,
    /// Who came with a token.
    Some {
        scopes: Arc<[Scope]>,
        /// The machines; all without one.
        machines: Option<Arc<Selector>>,
    },
}

/// Why something is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// No scope allows it.
    Scope,
    /// It is not about machines, and only some machines are allowed.
    Selector,
}

impl Rights {
    /// Says whether a route may be used; which machines it shows or changes is for its handler.
    pub(super) fn check(&self, access: Access) -> Result<(), Denied> {
        let Self::Some { scopes, machines } = self else { return Ok(()) };
        let (Access::Read(noun) | Access::Write(noun)) = access else { return Ok(()) };
        if !scopes.iter().any(|scope| scope.allows(access)) {
            return Err(Denied::Scope);
        }
        if machines.is_some() && !noun.is_of_machines() {
            return Err(Denied::Selector);
        }
        Ok(())
    }

    /// Returns whether every machine may be seen.
    pub(super) const fn sees_all(&self) -> bool {
        matches!(self, Self::All | Self::Some { machines: None, .. })
    }

    /// Returns whether a machine with these labels may be seen, and changed where changes are allowed.
    pub(super) fn sees(&self, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::All | Self::Some { machines: None, .. } => true,
            Self::Some { machines: Some(selector), .. } => selector.matches(labels),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_read_as_they_are_written_and_none_is_a_way_to_more() {
        for text in ["admin", "read", "write", "machine:read", "machine:write", "audit:read"] {
            assert_eq!(text.parse::<Scope>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "root",
            "machine",
            "machine:",
            "machine:admin",
            "token:write",
            "user:read",
            "webhook:write",
            "audit:write",
            "Admin",
            "machine:read ",
        ] {
            assert!(text.parse::<Scope>().is_err(), "{text}");
        }
    }

    /// The table of the rules.
    #[test]
    fn a_scope_allows_its_own_noun_and_nothing_else() {
        let rights = |scopes: &[Scope]| Rights::Some { scopes: scopes.into(), machines: None };
        for noun in Noun::ALL {
            let (read, write) = (Access::Read(noun), Access::Write(noun));
            let is = |scope| {
                let rights = rights(&[scope]);
                (rights.check(read).is_ok(), rights.check(write).is_ok())
            };
            let open = !noun.is_guarded();
            assert_eq!(is(Scope::Admin), (true, true), "{noun}");
            assert_eq!(is(Scope::Read), (open, false), "{noun}");
            assert_eq!(is(Scope::Write), (open, open), "{noun}");
            for other in Noun::ALL {
                let same = other == noun;
                assert_eq!(is(Scope::ReadOf(other)), (same, false), "{noun} {other}");
                assert_eq!(is(Scope::WriteOf(other)), (same, same), "{noun} {other}");
            }
            assert_eq!(rights(&[]).check(read), Err(Denied::Scope), "{noun}");
            assert!(Rights::All.check(write).is_ok());
        }
        assert!(rights(&[]).check(Access::Anyone).is_ok());
    }

    #[test]
    fn the_least_scope_for_something_is_one_that_there_is_and_that_allows_it() {
        assert_eq!(Scope::least(Access::Anyone), None);
        for noun in Noun::ALL {
            for access in [Access::Read(noun), Access::Write(noun)] {
                let scope = Scope::least(access).unwrap();
                assert!(scope.allows(access), "{access}: {scope}");
                assert_eq!(scope.to_string().parse(), Ok(scope));
                assert_eq!(scope == Scope::Admin, access.to_string().parse::<Scope>().is_err());
            }
        }
        assert_eq!(Scope::least(Access::Read(Noun::Token)), Some(Scope::Admin));
    }

    #[test]
    fn who_may_have_some_machines_has_nothing_that_is_not_of_machines() {
        let machines = Some(Arc::new("rack=r1".parse::<Selector>().unwrap()));
        let rights = Rights::Some { scopes: [Scope::Admin].as_slice().into(), machines };
        for noun in Noun::ALL {
            let expected = if noun.is_of_machines() { Ok(()) } else { Err(Denied::Selector) };
            assert_eq!(rights.check(Access::Write(noun)), expected, "{noun}");
        }
        let label = |value: &str| BTreeMap::from([("rack".to_owned(), value.to_owned())]);
        assert!(rights.sees(&label("r1")) && !rights.sees(&label("r2")));
        assert!(!rights.sees(&BTreeMap::new()) && !rights.sees_all());
    }
}
