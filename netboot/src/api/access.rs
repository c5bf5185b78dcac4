//! What may be asked for: every route names a noun and whether it reads or writes.

use std::fmt;
use std::str::FromStr;

/// What a route is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Noun {
    /// Machines and what is known of them.
    Machine,
    /// Groups of machines.
    Group,
    /// Machines that nobody has added, and rules for them.
    Discovery,
    /// Boots.
    Boot,
    /// Leases.
    Lease,
    /// What running machines are told to do.
    Order,
    /// Images, and which version a channel names.
    Image,
    /// Builds of the server.
    Build,
    /// What happens.
    Event,
    /// Who may come.
    Token,
    /// Users.
    User,
    /// Who is told what happens.
    Webhook,
    /// What only machines are told.
    Secret,
    /// Who did what.
    Audit,
}

impl Noun {
    /// Every noun.
    pub const ALL: [Self; 14] = [
        Self::Machine,
        Self::Group,
        Self::Discovery,
        Self::Boot,
        Self::Lease,
        Self::Order,
        Self::Image,
        Self::Build,
        Self::Event,
        Self::Token,
        Self::User,
        Self::Webhook,
        Self::Secret,
        Self::Audit,
    ];

    /// Returns its word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Group => "group",
            Self::Discovery => "discovery",
            Self::Boot => "boot",
            Self::Lease => "lease",
            Self::Order => "order",
            Self::Image => "image",
            Self::Build => "build",
            Self::Event => "event",
            Self::Token => "token",
            Self::User => "user",
            Self::Webhook => "webhook",
            Self::Secret => "secret",
            Self::Audit => "audit",
        }
    }

    /// Returns whether it is about who may do what, which only administrators may see or change.
    pub const fn is_guarded(self) -> bool {
        matches!(self, Self::Token | Self::User | Self::Webhook | Self::Secret | Self::Audit)
    }

    /// Returns whether each of it belongs to a machine, so that a selector can tell who may have it.
    pub const fn is_of_machines(self) -> bool {
        matches!(self, Self::Machine | Self::Boot | Self::Lease | Self::Order | Self::Event)
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// No noun has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no such noun")]
pub struct ParseNounError;

impl FromStr for Noun {
    type Err = ParseNounError;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|noun| noun.as_str() == word).ok_or(ParseNounError)
    }
}

/// What a route needs of who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Nothing: it tells nothing that is not in the documentation, or is how one logs in.
    Anyone,
    /// To see nouns.
    Read(Noun),
    /// To change nouns.
    Write(Noun),
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.pad("anyone"),
            Self::Read(noun) => write!(f, "{noun}:read"),
            Self::Write(noun) => write!(f, "{noun}:write"),
        }
    }
}
