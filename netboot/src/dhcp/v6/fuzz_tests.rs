//! Packets that nobody meant for us, by DHCPv6.

use super::replay::{for_us, packets};
use super::world::{NOW, World};

#[test]
fn fuzzed_packets_of_clients_and_relays_are_answered_shortly_or_not_at_all() {
    let mut recorded: Vec<Vec<u8>> =
        packets().iter().map(|packet| for_us(&packet.bytes, &World::new())).collect();
    let relays: Vec<Vec<u8>> = recorded.iter().take(4).map(|inner| relayed(inner)).collect();
    recorded.extend(relays.iter().map(|inner| relayed(inner)).collect::<Vec<_>>());
    recorded.extend(relays);
    let samples: Vec<&[u8]> = recorded.iter().map(Vec::as_slice).collect();
    kiln_fuzz::check("dhcp6", &samples, |bytes| {
        let mut world = World::new();
        for now in [NOW, crate::dhcp::Timestamp(NOW.0 + 1)] {
            let Some(outcome) = world.take(bytes, "fe80::1", now) else { return };
            let _ = format!("{outcome:?}");
            assert!(outcome.leases.iter().all(|lease| world.subnet.may_give(lease.address)));
            if let Some(reply) = &outcome.reply {
                let most = 8 * 1024 + 2 * bytes.len();
                assert!(reply.encode().len() < most);
            }
        }
    });
}

/// Puts a relay around a packet, with a link address and an interface.
fn relayed(inner: &[u8]) -> Vec<u8> {
    let mut relay = vec![12, 0];
    relay.extend([0xfd, 0x77].into_iter().chain([0; 13]).chain([9]));
    relay.extend([0xfe, 0x80].into_iter().chain([0; 13]).chain([2]));
    relay.extend([0, 18, 0, 4, b'e', b't', b'h', b'0', 0, 9]);
    relay.extend(u16::try_from(inner.len()).unwrap().to_be_bytes());
    relay.extend(inner);
    relay
}
