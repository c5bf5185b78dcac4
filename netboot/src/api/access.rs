//! What may be asked for: every route names a noun and whether it reads or writes.

use std::fmt;

/// What a route is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Noun {
    /// Machines and what is known of them.
    Machine,
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
}

impl Noun {
    /// Returns its word.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Boot => "boot",
            Self::Lease => "lease",
            Self::Order => "order",
            Self::Image => "image",
            Self::Build => "build",
        }
    }
}

impl fmt::Display for Noun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
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
