//! The other side of DHCP: what machines ask, and what servers answer, ours or others. For `kiln doctor` and
//! `kiln simulate`; composed and read with dhcproto, so that another's hand checks ours.
//!
//! dhcproto does not take every packet: a length that is no option's makes it panic or leave out all that follows. What
//! it is given is put together here from the options that we look at, each with a length that it can have.

mod v4;
mod v6;

pub use v4::{Answer, AnswerKind, Asker, Program};
pub use v6::{Answer6, Asker6};

/// The packet says nothing that we asked for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Shorter than its fixed fields.
    #[error("packet of {0} bytes is shorter than its fixed fields")]
    Short(usize),
    /// A request, or for a network that is not Ethernet.
    #[error("not an answer to a host on Ethernet")]
    NotAnAnswer,
    /// What is behind the fixed fields is not DHCP.
    #[error("the cookie of DHCP is missing")]
    NoCookie,
    /// A message that servers do not send, or none.
    #[error("no message type of a server")]
    NoKind,
    /// What was put together cannot be read after all.
    #[error("damaged")]
    Damaged(#[source] dhcproto::error::DecodeError),
    /// The question cannot be put into a packet.
    #[error("cannot compose it")]
    Compose(#[source] dhcproto::error::EncodeError),
}
