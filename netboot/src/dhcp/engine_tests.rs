use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;

use kiln_inventory::{Flag, Lease, LoaderChoice, Machine, Plan, Snapshot, UnknownMachines};
use kiln_types::Mac;

use super::ReplyKind;
use super::engine::{Note, Outcome};
use super::leases::Timestamp;
use super::replay::{Random, World, options, packets, rounds};
use super::wire::Request;
use super::wire::tests::packet;

const NOW: Timestamp = Timestamp(1_000_000);
const SERVER: [u8; 4] = [10, 77, 0, 1];

/// A client with its own address fields and options.
#[derive(Clone)]
struct Client {
    mac: [u8; 6],
    ciaddr: [u8; 4],
    giaddr: [u8; 4],
    options: Vec<(u8, Vec<u8>)>,
}

impl Client {
    fn new(last: u8) -> Self {
        let mac = [0x52, 0x54, 0, 0x77, 0, last];
        Self { mac, ciaddr: [0; 4], giaddr: [0; 4], options: vec![] }
    }

    fn with(mut self, code: u8, value: &[u8]) -> Self {
        self.options.push((code, value.to_vec()));
        self
    }

    fn has(mut self, address: [u8; 4]) -> Self {
        self.ciaddr = address;
        self
    }

    fn relayed_by(mut self, address: [u8; 4]) -> Self {
        self.giaddr = address;
        self
    }

    fn says(&self, kind: u8, world: &mut World) -> Outcome {
        let mut bytes = vec![53, 1, kind];
        for (code, value) in &self.options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(value);
        }
        let mut bytes = packet(&bytes);
        bytes[28..34].copy_from_slice(&self.mac);
        bytes[12..16].copy_from_slice(&self.ciaddr);
        bytes[24..28].copy_from_slice(&self.giaddr);
        world.respond(&Request::decode(&bytes).unwrap(), NOW)
    }

    /// Goes through DISCOVER and REQUEST and returns the address, if it was given one.
    fn boots(&self, world: &mut World) -> Option<Ipv4Addr> {
        let offered = self.says(1, world).reply?.yiaddr;
        let request = self.clone().with(50, &offered.octets()).with(54, &SERVER);
        let reply = request.says(3, world).reply?;
        assert_eq!((reply.kind, reply.yiaddr), (ReplyKind::Ack, offered));
        Some(offered)
    }
}

fn kind(outcome: &Outcome) -> Option<ReplyKind> {
    outcome.reply.as_ref().map(|reply| reply.kind)
}

fn ends(last: u8, expires: i64, mac: u8) -> Lease {
    let mac = Mac::new([0x52, 0x54, 0, 0x77, 0, mac]);
    Lease { address: [10, 77, 0, last].into(), mac, expires, hostname: None }
}

#[test]
fn a_machine_keeps_its_address_from_boot_to_boot() {
    let mut world = World::new();
    let first = Client::new(40).boots(&mut world).unwrap();
    assert_eq!(Client::new(40).boots(&mut world), Some(first));
    assert_eq!(Client::new(40).boots(&mut World::new()), Some(first), "also without memory");
}

#[test]
fn no_two_machines_have_one_address_and_the_pool_ends() {
    let mut world = World::new();
    world.subnet.pool = vec![[10, 77, 0, 97].into()..=[10, 77, 0, 104].into()];
    let mut given: Vec<_> =
        (40..60).filter_map(|last| Client::new(last).boots(&mut world)).collect();
    given.sort();
    // .100 is reserved for the third machine.
    let expected = [97, 98, 99, 101, 102, 103, 104].map(|last| Ipv4Addr::new(10, 77, 0, last));
    assert_eq!(given, expected);
    assert_eq!(Client::new(99).says(1, &mut world).note, Note::PoolExhausted);
    assert_eq!(Client::new(3).boots(&mut world), Some([10, 77, 0, 100].into()));
}

#[test]
fn two_offers_at_once_are_two_addresses() {
    let mut world = World::new();
    world.subnet.pool = vec![[10, 77, 0, 60].into()..=[10, 77, 0, 61].into()];
    let mut offer = |last| Client::new(last).says(1, &mut world).reply.unwrap().yiaddr;
    assert_ne!(offer(40), offer(41));
}

#[test]
fn an_ended_lease_is_given_to_others_only_when_nothing_else_is_free() {
    let mut world = World::new();
    world.subnet.pool = vec![[10, 77, 0, 60].into()..=[10, 77, 0, 61].into()];
    world.leases.insert(ends(60, NOW.0 - 10, 40));
    assert_eq!(Client::new(41).boots(&mut world), Some([10, 77, 0, 61].into()));
    assert_eq!(Client::new(42).boots(&mut world), Some([10, 77, 0, 60].into()));
}

#[test]
fn a_reserved_address_in_use_by_another_card_is_not_doubled() {
    let mut world = World::new();
    world.leases.insert(ends(199, NOW.0 + 10, 77));
    let other = Client::new(1).boots(&mut world).unwrap();
    assert_ne!(other, Ipv4Addr::new(10, 77, 0, 199));
}

#[test]
fn requests_of_all_states_are_told_apart() {
    let wrong = [10, 77, 0, 9];
    // init-reboot, renewing: its own address, an address it does not have, an address of another network
    for address in [[10, 77, 0, 199], wrong, [192, 168, 1, 5]] {
        let right = address == [10, 77, 0, 199];
        let expected = Some(if right { ReplyKind::Ack } else { ReplyKind::Nak });
        let reboot = Client::new(1).with(50, &address);
        assert_eq!(kind(&reboot.says(3, &mut World::new())), expected);
        let renewing = Client::new(1).has(address);
        assert_eq!(kind(&renewing.says(3, &mut World::new())), expected);
        let selecting = reboot.with(54, &SERVER);
        assert_eq!(kind(&selecting.says(3, &mut World::new())), expected);
    }
    let elsewhere = Client::new(1).with(50, &[10, 77, 0, 199]).with(54, &[10, 77, 0, 2]);
    assert_eq!(elsewhere.says(3, &mut World::new()).note, Note::OtherServer);
    assert_eq!(Client::new(1).says(3, &mut World::new()).note, Note::NotItsAddress);
}

#[test]
fn a_client_that_chooses_another_server_frees_its_offer() {
    let mut world = World::new();
    world.subnet.pool = vec![[10, 77, 0, 60].into()..=[10, 77, 0, 60].into()];
    assert_eq!(kind(&Client::new(40).says(1, &mut world)), Some(ReplyKind::Offer));
    assert_eq!(Client::new(41).says(1, &mut world).note, Note::PoolExhausted);
    Client::new(40).with(54, &[10, 77, 0, 2]).says(3, &mut world);
    assert_eq!(kind(&Client::new(41).says(1, &mut world)), Some(ReplyKind::Offer));
}

#[test]
fn a_nak_says_no_more_than_who_sends_it() {
    let client = Client::new(1).with(50, &[10, 77, 0, 9]).with(61, &[1, 2]).with(60, b"PXEClient");
    let reply = client.says(3, &mut World::new()).reply.unwrap();
    assert_eq!(reply.to, SocketAddrV4::new(Ipv4Addr::BROADCAST, 68));
    assert!(reply.siaddr.is_unspecified() && reply.yiaddr.is_unspecified());
    let codes: Vec<u8> = options(&reply.encode().unwrap()).into_keys().collect();
    assert_eq!(codes, [53, 54, 61]);
    let reply = client.relayed_by([10, 77, 0, 8]).says(3, &mut World::new()).reply.unwrap();
    assert_eq!(
        (reply.flags, reply.to.ip().octets(), reply.to.port()),
        (0x8000, [10, 77, 0, 8], 67)
    );
}

#[test]
fn replies_go_where_the_client_or_its_relay_hears_them() {
    let to = |client: Client, kind| client.says(kind, &mut World::new()).reply.unwrap().to;
    assert_eq!(to(Client::new(1), 1).to_string(), "255.255.255.255:68");
    assert_eq!(to(Client::new(1).has([10, 77, 0, 199]), 3).to_string(), "10.77.0.199:68");
    assert_eq!(to(Client::new(1).relayed_by([10, 77, 0, 8]), 1).to_string(), "10.77.0.8:67");
    let far = Client::new(1).relayed_by([10, 78, 0, 8]);
    assert_eq!(far.says(1, &mut World::new()).note, Note::OtherNetwork);
    let far = Client::new(1).has([8, 8, 8, 8]);
    assert_eq!(far.says(8, &mut World::new()).note, Note::OtherNetwork);
}

#[test]
fn what_a_relay_added_comes_back_unchanged() {
    let agent = [2, 2, 9, 9, 1, 1, 7];
    let client = Client::new(1).relayed_by([10, 77, 0, 8]).with(82, &agent);
    let reply = client.says(1, &mut World::new()).reply.unwrap();
    assert_eq!(options(&reply.encode().unwrap())[&82], agent);
}

#[test]
fn a_declined_address_is_not_given_again_soon() {
    let mut world = World::new();
    let first = Client::new(40).boots(&mut world).unwrap();
    let thief = Client::new(41).with(50, &first.octets());
    assert_eq!(thief.says(4, &mut world).note, Note::NotItsAddress);
    let outcome = Client::new(40).with(50, &first.octets()).says(4, &mut world);
    assert_eq!((outcome.note, kind(&outcome)), (Note::Declined, None));
    assert_ne!(Client::new(40).boots(&mut world), Some(first));
    let owner = Client::new(1).boots(&mut world).unwrap();
    Client::new(1).with(50, &owner.octets()).says(4, &mut world);
    assert!(Client::new(1).boots(&mut world).is_some_and(|address| address != owner));
}

#[test]
fn a_released_address_is_free_but_remembered() {
    let mut world = World::new();
    let first = Client::new(40).boots(&mut world).unwrap();
    assert_eq!(Client::new(41).has(first.octets()).says(7, &mut world).note, Note::NotItsAddress);
    let outcome = Client::new(40).has(first.octets()).says(7, &mut world);
    assert_eq!((outcome.note, kind(&outcome)), (Note::Released, None));
    let taken = Client::new(41).with(50, &first.octets()).says(3, &mut world);
    assert_eq!(kind(&taken), Some(ReplyKind::Ack), "free for who asks for it");
}

#[test]
fn inform_is_answered_without_a_lease() {
    let outcome = Client::new(9).has([10, 77, 0, 30]).says(8, &mut World::new());
    let reply = outcome.reply.unwrap();
    assert_eq!((reply.kind, reply.yiaddr, outcome.lease), (ReplyKind::Ack, [0; 4].into(), None));
    assert_eq!(reply.to.to_string(), "10.77.0.30:68");
    let options = options(&reply.encode().unwrap());
    assert!([51, 58, 59].iter().all(|code| !options.contains_key(code)));
    assert!(options.contains_key(&1) && options.contains_key(&3));
}

#[test]
fn an_unknown_machine_gets_an_address_but_no_boot() {
    let mut world = World::new();
    let firmware = Client::new(40).with(60, b"PXEClient:Arch:00007").with(93, &[0, 7]);
    let outcome = firmware.says(1, &mut world);
    assert_eq!((outcome.note, kind(&outcome)), (Note::Ignored, None));
    assert!(outcome.sighting.is_some(), "it is recorded");
    let reply = Client::new(40).says(1, &mut world).reply.unwrap();
    assert_eq!((reply.siaddr, reply.file.as_str()), ([0; 4].into(), ""));
    world.snapshot.unknown = UnknownMachines::Hold;
    assert!(firmware.says(1, &mut world).reply.is_some_and(|reply| !reply.file.is_empty()));
}

#[test]
fn a_retired_machine_gets_no_boot_and_its_system_no_address() {
    let mut world = World::new();
    let retired = world.snapshot.machines().iter().map(|machine| {
        let mut machine = Machine::clone(machine);
        machine.spec.flags.insert(Flag::Retired);
        machine.spec.loader = Some(LoaderChoice::Uki);
        Arc::new(machine)
    });
    let last = retired.clone().next().unwrap().spec.macs.first().unwrap().octets()[5];
    let images = world.snapshot.images.clone();
    world.snapshot = Snapshot::new(retired.collect(), images, UnknownMachines::Hold);
    let system = Client::new(last).says(1, &mut world);
    assert_eq!((system.note, system.reply), (Note::Ignored, None));
    for (class, number) in [("PXEClient:Arch:00007", 7), ("HTTPClient:Arch:00016", 16)] {
        let firmware = Client::new(last).with(60, class.as_bytes()).with(93, &[0, number]);
        let outcome = firmware.says(1, &mut world);
        assert_eq!(outcome.decision.map(|decision| decision.plan), Some(Plan::Refuse));
        // It is told why, by a loader that boots nothing.
        let file = outcome.reply.map(|reply| reply.file).unwrap_or_default();
        assert!(!file.contains("/uki/"), "{file}");
    }
}

#[test]
fn damaged_packets_get_short_replies_or_none_and_never_two_owners() {
    let mut random = Random::new(0x6468_6370);
    let mut world = World::new();
    world.snapshot.unknown = UnknownMachines::Hold;
    for recorded in packets() {
        for _ in 0..rounds(100) {
            let mut bytes = recorded.bytes.clone();
            for _ in 0..random.below(6) {
                let at = random.below(bytes.len());
                bytes[at] = random.byte();
            }
            // Any last byte of the hardware address: many machines.
            bytes[33] = random.byte();
            let Ok(request) = Request::decode(&bytes) else { continue };
            let before = world.leases.clone();
            let outcome = world.respond(&request, NOW);
            if let Some(Ok(reply)) = outcome.reply.as_ref().map(super::Reply::encode) {
                assert!((300..=1472).contains(&reply.len()));
            }
            if let Some(lease) = outcome.lease.filter(|lease| lease.expires > NOW.0) {
                let owner = before.at(lease.address).filter(|old| old.expires > NOW.0);
                assert!(owner.is_none_or(|old| old.mac == request.mac), "{lease:?}");
            }
        }
    }
}
