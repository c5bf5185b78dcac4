//! Whether somebody else has an address (RFC 5227).

#![warn(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

/// Ethernet and IPv4, with six and four octets of address.
const START: [u8; 6] = [0, 1, 8, 0, 6, 4];
const REQUEST: [u8; 2] = [0, 1];

/// Returns the question who has the address, which tells nobody that we may have it.
pub(super) fn probe(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    request(mac, Ipv4Addr::UNSPECIFIED, address)
}

/// Returns the news that the address is ours.
pub(super) fn announcement(mac: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    request(mac, address, address)
}

fn request(mac: [u8; 6], from: Ipv4Addr, to: Ipv4Addr) -> Vec<u8> {
    let (from, to) = (from.octets(), to.octets());
    [START.as_slice(), &REQUEST, &mac, &from, &[0; 6], &to].concat()
}

/// Says whether a packet shows that somebody else has the address, or is about to take it.
pub(super) fn is_conflict(packet: &[u8], mac: [u8; 6], address: Ipv4Addr) -> bool {
    let (Some(start), Some(kind)) = (packet.get(..6), packet.get(6..8)) else { return false };
    let (Some(sender), Some(from), Some(to)) =
        (packet.get(8..14), packet.get(14..18), packet.get(24..28))
    else {
        return false;
    };
    let address = address.octets();
    let probes = kind == REQUEST && from == [0; 4] && to == address;
    start == START && sender != mac && (from == address || probes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn whoever_answers_for_the_address_or_probes_it_as_well_has_it() {
        assert!(is_conflict(&announcement(OTHER, ADDRESS), OURS, ADDRESS));
        assert!(is_conflict(&probe(OTHER, ADDRESS), OURS, ADDRESS));
        let mut reply = announcement(OTHER, ADDRESS);
        reply[7] = 2;
        assert!(is_conflict(&reply, OURS, ADDRESS));
    }

    #[test]
    fn our_own_packets_and_those_about_others_are_no_conflict() {
        assert!(!is_conflict(&probe(OURS, ADDRESS), OURS, ADDRESS));
        assert!(!is_conflict(&announcement(OTHER, Ipv4Addr::new(10, 0, 0, 6)), OURS, ADDRESS));
        // Somebody asks for it to send it something.
        let asks = request(OTHER, Ipv4Addr::new(10, 0, 0, 6), ADDRESS);
        assert!(!is_conflict(&asks, OURS, ADDRESS));
        let packet = announcement(OTHER, ADDRESS);
        for end in 0..packet.len() {
            assert!(!is_conflict(&packet[..end], OURS, ADDRESS), "{end}");
        }
    }
}
