//! Reads DHCPv4 requests (RFC 2131 §2). Everything about lengths is settled here, once.
//!
//! Options are read one by one, each as raw bytes, and only those that we use are looked into: one option that
//! makes no sense never hides the others.
#![warn(clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kiln_types::Mac;

use super::option;

/// Where the options begin, after the fixed fields and the cookie.
const OPTIONS_AT: usize = 240;
/// The first four bytes of the options (RFC 2132 §2).
pub(super) const COOKIE: [u8; 4] = [99, 130, 83, 99];

/// What a client asks for (option 53).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which addresses are there?
    Discover,
    /// May I have or keep this one?
    Request,
    /// Someone else uses this one.
    Decline,
    /// I no longer need mine.
    Release,
    /// I have an address; tell me the rest.
    Inform,
    /// No option 53: which address is mine, for ever (RFC 951)?
    Bootp,
}

impl Kind {
    /// Returns the word of the protocol.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Discover => "DISCOVER",
            Self::Request => "REQUEST",
            Self::Decline => "DECLINE",
            Self::Release => "RELEASE",
            Self::Inform => "INFORM",
            Self::Bootp => "BOOTREQUEST",
        }
    }
}

/// A DHCPv4 request whose fixed fields make sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub kind: Kind,
    /// Number that the reply repeats.
    pub xid: u32,
    /// Seconds since the client began.
    pub secs: u16,
    /// Flags, of which the highest bit asks for a broadcast reply.
    pub flags: u16,
    /// Address that the client has, or zero.
    pub ciaddr: Ipv4Addr,
    /// Relay that passed the packet on, or zero.
    pub giaddr: Ipv4Addr,
    /// Hardware address of the client.
    pub mac: Mac,
    options: BTreeMap<u8, Vec<u8>>,
    relay_agent: Vec<u8>,
}

/// Why a packet is not a request that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than the fixed fields.
    #[error("packet of {0} bytes is shorter than the {OPTIONS_AT} that DHCP needs")]
    Short(usize),
    /// Not a request.
    #[error("operation {0} is not a request")]
    NotARequest(u8),
    /// Not Ethernet.
    #[error("hardware type {htype} with addresses of {hlen} bytes is not Ethernet")]
    NotEthernet {
        /// Hardware type.
        htype: u8,
        /// Length of addresses.
        hlen: u8,
    },
    /// The hardware address names no interface.
    #[error("hardware address {0} names no interface")]
    NotAnInterface(Mac),
    /// What is behind the fixed fields is neither DHCP nor BOOTP.
    #[error("the cookie of DHCP is missing")]
    NoCookie,
    /// Damaged where the message type has to be.
    #[error("no message type that can be read")]
    NoKind,
    /// A message of a server, or one that we do not know.
    #[error("message type {0} is not one that clients send to servers")]
    OtherKind(u8),
}

impl Request {
    /// Reads one packet.
    ///
    /// # Errors
    ///
    /// Returns why the packet is to be dropped. Damaged options are no reason; they are left out.
    pub fn decode(packet: &[u8]) -> Result<Self, WireError> {
        let short = || WireError::Short(packet.len());
        let [op, htype, hlen, _hops] = field(packet, 0).ok_or_else(short)?;
        let area = packet.get(OPTIONS_AT..).ok_or_else(short)?;
        if op != 1 {
            return Err(WireError::NotARequest(op));
        }
        if (htype, hlen) != (1, 6) {
            return Err(WireError::NotEthernet { htype, hlen });
        }
        let mac = Mac::new(field(packet, 28).ok_or_else(short)?);
        if !mac.is_unicast() {
            return Err(WireError::NotAnInterface(mac));
        }
        let mut options = Options::default();
        match field(packet, 236) {
            Some(COOKIE) => options.read(area),
            // BOOTP as it was before it had options.
            Some([0, 0, 0, 0]) => {}
            _ => return Err(WireError::NoCookie),
        }
        // RFC 2131 §4.1: when option 52 says so, `file` and then `sname` hold options too.
        let overload = options.byte(option::OVERLOAD).unwrap_or(0);
        if overload & 1 != 0 {
            options.read(packet.get(108..236).unwrap_or_default());
        }
        if overload & 2 != 0 {
            options.read(packet.get(44..108).unwrap_or_default());
        }
        let kind = match options.byte(option::MESSAGE_TYPE) {
            Some(1) => Kind::Discover,
            Some(3) => Kind::Request,
            Some(4) => Kind::Decline,
            Some(7) => Kind::Release,
            Some(8) => Kind::Inform,
            Some(other) => return Err(WireError::OtherKind(other)),
            None if options.cut || options.values.contains_key(&option::MESSAGE_TYPE) => {
                return Err(WireError::NoKind);
            }
            None => Kind::Bootp,
        };
        Ok(Self {
            kind,
            xid: u32::from_be_bytes(field(packet, 4).ok_or_else(short)?),
            secs: u16::from_be_bytes(field(packet, 8).ok_or_else(short)?),
            flags: u16::from_be_bytes(field(packet, 10).ok_or_else(short)?),
            ciaddr: field::<4>(packet, 12).ok_or_else(short)?.into(),
            giaddr: field::<4>(packet, 24).ok_or_else(short)?.into(),
            mac,
            options: options.values,
            relay_agent: options.relay_agent,
        })
    }

    /// Returns the bytes of an option, joined where it came in parts (RFC 3396).
    pub fn option(&self, code: u8) -> Option<&[u8]> {
        self.options.get(&code).map(Vec::as_slice)
    }

    /// Returns option 82 as it came, headers included, to be sent back without a change (RFC 3046 §2.2).
    pub fn relay_agent(&self) -> &[u8] {
        &self.relay_agent
    }

    /// Returns the network that a relay says the client is in (sub-option 5, RFC 3527).
    pub fn link_selection(&self) -> Option<Ipv4Addr> {
        self.relay_sub_option(option::relay::LINK_SELECTION)
    }

    /// Returns the address that a relay wants us to call ourselves by (sub-option 11, RFC 5107), so that clients
    /// send it what they renew.
    pub fn server_override(&self) -> Option<Ipv4Addr> {
        self.relay_sub_option(option::relay::SERVER_IDENTIFIER_OVERRIDE)
    }

    /// Returns the port of a switch that the relay says the client is at (sub-option 1, RFC 3046 §3.1).
    pub fn circuit_id(&self) -> Option<&[u8]> {
        let agent = self.option(option::RELAY_AGENT).filter(|_| self.is_relayed())?;
        sub_option(agent, option::relay::CIRCUIT_ID).filter(|value| !value.is_empty())
    }

    /// Returns a sub-option of option 82 that is an address. Without a relay nobody may say such things.
    fn relay_sub_option(&self, wanted: u8) -> Option<Ipv4Addr> {
        let agent = self.option(option::RELAY_AGENT).filter(|_| self.is_relayed())?;
        let octets: [u8; 4] = sub_option(agent, wanted)?.try_into().ok()?;
        Some(octets.into()).filter(|address: &Ipv4Addr| !address.is_unspecified())
    }

    /// Returns whether the packet came by a relay.
    pub const fn is_relayed(&self) -> bool {
        !self.giaddr.is_unspecified()
    }

    /// Returns what the client calls itself (option 61). Never a key of leases: see [`kiln_inventory::Lease`].
    pub fn client_id(&self) -> Option<&[u8]> {
        self.option(option::CLIENT_IDENTIFIER).filter(|value| !value.is_empty())
    }

    /// Returns for how many seconds the client wants an address (option 51).
    pub fn lease_time(&self) -> Option<u32> {
        self.option(option::LEASE_TIME)?.try_into().ok().map(u32::from_be_bytes)
    }

    /// Returns the boot item that PXE firmware asks a boot server for: type and layer (option 43, sub-option 71).
    pub fn boot_item(&self) -> Option<(u16, u16)> {
        let said = self.option(option::VENDOR_SPECIFIC)?;
        let &[a, b, c, d] = sub_option(said, option::pxe::BOOT_ITEM)? else { return None };
        Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
    }

    /// Returns whether iPXE says that it can do something: `0x14` is HTTPS (option 175).
    pub fn ipxe_can(&self, feature: u8) -> bool {
        let said = self.option(option::IPXE).and_then(|said| sub_option(said, feature));
        said.is_some_and(|value| value.iter().any(|byte| *byte != 0))
    }

    /// Returns the address the client wants (option 50).
    pub fn requested(&self) -> Option<Ipv4Addr> {
        self.address(option::REQUESTED_ADDRESS)
    }

    /// Returns the server that the client has chosen (option 54).
    pub fn server(&self) -> Option<Ipv4Addr> {
        self.address(option::SERVER_IDENTIFIER)
    }

    /// Returns the longest message that the client takes, headers included (option 57).
    pub fn max_size(&self) -> Option<u16> {
        self.option(option::MAX_MESSAGE_SIZE)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// Returns the first architecture of option 93.
    pub fn architecture(&self) -> Option<u16> {
        field(self.option(option::CLIENT_ARCHITECTURE)?, 0).map(u16::from_be_bytes)
    }

    /// Returns the host name of option 12, lower-case, when it is one DNS label or begins with one.
    pub fn hostname(&self) -> Option<String> {
        let text = str::from_utf8(self.option(option::HOST_NAME)?).ok()?;
        let label = text.trim_end_matches('\0').split('.').next()?.to_ascii_lowercase();
        let plain = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let fits = (1..=63).contains(&label.len()) && !label.starts_with('-');
        (plain && fits && !label.ends_with('-')).then_some(label)
    }

    fn address(&self, code: u8) -> Option<Ipv4Addr> {
        let octets: [u8; 4] = self.option(code)?.try_into().ok()?;
        Some(octets.into()).filter(|address: &Ipv4Addr| !address.is_unspecified())
    }
}

/// Returns the first of the options within an option that has this number. PAD may be anywhere and END may be missing.
pub(super) fn sub_option(mut rest: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (&code, tail) = rest.split_first()?;
        match code {
            option::PAD => rest = tail,
            option::END => return None,
            _ => {
                let (&len, body) = tail.split_first()?;
                let (value, after) = body.split_at_checked(len.into())?;
                if code == wanted {
                    return Some(value);
                }
                rest = after;
            }
        }
    }
}

#[derive(Default)]
struct Options {
    values: BTreeMap<u8, Vec<u8>>,
    relay_agent: Vec<u8>,
    /// Whether some option was cut off.
    cut: bool,
}

impl Options {
    /// Reads one area. PAD may be anywhere, END may be missing, and what is cut off ends it.
    fn read(&mut self, area: &[u8]) {
        let mut rest = area;
        while let Some((&code, tail)) = rest.split_first() {
            match code {
                option::PAD => rest = tail,
                option::END => return,
                _ => {
                    let part = tail.split_first();
                    let part = part
                        .and_then(|(&len, body)| Some((len, body.split_at_checked(len.into())?)));
                    let Some((len, (value, after))) = part else {
                        self.cut = true;
                        return;
                    };
                    if code == option::RELAY_AGENT {
                        self.relay_agent.extend([code, len]);
                        self.relay_agent.extend(value);
                    }
                    self.values.entry(code).or_default().extend(value);
                    rest = after;
                }
            }
        }
    }

    fn byte(&self, code: u8) -> Option<u8> {
        match self.values.get(&code)?.as_slice() {
            [byte] => Some(*byte),
            _ => None,
        }
    }
}

fn field<const N: usize>(packet: &[u8], at: usize) -> Option<[u8; N]> {
    packet.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
#[path = "wire_tests.rs"]
pub(super) mod tests;
