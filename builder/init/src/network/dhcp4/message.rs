//! DHCP messages of a client (RFC 2131, RFC 2132).

#![warn(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

use super::options::{Options, is_of_a_host};
use crate::network::names;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FIXED: usize = 236;
/// RFC 2131 §2: what every relay and server takes.
const SMALLEST: usize = 300;
/// More routers, servers or routes than this are not used.
const MOST_ADDRESSES: usize = 8;
const MOST_ROUTES: usize = 64;
/// A smaller packet than this could not carry what IPv4 promises (RFC 791).
const SMALLEST_MTU: u16 = 576;

/// The answers that a client cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Offer,
    Ack,
    Nak,
}

/// What the client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// Who is there? I would like the address that I had.
    Discover { wish: Option<Ipv4Addr> },
    /// I take this offer of this server.
    Select { address: Ipv4Addr, server: Ipv4Addr },
    /// I have just started; is the address that firmware was given still mine?
    Reboot { address: Ipv4Addr },
    /// I want to keep the address that I use.
    Renew { address: Ipv4Addr },
    /// Somebody else uses it.
    Decline { address: Ipv4Addr, server: Ipv4Addr },
}

/// A way to a network; without a router it is on the link itself.
pub(crate) type Way = (Ipv4Addr, u8, Option<Ipv4Addr>);

/// An answer from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    pub(crate) prefix: u8,
    pub(crate) routes: Vec<Way>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    pub(crate) time_servers: Vec<Ipv4Addr>,
    pub(crate) hostname: Option<String>,
    /// The domain first.
    pub(crate) search: Vec<String>,
    pub(crate) mtu: Option<u16>,
    /// Seconds; all ones is for ever.
    pub(crate) lease: u32,
    pub(crate) t1: Option<u32>,
    pub(crate) t2: Option<u32>,
    /// What the server says of a refusal.
    pub(crate) message: Option<String>,
}

/// Who asks.
#[derive(Debug, Clone)]
pub(crate) struct Asker<'a> {
    pub(crate) mac: [u8; 6],
    pub(crate) hostname: Option<&'a str>,
    pub(crate) xid: u32,
    /// Since the client began.
    pub(crate) seconds: u16,
}

/// Writes a client's message.
pub(crate) fn write(ask: Ask, asker: &Asker<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(SMALLEST);
    // Request, Ethernet, six octets of hardware address, no hops.
    out.extend([1, 1, 6, 0]);
    out.extend(asker.xid.to_be_bytes());
    out.extend(asker.seconds.to_be_bytes());
    // The broadcast flag: without an address we cannot hear anything else.
    let (own, flags) = match ask {
        Ask::Renew { address } => (address, 0_u16),
        _ => (Ipv4Addr::UNSPECIFIED, 0x8000),
    };
    out.extend(flags.to_be_bytes());
    out.extend(own.octets());
    out.extend([0; 12]);
    out.extend(asker.mac);
    out.resize(FIXED, 0);
    out.extend(COOKIE);
    let (kind, address, server) = match ask {
        Ask::Discover { wish } => (1, wish, None),
        Ask::Select { address, server } => (3, Some(address), Some(server)),
        Ask::Reboot { address } => (3, Some(address), None),
        Ask::Renew { .. } => (3, None, None),
        Ask::Decline { address, server } => (4, Some(address), Some(server)),
    };
    option(&mut out, 53, &[kind]);
    // The same as firmware and loaders use (RFC 2132 §9.14), so that the server knows us again.
    option(&mut out, 61, &[[1].as_slice(), &asker.mac].concat());
    for (code, address) in [(50, address), (54, server)] {
        if let Some(address) = address {
            option(&mut out, code, &address.octets());
        }
    }
    if kind != 4 {
        option(&mut out, 57, &1500_u16.to_be_bytes());
        option(&mut out, 60, b"kiln-init");
        if let Some(name) = asker.hostname {
            option(&mut out, 12, name.as_bytes());
        }
        // Classless routes before routers, as RFC 3442 wants it.
        option(&mut out, 55, &[121, 1, 3, 6, 12, 15, 26, 42, 51, 54, 58, 59, 119]);
    }
    out.push(255);
    out.resize(out.len().max(SMALLEST), 0);
    out
}

fn option(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    if let Ok(length) = u8::try_from(value.len()) {
        out.extend([code, length]);
        out.extend(value);
    }
}

/// Reads an answer to us; `None` when it is anything else.
pub(crate) fn read(packet: &[u8], xid: u32, mac: [u8; 6]) -> Option<Answer> {
    let is_reply = packet.first() == Some(&2);
    let ours = packet.get(4..8)? == xid.to_be_bytes() && packet.get(28..34)? == mac;
    if !is_reply || !ours || packet.get(FIXED..FIXED + 4)? != COOKIE {
        return None;
    }
    let options = Options::find(packet)?;
    let kind = match options.byte(53)? {
        2 => Kind::Offer,
        5 => Kind::Ack,
        6 => Kind::Nak,
        _ => return None,
    };
    let octets: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    let address = Ipv4Addr::from(octets);
    if kind != Kind::Nak && !is_of_a_host(&address) {
        return None;
    }
    let mut search: Vec<String> =
        options.value(15).and_then(|value| names::text(&value)).into_iter().collect();
    for name in names::read(&options.value(119).unwrap_or_default(), true) {
        if !search.contains(&name) {
            search.push(name);
        }
    }
    Some(Answer {
        kind,
        address,
        server: options.address(54).unwrap_or(Ipv4Addr::UNSPECIFIED),
        prefix: prefix(options.address(1), address),
        routes: routes(&options),
        name_servers: options.addresses(6, MOST_ADDRESSES),
        time_servers: options.addresses(42, MOST_ADDRESSES),
        hostname: options.value(12).and_then(|value| names::text(&value)),
        search,
        mtu: options.short(26).filter(|mtu| *mtu >= SMALLEST_MTU),
        lease: options.number(51).unwrap_or(3600),
        t1: options.number(58),
        t2: options.number(59),
        message: options.value(56).map(|value| String::from_utf8_lossy(&value).into_owned()),
    })
}

/// Returns the length of the prefix that a mask stands for; without a mask, that of the address's class (RFC 791).
fn prefix(mask: Option<Ipv4Addr>, address: Ipv4Addr) -> u8 {
    let ones = |mask: Ipv4Addr| {
        let bits = u32::from(mask);
        let whole = bits.leading_ones() + bits.trailing_zeros() >= u32::BITS && bits != 0;
        whole.then(|| u8::try_from(bits.leading_ones()).unwrap_or(32))
    };
    mask.and_then(ones).unwrap_or_else(|| match address.octets() {
        [0..=127, ..] => 8,
        [128..=191, ..] => 16,
        _ => 24,
    })
}

/// Returns the classless routes, or else those over the routers: who has the one must not use the other (RFC 3442).
fn routes(options: &Options<'_>) -> Vec<Way> {
    let ways = options.value(121).map(|value| classless(&value)).unwrap_or_default();
    if !ways.is_empty() {
        return ways;
    }
    let routers = options.addresses(3, 1);
    routers.into_iter().map(|router| (Ipv4Addr::UNSPECIFIED, 0, Some(router))).collect()
}

/// Length of the prefix, as many octets of the network as it needs, router.
fn classless(mut rest: &[u8]) -> Vec<Way> {
    let mut ways = Vec::new();
    while let Some((&prefix, more)) = rest.split_first() {
        let needed = usize::from(prefix).div_ceil(8);
        let mut network = [0; 4];
        let (Some(place), Some((start, more))) =
            (network.get_mut(..needed), more.split_at_checked(needed))
        else {
            return Vec::new();
        };
        place.copy_from_slice(start);
        let Some((&router, more)) = more.split_first_chunk::<4>() else { return Vec::new() };
        rest = more;
        let hosts = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
        let network = Ipv4Addr::from(u32::from_be_bytes(network) & !hosts);
        let router = Ipv4Addr::from(router);
        if ways.len() < MOST_ROUTES && (router.is_unspecified() || is_of_a_host(&router)) {
            ways.push((network, prefix, Some(router).filter(|router| !router.is_unspecified())));
        }
    }
    ways
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
