//! Who has an address? What the network itself says of it, before a secret goes there.

use std::net::{IpAddr, Ipv4Addr};

use kiln_inventory::Machine;
use kiln_types::Mac;

/// Where the kernel tells whom it has reached by which hardware address, in the network of this thread.
const NEIGHBOURS: &str = "/proc/thread-self/net/arp";
/// The flag of an entry that was answered (`ATF_COM`).
const COMPLETE: u32 = 2;

/// Returns whether a machine is at an address, as far as anybody but the one who asks there says so. On a network that
/// this server is part of, the hardware address decides; behind a router, the lease or reservation does.
pub(super) fn is_at(machine: &Machine, peer: IpAddr, given: bool) -> bool {
    let cards = match peer {
        IpAddr::V4(peer) => {
            // The table is as long as the kernel lets it grow, which is a few thousand lines.
            neighbours(&std::fs::read_to_string(NEIGHBOURS).unwrap_or_default(), peer)
        }
        // Nobody is let in by a question that the kernel does not answer: then only what was given or reserved counts.
        IpAddr::V6(peer) => crate::net::neighbours6(peer).unwrap_or_default(),
    };
    holds(machine, peer, given, &cards)
}

/// `cards` are the hardware addresses by which the kernel reached that address, where it is a neighbour; one that others
/// have too, in another of our networks, may be theirs. An address of IPv6 that is made of a hardware address says
/// nothing: anyone may take it.
fn holds(machine: &Machine, peer: IpAddr, given: bool, cards: &[Mac]) -> bool {
    let spec = &machine.spec;
    let reserved = match peer {
        IpAddr::V4(peer) => spec.address == Some(peer),
        IpAddr::V6(peer) => spec.address6 == Some(peer),
    };
    match cards {
        [] => given || reserved,
        cards => cards.iter().all(|card| spec.macs.contains(card)),
    }
}

/// Finds the hardware addresses of a neighbour in the kernel's table, one of each interface where somebody has it.
fn neighbours(table: &str, peer: Ipv4Addr) -> Vec<Mac> {
    let found = table.lines().skip(1).filter_map(|line| {
        let mut fields = line.split_whitespace();
        let address: Ipv4Addr = fields.next()?.parse().ok()?;
        let flags = fields.nth(1)?.strip_prefix("0x")?;
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let mac = fields.next()?.parse().ok()?;
        (address == peer && flags & COMPLETE != 0).then_some(mac)
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use kiln_inventory::{MachineId, NewMachine};

    use super::*;

    const TABLE: &str = "\
IP address       HW type     Flags       HW address            Mask     Device
10.0.0.5         0x1         0x2         52:54:00:00:00:01     *        br0
10.0.0.6         0x1         0x2         52:54:00:00:00:66     *        br0
10.0.0.7         0x1         0x0         00:00:00:00:00:00     *        br0
10.0.0.8         0x1         0x2         52:54:00:00:00:01     *        br0
10.0.0.8         0x1         0x2         52:54:00:00:00:66     *        br1
";

    #[test]
    fn a_neighbour_is_known_by_its_card_and_others_by_what_they_were_given() {
        let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
        let spec = NewMachine {
            address: Some([10, 0, 0, 6].into()),
            address6: Some("fd00::6".parse().unwrap()),
            ..NewMachine::new("n1", [mac])
        };
        let machine = Machine { id: MachineId(1), revision: 1, spec };
        let holds = |peer: &str, given| {
            let peer: IpAddr = peer.parse().unwrap();
            let cards = match peer {
                IpAddr::V4(peer) => neighbours(TABLE, peer),
                IpAddr::V6(_) => Vec::new(),
            };
            holds(&machine, peer, given, &cards)
        };
        assert!(holds("10.0.0.5", false), "its card");
        assert!(!holds("10.0.0.6", true), "its reserved address, but another's card");
        assert!(!holds("10.0.0.7", false), "nobody answered there");
        assert!(!holds("10.0.0.8", true), "its card, and that of another in another network");
        assert!(!holds("10.9.0.9", false) && holds("10.9.0.9", true), "behind a router");
        assert!(holds("fd00::6", false) && !holds("fd00::7", false) && holds("fd00::7", true));
        assert!(!holds("2001:db8::5054:ff:fe00:1", false), "made of its hardware address");
        let other = "52:54:00:00:00:66".parse().unwrap();
        let peer = "fd00::6".parse().unwrap();
        assert!(!super::holds(&machine, peer, true, &[other]), "another's card");
        let local = "fe80::1".parse().unwrap();
        assert!(super::holds(&machine, local, false, &[mac]));
        assert!(!super::holds(&machine, local, true, &[mac, other]), "whose is it?");
        assert!(neighbours("", [10, 0, 0, 5].into()).is_empty());
        assert!(neighbours("x\n10.0.0.5\n10.0.0.5 0x1 0x2 zz", [10, 0, 0, 5].into()).is_empty());
    }
}
