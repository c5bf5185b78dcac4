//! By which hardware address the kernel reaches a neighbour of IPv6 (rtnetlink). Of IPv4 a file tells it.

use std::io::{self, Read as _};
use std::net::Ipv6Addr;
use std::time::Duration;

use kiln_types::Mac;
use nix::libc;
use socket2::{Domain, Protocol, Socket, Type};

/// Sizes of the head of a message (`nlmsghdr`), of what a neighbour begins with (`ndmsg`), and of the head of an attribute.
const HEAD: usize = 16;
const NEIGHBOUR: usize = 12;
const ATTRIBUTE: usize = 4;
/// Attributes: the address, and that of the card (`NDA_DST`, `NDA_LLADDR`).
const ADDRESS: u16 = 1;
const CARD: u16 = 2;
/// States in which the kernel has heard of the card: reachable, stale, delay, probe, and what an administrator entered.
const KNOWN: u16 = 0x02 | 0x04 | 0x08 | 0x10 | 0x80;
/// The kernel answers at once, or something is wrong.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The most answers that are read: a table holds a few thousand neighbours, and one read at least one of them.
const MOST_READS: usize = 20_000;

/// Returns the hardware addresses of a neighbour in the network of this thread, as far as they are known: one of each
/// interface where somebody has the address. Everybody can have a link-local one.
///
/// # Errors
///
/// When the kernel cannot be asked.
pub fn neighbours6(peer: Ipv6Addr) -> io::Result<Vec<Mac>> {
    let mut socket =
        Socket::new(Domain::from(libc::AF_NETLINK), Type::RAW, Some(Protocol::from(0)))?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.send(&question())?;
    let (mut answer, mut cards) = (vec![0; 64 << 10], Vec::new());
    for _ in 0..MOST_READS {
        let length = socket.read(&mut answer)?;
        if find(answer.get(..length).unwrap_or_default(), peer, &mut cards).is_none() {
            return Ok(cards);
        }
    }
    Err(io::ErrorKind::InvalidData.into())
}

/// Asks for all neighbours of IPv6.
fn question() -> Vec<u8> {
    // NLM_F_REQUEST, NLM_F_DUMP.
    const FLAGS: u16 = 0x0301;
    let mut bytes = Vec::with_capacity(HEAD + NEIGHBOUR);
    bytes.extend(28_u32.to_ne_bytes());
    bytes.extend(libc::RTM_GETNEIGH.to_ne_bytes());
    bytes.extend(FLAGS.to_ne_bytes());
    bytes.extend([0; 8]);
    // AF_INET6, on any interface.
    bytes.extend([10, 0, 0, 0]);
    bytes.extend([0; 8]);
    bytes
}

/// Looks through the messages of one answer, and returns nothing when there is no further one.
fn find(mut answer: &[u8], peer: Ipv6Addr, cards: &mut Vec<Mac>) -> Option<()> {
    while let Some((head, _)) = answer.split_first_chunk::<HEAD>() {
        let [a, b, c, d, e, f, ..] = *head;
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let kind = u16::from_ne_bytes([e, f]);
        let body = answer.get(HEAD..length)?;
        if kind != libc::RTM_NEWNEIGH {
            // NLMSG_DONE or NLMSG_ERROR.
            return None;
        }
        cards.extend(card_of(body, peer));
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Some(())
}

/// Returns the card of a neighbour, where it is the one that is looked for and its card was heard of.
fn card_of(body: &[u8], peer: Ipv6Addr) -> Option<Mac> {
    let (neighbour, mut attributes) = body.split_first_chunk::<NEIGHBOUR>()?;
    let state = u16::from_ne_bytes([neighbour[8], neighbour[9]]);
    let (mut is_it, mut card) = (false, None);
    while let Some((&[a, b, c, d], _)) = attributes.split_first_chunk::<ATTRIBUTE>() {
        let (length, kind) = (usize::from(u16::from_ne_bytes([a, b])), u16::from_ne_bytes([c, d]));
        let value = attributes.get(ATTRIBUTE..length)?;
        match kind {
            ADDRESS => is_it = value == peer.octets(),
            CARD => card = <[u8; 6]>::try_from(value).ok().map(Mac::new),
            _ => {}
        }
        attributes = attributes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    card.filter(|_| is_it && state & KNOWN != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEER: Ipv6Addr = Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 5);
    const OCTETS: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + ATTRIBUTE).unwrap();
        let mut bytes = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    fn message(kind: u16, state: u16, address: Ipv6Addr, card: &[u8]) -> Vec<u8> {
        let mut body = vec![10, 0, 0, 0, 2, 0, 0, 0];
        body.extend(state.to_ne_bytes());
        body.extend([0, 1]);
        body.extend(attribute(ADDRESS, &address.octets()));
        body.extend(attribute(CARD, card));
        let mut bytes = u32::try_from(body.len() + HEAD).unwrap().to_ne_bytes().to_vec();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend([0; 10]);
        bytes.extend(body);
        bytes
    }

    /// Returns the cards that an answer tells, and whether there are more answers.
    fn found(answer: &[u8], peer: Ipv6Addr) -> (Vec<Mac>, bool) {
        let mut cards = Vec::new();
        let more = find(answer, peer, &mut cards).is_some();
        (cards, more)
    }

    #[test]
    fn a_neighbour_is_found_by_its_address_where_its_card_was_heard_of() {
        let other = Ipv6Addr::LOCALHOST;
        let of = |state| message(libc::RTM_NEWNEIGH, state, PEER, &OCTETS);
        let mac = Mac::new(OCTETS);
        let two = [message(libc::RTM_NEWNEIGH, 2, other, &[2, 0, 0, 0, 0, 9]), of(4)].concat();
        assert_eq!(found(&two, PEER), (vec![mac], true));
        for (state, known) in [(1, false), (2, true), (0x10, true), (0x20, false), (0x40, false)] {
            assert_eq!(!found(&of(state), PEER).0.is_empty(), known, "{state}");
        }
        assert_eq!(found(&of(2), other), (vec![], true));
        assert_eq!(found(&message(3, 2, PEER, &OCTETS), PEER), (vec![], false));
        assert_eq!(found(&message(libc::RTM_NEWNEIGH, 2, PEER, &[1; 5]), PEER), (vec![], true));
    }

    #[test]
    fn an_address_that_two_have_on_two_interfaces_is_found_twice() {
        let also = [2, 0, 0, 0, 0, 9];
        let both = [&OCTETS, &also].map(|card| message(libc::RTM_NEWNEIGH, 2, PEER, card)).concat();
        assert_eq!(found(&both, PEER).0, [Mac::new(OCTETS), Mac::new(also)]);
    }

    #[test]
    fn an_answer_that_is_cut_or_lies_of_its_length_ends() {
        let whole = message(libc::RTM_NEWNEIGH, 2, PEER, &OCTETS);
        for length in 0..whole.len() {
            assert!(found(&whole[..length], PEER).0.is_empty(), "{length}");
        }
        for at in 0..whole.len() {
            for byte in [0, 1, 3, 0x7f, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] = byte;
                found(&bytes, PEER);
            }
        }
    }

    #[test]
    fn the_kernel_is_asked_and_nobody_is_a_neighbour_of_a_documents_address() {
        let nobody = "2001:db8::5054:ff:fe00:1".parse().unwrap();
        assert!(neighbours6(nobody).unwrap().is_empty());
    }
}
