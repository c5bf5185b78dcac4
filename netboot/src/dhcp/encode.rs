use std::net::{Ipv4Addr, SocketAddrV4};

use dhcproto::Encodable as _;
use dhcproto::v4::{DhcpOption, DhcpOptions, Flags, Message, MessageType, Opcode};
use kiln_types::Mac;

/// What is answered, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// This address is there for you.
    Offer,
    /// It is yours.
    Ack,
    /// Not that address; begin again.
    Nak,
}

/// One reply, not yet bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What is answered.
    pub kind: ReplyKind,
    /// Number of the request.
    pub xid: u32,
    /// Flags of the request.
    pub flags: u16,
    /// Address the client has.
    pub ciaddr: Ipv4Addr,
    /// Address the client gets.
    pub yiaddr: Ipv4Addr,
    /// Server of the boot file.
    pub siaddr: Ipv4Addr,
    /// Relay that the request came by.
    pub giaddr: Ipv4Addr,
    /// Hardware address of the client.
    pub mac: Mac,
    /// Boot file, for clients that do not read option 67. Left out when the field is too short for it.
    pub file: String,
    /// Options, but for the message type and what a relay added.
    pub(crate) options: Vec<DhcpOption>,
    /// Option 82 as the relay sent it.
    pub relay_agent: Vec<u8>,
    /// The longest message that the client takes, as it told with headers.
    pub max_size: Option<u16>,
    /// Where the reply goes.
    pub to: SocketAddrV4,
    /// Our address that it comes from.
    pub from: Ipv4Addr,
}

/// Relays and old clients want at least a BOOTP packet (RFC 1542 §2.1).
const MIN: usize = 300;
/// EDK2 drops what is longer, whatever it says in option 57.
const MAX: usize = 1472;
/// Headers of IP and UDP, which option 57 counts in.
const HEADERS: usize = 28;
/// The smallest message that every client has to take (RFC 2131 §2), without headers.
const ALWAYS_TAKEN: usize = 576 - HEADERS;
/// Length of the `file` field without the zero that ends it.
const FILE: usize = 127;

/// The reply cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// A value does not fit into its option.
    #[error("a reply could not be encoded")]
    Encode(#[source] dhcproto::error::EncodeError),
    /// The client or the network does not take so long a reply.
    #[error("a reply of {size} bytes is longer than the {max} that the client takes")]
    TooLong {
        /// Length of the reply.
        size: usize,
        /// The longest one that is taken.
        max: usize,
    },
}

impl Reply {
    /// Returns a reply that says nothing.
    #[cfg(test)]
    pub(super) fn empty(kind: ReplyKind) -> Self {
        let none = Ipv4Addr::UNSPECIFIED;
        Self {
            kind,
            xid: 1,
            flags: 0,
            ciaddr: none,
            yiaddr: none,
            siaddr: none,
            giaddr: none,
            mac: Mac::new([2, 0, 0, 0, 0, 1]),
            file: String::new(),
            options: vec![],
            relay_agent: vec![],
            max_size: None,
            to: SocketAddrV4::new(none, 0),
            from: none,
        }
    }

    /// Returns the bytes to send.
    ///
    /// # Errors
    ///
    /// Returns an error when the reply is longer than the client can take.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let mut message = Message::new_with_id(
            self.xid,
            self.ciaddr,
            self.yiaddr,
            self.siaddr,
            self.giaddr,
            &self.mac.octets(),
        );
        message.set_opcode(Opcode::BootReply).set_flags(Flags::new(self.flags));
        if (1..=FILE).contains(&self.file.len()) {
            message.set_fname(self.file.as_bytes());
        }
        let mut options: DhcpOptions = self.options.iter().cloned().collect();
        options.insert(DhcpOption::MessageType(match self.kind {
            ReplyKind::Offer => MessageType::Offer,
            ReplyKind::Ack => MessageType::Ack,
            ReplyKind::Nak => MessageType::Nak,
        }));
        message.set_opts(options);
        let mut bytes = message.to_vec().map_err(EncodeError::Encode)?;
        if bytes.last() == Some(&super::option::END) {
            bytes.pop();
        }
        // As the last option and without a change (RFC 3046 §2.2).
        bytes.extend(&self.relay_agent);
        bytes.push(super::option::END);
        let told = self.max_size.map_or(MAX, |size| usize::from(size).saturating_sub(HEADERS));
        let max = told.clamp(ALWAYS_TAKEN, MAX);
        if bytes.len() > max {
            return Err(EncodeError::TooLong { size: bytes.len(), max });
        }
        bytes.resize(bytes.len().max(MIN), 0);
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply() -> Reply {
        Reply {
            xid: 7,
            flags: 0x8000,
            yiaddr: [10, 0, 0, 9].into(),
            siaddr: [10, 0, 0, 1].into(),
            file: "ipxe/undionly.kpxe".into(),
            options: vec![DhcpOption::ServerIdentifier([10, 0, 0, 1].into())],
            to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
            ..Reply::empty(ReplyKind::Offer)
        }
    }

    #[test]
    fn a_short_reply_is_padded() {
        let bytes = reply().encode().unwrap();
        assert_eq!(bytes.len(), MIN);
        assert_eq!(&bytes[..8], [2, 1, 6, 0, 0, 0, 0, 7]);
        assert_eq!(&bytes[108..127], b"ipxe/undionly.kpxe\0");
        assert_eq!(&bytes[240..250], [53, 1, 2, 54, 4, 10, 0, 0, 1, 255]);
    }

    #[test]
    fn option_82_is_the_last_and_unchanged() {
        let relay_agent = vec![82, 4, 2, 2, 9, 9, 82, 3, 1, 1, 7];
        let bytes = Reply { relay_agent: relay_agent.clone(), ..reply() }.encode().unwrap();
        assert_eq!(&bytes[249..260], relay_agent);
        assert_eq!(bytes[260], 255);
    }

    #[test]
    fn a_reply_is_never_longer_than_the_client_takes() {
        let long = |length: usize, max_size| {
            let mut relay_agent = vec![82, 255];
            relay_agent.resize(length, 0);
            Reply { relay_agent, max_size, ..reply() }.encode().map(|bytes| bytes.len())
        };
        assert_eq!(long(MAX - 250, None).unwrap(), MAX);
        assert_eq!(long(MAX - 250, Some(0xff00)).unwrap(), MAX);
        assert!(matches!(long(MAX - 249, None), Err(EncodeError::TooLong { size: 1473, .. })));
        assert!(matches!(long(600, Some(576)), Err(EncodeError::TooLong { max: 548, .. })));
        assert_eq!(long(200, Some(0)).unwrap(), 450);
    }

    #[test]
    fn a_file_that_the_field_cannot_hold_is_left_out_of_it() {
        let bytes = Reply { file: "x".repeat(128), ..reply() }.encode().unwrap();
        assert!(bytes[108..236].iter().all(|byte| *byte == 0));
        let bytes = Reply { file: "x".repeat(127), ..reply() }.encode().unwrap();
        assert_eq!((bytes[234], bytes[235]), (b'x', 0));
    }
}
