//! Reads DHCPv6 messages (RFC 8415 §8, §9). Everything about lengths is settled here, once.
//!
//! Options are read one by one, each as raw bytes, and only those that we use are looked into: one option that
//! makes no sense never hides the others. Messages within messages of relays are a loop with a bound, not a recursion.
#![warn(clippy::indexing_slicing)]

use std::net::Ipv6Addr;

use kiln_inventory::Duid;
use kiln_types::Mac;

use super::option;

/// Relays that one behind the other may have passed a message on (`HOP_COUNT_LIMIT`, RFC 8415 §7.6).
const MAX_RELAYS: usize = 8;
/// Associations of one message that are looked at, and addresses of one association.
const MAX_ASSOCIATIONS: usize = 8;
const MAX_ADDRESSES: usize = 8;
/// Longest interface identifier of a relay that is sent back.
const MAX_INTERFACE_ID: usize = 256;

const RELAY_FORWARD: u8 = 12;

/// What a client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Which servers are there?
    Solicit,
    /// May I have these addresses?
    Request,
    /// Are my addresses right for this link?
    Confirm,
    /// May I keep them?
    Renew,
    /// May I keep them? My server does not answer.
    Rebind,
    /// I no longer need mine.
    Release,
    /// Someone else uses these.
    Decline,
    /// I have an address; tell me the rest.
    Inform,
}

/// One association of a client with addresses that are not temporary (IA_NA).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// The client's name for it.
    pub iaid: u32,
    /// Addresses that it has or wants.
    pub addresses: Vec<Ipv6Addr>,
}

/// One association of a client with what we do not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Other {
    /// What it is with.
    pub of: OtherKind,
    /// The client's name for it.
    pub iaid: u32,
}

/// What we do not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherKind {
    /// Temporary addresses (IA_TA).
    Temporary,
    /// Prefixes for the networks behind a router (IA_PD).
    Prefixes,
}

/// One relay on the way of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relay {
    /// How many relays had passed it on before.
    pub hops: u8,
    /// An address of the link that it came from, or zero.
    pub link: Ipv6Addr,
    /// Who sent it to this relay.
    pub peer: Ipv6Addr,
    /// How the relay calls that link, to be sent back as it is.
    pub interface_id: Option<Vec<u8>>,
    /// Hardware address of who sent it, where the relay says so (RFC 6939).
    pub mac: Option<Mac>,
}

/// A message of a client, with the way that it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// What is asked for.
    pub kind: Kind,
    /// Number that the reply repeats.
    pub xid: [u8; 3],
    /// Who asks. Only who asks for no address may leave it out.
    pub client: Option<Duid>,
    /// The server that it is for.
    pub server: Option<Vec<u8>>,
    /// Associations, of which the first is the one of the interface that boots.
    pub associations: Vec<Association>,
    /// Associations with what we do not give.
    pub others: Vec<Other>,
    /// Whether one reply is enough for it.
    pub rapid_commit: bool,
    /// Texts of its user class (RFC 8415 §21.15).
    pub user_classes: Vec<Vec<u8>>,
    /// First text of its vendor class (RFC 8415 §21.16).
    pub vendor_class: Option<Vec<u8>>,
    /// First architecture (RFC 5970 §3.3).
    pub architecture: Option<u16>,
    /// Relays, the one nearest to us first.
    pub relays: Vec<Relay>,
}

/// Why a packet is not a request that we read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Shorter than its fixed fields.
    #[error("message of {0} bytes is shorter than its fixed fields")]
    Short(usize),
    /// A message of a server, or one that we do not know.
    #[error("message type {0} is not one that clients send to servers")]
    OtherKind(u8),
    /// A relay passed on nothing.
    #[error("a relay's message holds none of a client")]
    EmptyRelay,
    /// Too many relays.
    #[error("more than {MAX_RELAYS} relays have passed the message on")]
    TooManyRelays,
    /// Who asks is not said, or said in too few or too many bytes.
    #[error("no usable client identifier")]
    NoClient,
    /// What must name a server does not, or the other way round.
    #[error("a message of this type has to name its server, or must not")]
    ServerOutOfPlace,
}

impl Request {
    /// Reads one packet, of a client or of a relay.
    ///
    /// # Errors
    ///
    /// Returns why the packet is to be dropped. Damaged options are no reason; they are left out.
    pub fn decode(packet: &[u8]) -> Result<Self, WireError> {
        let mut relays = Vec::new();
        let mut message = packet;
        loop {
            let Some((&kind, rest)) = message.split_first() else {
                return Err(WireError::Short(message.len()));
            };
            if kind != RELAY_FORWARD {
                return Self::decode_client(message, relays);
            }
            if relays.len() >= MAX_RELAYS {
                return Err(WireError::TooManyRelays);
            }
            let short = || WireError::Short(message.len());
            let (&[hops], rest) = rest.split_first_chunk().ok_or_else(short)?;
            let (link, rest) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let (peer, area) = rest.split_first_chunk::<16>().ok_or_else(short)?;
            let find = |code| options(area).find(|option| option.0 == code).map(|option| option.1);
            let interface_id = find(option::INTERFACE_ID).filter(|id| id.len() <= MAX_INTERFACE_ID);
            relays.push(Relay {
                hops,
                link: (*link).into(),
                peer: (*peer).into(),
                interface_id: interface_id.map(<[u8]>::to_vec),
                mac: find(option::LINK_LAYER).and_then(link_layer),
            });
            message = find(option::RELAY_MESSAGE).ok_or(WireError::EmptyRelay)?;
        }
    }

    fn decode_client(message: &[u8], relays: Vec<Relay>) -> Result<Self, WireError> {
        let (&[kind, a, b, c], area) =
            message.split_first_chunk().ok_or(WireError::Short(message.len()))?;
        let kind = match kind {
            1 => Kind::Solicit,
            3 => Kind::Request,
            4 => Kind::Confirm,
            5 => Kind::Renew,
            6 => Kind::Rebind,
            8 => Kind::Release,
            9 => Kind::Decline,
            11 => Kind::Inform,
            other => return Err(WireError::OtherKind(other)),
        };
        let mut request = Self {
            kind,
            xid: [a, b, c],
            client: None,
            server: None,
            associations: Vec::new(),
            others: Vec::new(),
            rapid_commit: false,
            user_classes: Vec::new(),
            vendor_class: None,
            architecture: None,
            relays,
        };
        let mut named = false;
        for (code, value) in options(area) {
            match code {
                // Of what may be there once, the first counts.
                option::CLIENT_ID if !named => {
                    named = true;
                    request.client = Duid::new(value);
                }
                option::SERVER_ID if request.server.is_none() => {
                    request.server = Some(value.to_vec());
                }
                option::IA_NA => request.associations.extend(association(value)),
                option::IA_TA => request.others.extend(other(OtherKind::Temporary, value)),
                option::IA_PD => request.others.extend(other(OtherKind::Prefixes, value)),
                option::RAPID_COMMIT => request.rapid_commit = true,
                option::USER_CLASS if request.user_classes.is_empty() => {
                    request.user_classes = texts(value).take(8).map(<[u8]>::to_vec).collect();
                }
                option::VENDOR_CLASS if request.vendor_class.is_none() => {
                    // Behind the number of the enterprise.
                    let body = value.get(4..).unwrap_or_default();
                    request.vendor_class = texts(body).next().map(<[u8]>::to_vec);
                }
                option::CLIENT_ARCHITECTURE if request.architecture.is_none() => {
                    let first = value.first_chunk().copied();
                    request.architecture = first.map(u16::from_be_bytes);
                }
                _ => {}
            }
        }
        first_of_each(&mut request.associations, |ia| ia.iaid);
        first_of_each(&mut request.others, |other| *other);
        request.check(named)
    }

    /// Applies RFC 8415 §16: which messages name a client and a server.
    fn check(self, named: bool) -> Result<Self, WireError> {
        if self.client.is_none() && (named || self.kind != Kind::Inform) {
            return Err(WireError::NoClient);
        }
        let in_place = match self.kind {
            Kind::Solicit | Kind::Confirm | Kind::Rebind => self.server.is_none(),
            Kind::Request | Kind::Renew | Kind::Release | Kind::Decline => self.server.is_some(),
            Kind::Inform => true,
        };
        if in_place { Ok(self) } else { Err(WireError::ServerOutOfPlace) }
    }
}

/// Lets go of associations that are there once more, and of more than we answer: the second of two with one name is not
/// another one.
fn first_of_each<T, N: PartialEq>(all: &mut Vec<T>, name: impl Fn(&T) -> N) {
    let mut seen = Vec::new();
    all.retain(|one| {
        let fresh = seen.len() < MAX_ASSOCIATIONS && !seen.contains(&name(one));
        if fresh {
            seen.push(name(one));
        }
        fresh
    });
}

/// Returns each option that is there in full. What is cut off ends them.
fn options(area: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = area;
    std::iter::from_fn(move || {
        let (&[a, b, c, d], body) = rest.split_first_chunk()?;
        let (value, after) = body.split_at_checked(u16::from_be_bytes([c, d]).into())?;
        rest = after;
        Some((u16::from_be_bytes([a, b]), value))
    })
}

/// Returns each text of a class, which has its length in front.
fn texts(area: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = area;
    std::iter::from_fn(move || {
        let (&length, body) = rest.split_first_chunk()?;
        let (value, after) = body.split_at_checked(u16::from_be_bytes(length).into())?;
        rest = after;
        Some(value)
    })
}

fn association(value: &[u8]) -> Option<Association> {
    let (&iaid, rest) = value.split_first_chunk()?;
    // The two times that the client would like are ours to choose.
    let area = rest.get(8..)?;
    let addresses = options(area)
        .filter(|(code, _)| *code == option::IA_ADDRESS)
        .filter_map(|(_, value)| value.first_chunk::<16>().copied().map(Ipv6Addr::from))
        .filter(|address| !address.is_unspecified())
        .take(MAX_ADDRESSES)
        .collect();
    Some(Association { iaid: u32::from_be_bytes(iaid), addresses })
}

fn other(of: OtherKind, value: &[u8]) -> Option<Other> {
    let iaid = value.first_chunk().copied().map(u32::from_be_bytes)?;
    Some(Other { of, iaid })
}

/// Returns an Ethernet hardware address: its type, then six bytes and no more.
fn link_layer(value: &[u8]) -> Option<Mac> {
    let [0, 1, octets @ ..] = value else { return None };
    <[u8; 6]>::try_from(octets).ok().map(Mac::new).filter(|mac| mac.is_unicast())
}

#[cfg(test)]
pub(super) mod tests;
