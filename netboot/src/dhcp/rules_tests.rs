//! What clients are told besides addresses, and who gets a reserved one.

use std::sync::Arc;
use std::time::Duration;

use kiln_inventory::{Machine, MachineId, NewMachine, Snapshot};
use kiln_types::Mac;

use super::ReplyKind;
use super::engine::{Note, Outcome};
use super::leases::Timestamp;
use super::replay::{World, options};
use super::rules::Hostnames;
use super::wire::Request;
use super::wire::tests::packet;

const NOW: Timestamp = Timestamp(1_000_000);

/// Answers a packet with these options from the client whose hardware address ends in `last`.
fn ask(world: &mut World, last: u8, options: &[u8]) -> Outcome {
    ask_by(world, last, options, [0; 4])
}

fn ask_by(world: &mut World, last: u8, options: &[u8], relay: [u8; 4]) -> Outcome {
    let mut bytes = packet(options);
    bytes[33] = last;
    bytes[24..28].copy_from_slice(&relay);
    world.respond(&Request::decode(&bytes).unwrap(), NOW)
}

fn told(outcome: &Outcome) -> std::collections::BTreeMap<u8, Vec<u8>> {
    options(&outcome.reply.as_ref().unwrap().encode().unwrap())
}

/// Adds a machine whose own cards never ask.
fn with_machine(world: &mut World, change: impl FnOnce(&mut NewMachine)) {
    let mut spec = NewMachine {
        address: Some([10, 77, 0, 42].into()),
        ..NewMachine::new("odd", [Mac::new([2, 9, 9, 9, 9, 9])])
    };
    change(&mut spec);
    let machines = world.snapshot.machines().to_vec().into_iter();
    let machines =
        machines.chain([Arc::new(Machine { id: MachineId(99), revision: 1, spec })]).collect();
    world.snapshot = Snapshot::new(machines, world.snapshot.images.clone(), world.snapshot.unknown);
}

#[test]
fn an_address_is_reserved_by_uuid_in_both_orders_client_id_or_port_of_a_switch() {
    let address = Some([10, 77, 0, 42].into());
    let given = |world: &mut World, options: &[u8], relay| {
        ask_by(world, 77, options, relay).reply.map(|reply| reply.yiaddr)
    };
    let relay = [10, 77, 0, 8];
    let mut world = World::new();
    with_machine(&mut world, |spec| {
        spec.uuid = Some("11223344-5566-7788-99AA-bbccddeeff01".to_owned());
    });
    let rest = [0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 1];
    for first in [
        [0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0x88, 0x77],
        [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88],
    ] {
        let said = [&[53, 1, 1, 97, 17, 0][..], &first, &rest].concat();
        assert_eq!(given(&mut world, &said, [0; 4]), address, "{first:?}");
    }
    let mut world = World::new();
    with_machine(&mut world, |spec| spec.client_id = "hex:ff0102".parse().ok());
    let reply = ask(&mut world, 77, &[53, 1, 1, 61, 3, 0xff, 1, 2]);
    assert_eq!(told(&reply)[&12], b"odd", "its name as well");
    assert_eq!(reply.reply.map(|reply| reply.yiaddr), address);
    assert_ne!(given(&mut world, &[53, 1, 1, 61, 2, 0xff, 1], [0; 4]), address);
    let mut world = World::new();
    with_machine(&mut world, |spec| spec.circuit_id = "eth7".parse().ok());
    let said = [53, 1, 1, 82, 6, 1, 4, b'e', b't', b'h', b'7'];
    assert_ne!(given(&mut world, &said, [0; 4]), address, "nobody but a relay may say so");
    assert_eq!(given(&mut world, &said, relay), address);
    // While one card has it, another at the same port gets another address.
    let request = [&said[..], &[50, 4, 10, 77, 0, 42]].concat();
    let mut request = request;
    request[2] = 3;
    assert_eq!(given(&mut world, &request, relay), address);
    let other = ask_by(&mut world, 78, &said, relay).reply.unwrap().yiaddr;
    assert_ne!(Some(other), address);
}

#[test]
fn subnets_and_machines_say_what_clients_are_told() {
    let mut world = World::new();
    let rules = &mut world.subnet.rules;
    rules.ntp = vec![[10, 77, 0, 9].into()];
    rules.search = vec!["lab.example".to_owned()];
    rules.routes = vec!["10.99.0.0/16 via 10.77.0.9".parse().unwrap()];
    rules.mtu = Some(9000);
    rules.options = [(150, "ip:10.77.0.3"), (252, "text:http://wpad/"), (53, "u8:9")]
        .map(|(code, value)| (code, value.parse().unwrap()))
        .into();
    let first = told(&ask(&mut world, 40, &[53, 1, 1]));
    let expected: [(u8, &[u8]); 6] = [
        (42, &[10, 77, 0, 9]),
        (119, b"\x03lab\x07example\0"),
        (121, &[16, 10, 99, 10, 77, 0, 9, 0, 10, 77, 0, 254]),
        (26, &[0x23, 0x28]),
        (150, &[10, 77, 0, 3]),
        (252, b"http://wpad/"),
    ];
    for (code, value) in expected {
        assert_eq!(first[&code], value, "{code}");
    }
    assert_eq!(first[&53], [2]);
    with_machine(&mut world, |spec| {
        spec.client_id = "me".parse().ok();
        spec.dhcp_options = [(3, "ip:10.77.0.7"), (252, "text:x")]
            .map(|(code, value)| (code, value.parse().unwrap()))
            .into();
    });
    let own = told(&ask(&mut world, 41, &[53, 1, 1, 61, 2, b'm', b'e']));
    assert_eq!((&own[&3][..], &own[&252][..]), (&[10, 77, 0, 7][..], &b"x"[..]));
    assert_eq!(own[&42], [10, 77, 0, 9]);
    let codes: Vec<u8> = {
        let bytes = ask(&mut world, 40, &[53, 1, 1]).reply.unwrap().encode().unwrap();
        vec![bytes[240], bytes[243]]
    };
    assert_eq!(codes, [53, 54], "the first two");
}

#[test]
fn host_names_follow_the_rule_of_the_subnet() {
    let mut world = World::new();
    let mut name = |rule, last| {
        world.subnet.rules.hostnames = rule;
        told(&ask(&mut world, last, &[53, 1, 1])).remove(&12)
    };
    assert_eq!(name(Hostnames::Machines, 1).as_deref(), Some(&b"bios"[..]));
    assert_eq!(name(Hostnames::Machines, 40), None);
    assert!(name(Hostnames::All, 40).is_some_and(|name| name.starts_with(b"ip-10-77-0-")));
    assert_eq!(name(Hostnames::None, 1), None);
}

#[test]
fn lease_times_are_what_was_asked_for_within_bounds() {
    let mut world = World::new();
    world.subnet.rules.max_lease = Some(Duration::from_secs(7200));
    let outcome = ask(&mut world, 1, &[53, 1, 3, 50, 4, 10, 77, 0, 199, 51, 4, 0, 1, 0, 0]);
    let told = told(&outcome);
    assert_eq!(outcome.lease.map(|lease| lease.expires), Some(NOW.0 + 7200));
    assert_eq!(
        (&told[&51][2..], &told[&58][2..], &told[&59][2..]),
        (&7200_u16.to_be_bytes()[..], &3600_u16.to_be_bytes()[..], &6300_u16.to_be_bytes()[..],)
    );
}

#[test]
fn who_is_not_authoritative_keeps_silent_about_what_it_does_not_know() {
    let mut world = World::new();
    world.subnet.rules.authoritative = false;
    let stranger = [53, 1, 3, 50, 4, 10, 77, 0, 60];
    assert_eq!(ask(&mut world, 40, &stranger).note, Note::NotOurs);
    let chosen = [&stranger[..], &[54, 4, 10, 77, 0, 1]].concat();
    assert_eq!(ask(&mut world, 40, &chosen).note, Note::Given, "it has chosen us");
    let wrong = [53, 1, 3, 50, 4, 10, 77, 0, 61];
    assert_eq!(ask(&mut world, 40, &wrong).reply.map(|r| r.kind), Some(ReplyKind::Nak));
    assert_eq!(ask(&mut world, 1, &wrong).reply.map(|r| r.kind), Some(ReplyKind::Nak));
}

#[test]
fn bootp_gives_reserved_addresses_for_ever_and_no_others() {
    let mut world = World::new();
    let outcome = ask(&mut world, 1, &[255]);
    let reply = outcome.reply.unwrap();
    assert_eq!((reply.kind, reply.yiaddr), (ReplyKind::Bootp, [10, 77, 0, 199].into()));
    assert!(
        outcome
            .lease
            .is_some_and(|lease| lease.expires > NOW.after(Duration::from_hours(99_999)).0)
    );
    let bytes = reply.encode().unwrap();
    assert!(!options(&bytes).keys().any(|code| matches!(code, 51..=54)), "nothing of DHCP");
    assert_eq!(ask(&mut world, 40, &[255]).note, Note::Ignored);
    let other = [53, 1, 3, 50, 4, 10, 77, 0, 199];
    assert_eq!(ask(&mut world, 41, &other).reply.map(|r| r.kind), Some(ReplyKind::Nak));
}

#[test]
fn a_retransmitted_discover_gets_the_same_offer_and_an_address_is_looked_for_once() {
    let mut world = World::new();
    let first = ask(&mut world, 40, &[53, 1, 1]);
    let offered = first.reply.unwrap().yiaddr;
    assert_eq!(first.probe, Some(offered));
    let again = ask(&mut world, 40, &[53, 1, 1]);
    assert_eq!((again.reply.unwrap().yiaddr, again.probe), (offered, Some(offered)));
    world.leases.note_probed(offered, Mac::new([0x52, 0x54, 0, 0x77, 0, 40]));
    assert_eq!(ask(&mut world, 40, &[53, 1, 1]).probe, None);
    let mut request = vec![53, 1, 3, 50, 4];
    request.extend(offered.octets());
    assert_eq!(ask(&mut world, 40, &request).note, Note::Given);
    assert_eq!(ask(&mut world, 40, &[53, 1, 1]).probe, None, "it is its own");
    assert_eq!(ask_by(&mut world, 41, &[53, 1, 1], [10, 77, 0, 8]).probe, None, "out of our sight");
    world.subnet.rules.probe = false;
    assert_eq!(ask(&mut world, 42, &[53, 1, 1]).probe, None);
}

#[test]
fn a_pool_that_is_full_is_searched_once_a_second() {
    let mut world = World::new();
    world.subnet.pool = vec![[10, 77, 0, 60].into()..=[10, 77, 0, 60].into()];
    assert_eq!(ask(&mut world, 40, &[53, 1, 1]).note, Note::Offered);
    assert_eq!(ask(&mut world, 41, &[53, 1, 1]).note, Note::PoolExhausted);
    assert!(world.leases.ours.is_full(world.subnet.network.address().to_bits(), NOW));
    // Given back, it is there at once.
    ask(&mut world, 40, &[53, 1, 3, 54, 4, 10, 77, 0, 9]);
    assert_eq!(ask(&mut world, 41, &[53, 1, 1]).note, Note::Offered);
}
