use std::net::{Ipv4Addr, SocketAddrV4};

use kiln_types::Mac;

use super::option;

/// What is answered, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// This address is there for you.
    Offer,
    /// It is yours.
    Ack,
    /// Not that address; begin again.
    Nak,
    /// It is yours, said to a client of BOOTP, which knows no message types.
    Bootp,
}

impl ReplyKind {
    /// Returns the word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offer => "OFFER",
            Self::Ack => "ACK",
            Self::Nak => "NAK",
            Self::Bootp => "BOOTREPLY",
        }
    }

    /// Returns the value of option 53.
    const fn message_type(self) -> Option<u8> {
        match self {
            Self::Offer => Some(2),
            Self::Ack => Some(5),
            Self::Nak => Some(6),
            Self::Bootp => None,
        }
    }
}

/// One option of a reply. Its bytes may be more than one part holds; then it is sent in several (RFC 3396).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyOption {
    /// Its number.
    pub code: u8,
    /// Its bytes.
    pub value: Vec<u8>,
}

impl ReplyOption {
    /// Makes one of bytes.
    pub fn new(code: u8, value: impl Into<Vec<u8>>) -> Self {
        Self { code, value: value.into() }
    }

    /// Makes one of addresses.
    pub fn addresses(code: u8, addresses: &[Ipv4Addr]) -> Self {
        Self::new(code, addresses.iter().flat_map(Ipv4Addr::octets).collect::<Vec<u8>>())
    }

    /// Makes one of a number of four bytes.
    pub fn number(code: u8, number: u32) -> Self {
        Self::new(code, number.to_be_bytes())
    }

    /// Returns how much room it takes.
    fn size(&self) -> usize {
        self.value.len() + 2 * self.value.len().div_ceil(PART).max(1)
    }

    fn write(&self, out: &mut Vec<u8>) {
        let mut rest = self.value.as_slice();
        loop {
            let (part, after) = rest.split_at(rest.len().min(PART));
            out.push(self.code);
            out.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            out.extend(part);
            rest = after;
            if rest.is_empty() {
                return;
            }
        }
    }

    /// Returns whether a client can do without it.
    fn is_extra(&self) -> bool {
        use option::{
            BOOT_FILE, CLIENT_IDENTIFIER, CLIENT_UUID, IPXE, LEASE_TIME, REBINDING_TIME,
            RENEWAL_TIME, ROUTER, SERVER_IDENTIFIER, SUBNET_MASK, TFTP_SERVER, VENDOR_CLASS,
            VENDOR_SPECIFIC,
        };
        !matches!(
            self.code,
            SUBNET_MASK
                | ROUTER
                | VENDOR_SPECIFIC
                | LEASE_TIME
                | SERVER_IDENTIFIER
                | RENEWAL_TIME
                | REBINDING_TIME
                | VENDOR_CLASS
                | CLIENT_IDENTIFIER
                | TFTP_SERVER
                | BOOT_FILE
                | CLIENT_UUID
                | IPXE
        )
    }
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
    /// Options in the order in which they are sent, but for the message type and what a relay added.
    pub(crate) options: Vec<ReplyOption>,
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
/// Where the options begin, after the fixed fields and the cookie.
const OPTIONS_AT: usize = 240;
/// The fields `sname` and `file`, where options may be when they find no room behind the cookie.
const SNAME_AT: usize = 44;
const FILE_AT: usize = 108;
/// Lengths of the two without the byte that ends them.
const SNAME: usize = 63;
const FILE: usize = 127;
/// Longest part of one option.
const PART: usize = 255;

/// The reply cannot be sent.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum EncodeError {
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
    /// What finds no room behind the cookie goes to the fields `file` and `sname`, if they are free (option 52), and
    /// what finds none there either is left out when a client can do without it, the last first.
    ///
    /// # Errors
    ///
    /// Returns an error when what is left is longer than the client can take.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let told = self.max_size.map_or(MAX, |size| usize::from(size).saturating_sub(HEADERS));
        let max = told.clamp(ALWAYS_TAKEN, MAX);
        let named = (1..=FILE).contains(&self.file.len());
        let kind = self.kind.message_type().map(|kind| [option::MESSAGE_TYPE, 1, kind]);
        let around = OPTIONS_AT + kind.map_or(0, |kind| kind.len()) + self.relay_agent.len() + 1;
        let whole: usize = around + self.options.iter().map(ReplyOption::size).sum::<usize>();
        let mut areas = if whole <= max {
            Areas { main: max - around, file: 0, sname: 0, placed: Placed::default() }
        } else {
            let left = max.checked_sub(around + 3);
            let main = left.ok_or(EncodeError::TooLong { size: around + 3, max })?;
            let file = if named { 0 } else { FILE };
            Areas { main, file, sname: SNAME, placed: Placed::default() }
        };
        for option in &self.options {
            if !areas.place(option) && !option.is_extra() {
                return Err(EncodeError::TooLong { size: whole, max });
            }
        }
        let Placed { main, file, sname } = areas.placed;
        let mut out = self.fixed_fields();
        if let Some(kind) = kind {
            out.extend(kind);
        }
        let overload = u8::from(!file.is_empty()) | u8::from(!sname.is_empty()) << 1;
        if overload != 0 {
            out.extend([option::OVERLOAD, 1, overload]);
        }
        out.extend(main);
        // As the last option and without a change (RFC 3046 §2.2).
        out.extend(&self.relay_agent);
        out.push(option::END);
        if named {
            fill(&mut out, FILE_AT, self.file.as_bytes());
        }
        for (at, mut area) in [(FILE_AT, file), (SNAME_AT, sname)] {
            if !area.is_empty() {
                area.push(option::END);
                fill(&mut out, at, &area);
            }
        }
        out.resize(out.len().max(MIN), 0);
        Ok(out)
    }

    /// Returns everything up to the cookie, with empty names.
    fn fixed_fields(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MIN * 2);
        out.extend([2, 1, 6, 0]);
        out.extend(self.xid.to_be_bytes());
        out.extend([0, 0]);
        out.extend(self.flags.to_be_bytes());
        for address in [self.ciaddr, self.yiaddr, self.siaddr, self.giaddr] {
            out.extend(address.octets());
        }
        out.extend(self.mac.octets());
        out.resize(OPTIONS_AT - 4, 0);
        out.extend(super::wire::COOKIE);
        out
    }
}

fn fill(out: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(field) = out.get_mut(at..at + bytes.len()) {
        field.copy_from_slice(bytes);
    }
}

/// The room that is left in each place for options, and what is there already.
struct Areas {
    main: usize,
    file: usize,
    sname: usize,
    placed: Placed,
}

#[derive(Default)]
struct Placed {
    main: Vec<u8>,
    file: Vec<u8>,
    sname: Vec<u8>,
}

impl Areas {
    /// Puts an option, whole, into the first place that has room for it.
    fn place(&mut self, option: &ReplyOption) -> bool {
        let places = [
            (&mut self.main, &mut self.placed.main),
            (&mut self.file, &mut self.placed.file),
            (&mut self.sname, &mut self.placed.sname),
        ];
        for (room, area) in places {
            if let Some(left) = room.checked_sub(option.size()) {
                *room = left;
                option.write(area);
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
#[path = "encode_tests.rs"]
mod tests;
