//! DHCP messages of a client (RFC 2131, RFC 2132).

#![warn(clippy::indexing_slicing)]

use std::net::Ipv4Addr;
use std::time::Duration;

const COOKIE: [u8; 4] = [99, 130, 83, 99];
const FIXED: usize = 236;
/// RFC 2131 §2: what every relay and server takes.
const SMALLEST: usize = 300;
/// More routers or name servers than this are not used.
const MOST_ADDRESSES: usize = 8;

/// The answers that a client cares for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Offer,
    Ack,
    Nak,
}

/// What the client asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ask {
    /// Who is there?
    Discover,
    /// I take this offer of this server.
    Select { address: Ipv4Addr, server: Ipv4Addr },
    /// I want to keep the address that I use.
    Renew { address: Ipv4Addr },
}

/// An answer from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) kind: Kind,
    pub(crate) address: Ipv4Addr,
    pub(crate) server: Ipv4Addr,
    pub(crate) mask: Ipv4Addr,
    pub(crate) routers: Vec<Ipv4Addr>,
    pub(crate) name_servers: Vec<Ipv4Addr>,
    pub(crate) domain: Option<String>,
    pub(crate) lease: Duration,
}

/// Writes a client's message.
pub(crate) fn write(ask: Ask, xid: u32, mac: [u8; 6], hostname: Option<&str>) -> Vec<u8> {
    let mut out = Vec::with_capacity(SMALLEST);
    // Request, Ethernet, six octets of hardware address, no hops.
    out.extend([1, 1, 6, 0]);
    out.extend(xid.to_be_bytes());
    // No seconds. The broadcast flag: without an address we cannot hear anything else.
    let (own, flags) = match ask {
        Ask::Renew { address } => (address, 0_u16),
        Ask::Discover | Ask::Select { .. } => (Ipv4Addr::UNSPECIFIED, 0x8000),
    };
    out.extend([0, 0]);
    out.extend(flags.to_be_bytes());
    out.extend(own.octets());
    out.extend([0; 12]);
    out.extend(mac);
    out.resize(FIXED, 0);
    out.extend(COOKIE);
    let kind = if matches!(ask, Ask::Discover) { 1 } else { 3 };
    option(&mut out, 53, &[kind]);
    if let Ask::Select { address, server } = ask {
        option(&mut out, 50, &address.octets());
        option(&mut out, 54, &server.octets());
    }
    option(&mut out, 57, &1500_u16.to_be_bytes());
    option(&mut out, 60, b"kiln-init");
    if let Some(name) = hostname {
        option(&mut out, 12, name.as_bytes());
    }
    option(&mut out, 55, &[1, 3, 6, 15, 51, 54]);
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
    let mut answer = Answer {
        kind: Kind::Nak,
        address: address(packet.get(16..20)?)?,
        server: Ipv4Addr::UNSPECIFIED,
        mask: Ipv4Addr::UNSPECIFIED,
        routers: Vec::new(),
        name_servers: Vec::new(),
        domain: None,
        lease: Duration::from_secs(3600),
    };
    let mut kind = None;
    let mut rest = packet.get(FIXED + 4..)?;
    while let Some((&code, more)) = rest.split_first() {
        match code {
            0 => rest = more,
            255 => break,
            _ => {
                let (&length, more) = more.split_first()?;
                let value = more.get(..usize::from(length))?;
                rest = more.get(usize::from(length)..)?;
                if code == 53 {
                    kind = value.first().copied();
                } else {
                    take(&mut answer, code, value);
                }
            }
        }
    }
    answer.kind = match kind? {
        2 => Kind::Offer,
        5 => Kind::Ack,
        6 => Kind::Nak,
        _ => return None,
    };
    if answer.mask.is_unspecified() {
        answer.mask = mask_of_class(answer.address);
    }
    Some(answer)
}

fn take(answer: &mut Answer, code: u8, value: &[u8]) {
    match code {
        1 => answer.mask = address(value).unwrap_or(answer.mask),
        3 => answer.routers = addresses(value),
        6 => answer.name_servers = addresses(value),
        15 => answer.domain = domain(value),
        51 => {
            if let Ok(seconds) = value.try_into().map(u32::from_be_bytes) {
                answer.lease = Duration::from_secs(seconds.into());
            }
        }
        54 => answer.server = address(value).unwrap_or(answer.server),
        _ => {}
    }
}

fn address(value: &[u8]) -> Option<Ipv4Addr> {
    <[u8; 4]>::try_from(value).ok().map(Ipv4Addr::from)
}

fn addresses(value: &[u8]) -> Vec<Ipv4Addr> {
    value.chunks_exact(4).filter_map(address).take(MOST_ADDRESSES).collect()
}

/// A domain goes into a file that others read by lines and words: only letters of names are taken.
fn domain(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches('\0');
    let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    (!text.is_empty() && text.chars().all(good)).then(|| text.to_owned())
}

/// The mask before there were masks (RFC 791), for a server that gives none.
fn mask_of_class(address: Ipv4Addr) -> Ipv4Addr {
    match address.octets() {
        [0..=127, ..] => Ipv4Addr::new(255, 0, 0, 0),
        [128..=191, ..] => Ipv4Addr::new(255, 255, 0, 0),
        _ => Ipv4Addr::new(255, 255, 255, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

    fn reply(options: &[u8]) -> Vec<u8> {
        let mut packet = write(Ask::Discover, 7, MAC, None);
        packet.truncate(FIXED + 4);
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 0, 0, 5]);
        packet.extend(options);
        packet
    }

    #[test]
    fn an_ack_is_read() {
        let packet = reply(&[
            53, 1, 5, 0, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 6, 8, 10, 0, 0, 1, 10, 0, 0, 2,
            15, 3, b'l', b'a', b'b', 51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 0, 1, 255,
        ]);
        let answer = read(&packet, 7, MAC).unwrap();
        assert_eq!(answer.kind, Kind::Ack);
        assert_eq!(answer.address, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(answer.mask, Ipv4Addr::new(255, 255, 255, 0));
        assert_eq!(answer.name_servers.len(), 2);
        assert_eq!(answer.domain.as_deref(), Some("lab"));
        assert_eq!(answer.lease, Duration::from_secs(3600));
    }

    #[test]
    fn what_is_not_for_us_is_passed_over() {
        let packet = reply(&[53, 1, 5, 255]);
        assert!(read(&packet, 8, MAC).is_none());
        assert!(read(&packet, 7, [0; 6]).is_none());
        assert!(read(&packet[..100], 7, MAC).is_none());
        assert!(read(&write(Ask::Discover, 7, MAC, None), 7, MAC).is_none());
    }

    #[test]
    fn no_cut_makes_it_panic() {
        let packet = reply(&[53, 1, 5, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 255]);
        for end in 0..packet.len() {
            let _ = read(&packet[..end], 7, MAC);
        }
    }

    #[test]
    fn a_domain_with_a_line_break_is_not_taken() {
        let packet = reply(&[53, 1, 2, 15, 3, b'a', b'\n', b'b', 255]);
        assert_eq!(read(&packet, 7, MAC).unwrap().domain, None);
    }

    #[test]
    fn a_request_names_the_server_and_the_address() {
        let ask =
            Ask::Select { address: Ipv4Addr::new(10, 0, 0, 5), server: Ipv4Addr::new(10, 0, 0, 1) };
        let packet = write(ask, 7, MAC, Some("n1"));
        assert_eq!(packet.len(), SMALLEST);
        assert_eq!(packet[240..243], [53, 1, 3]);
        assert!(packet.windows(6).any(|w| w == [50, 4, 10, 0, 0, 5]));
        assert!(packet.windows(6).any(|w| w == [54, 4, 10, 0, 0, 1]));
    }
}
