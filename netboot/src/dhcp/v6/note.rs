use std::fmt;

/// Why a request was answered as it was, or not at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// Addresses were offered.
    Offered,
    /// Addresses were given or renewed.
    Given,
    /// The rest was told to a machine that has an address.
    Informed,
    /// The addresses are right for the link.
    Confirmed,
    /// Addresses were given back.
    Released,
    /// Addresses are in use by someone else.
    Declined,
    /// The addresses are of another network.
    WrongNetwork,
    /// The plan is not to answer.
    Ignored,
    /// The client has chosen another server.
    OtherServer,
    /// The request comes from a network that is not served here.
    OtherNetwork,
    /// The client speaks of addresses that it does not have.
    NotItsAddress,
    /// Every address is taken, or none is given here.
    NoAddress,
}

impl Note {
    /// Returns the words for logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "address offered",
            Self::Given => "address given",
            Self::Informed => "options told",
            Self::Confirmed => "address is right for the link",
            Self::Released => "address given back",
            Self::Declined => "address is in use by someone else",
            Self::WrongNetwork => "address is of another network",
            Self::Ignored => "not answered, as planned",
            Self::OtherServer => "chose another server",
            Self::OtherNetwork => "comes from a network that is not served",
            Self::NotItsAddress => "speaks of an address it does not have",
            Self::NoAddress => "no address to give",
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
