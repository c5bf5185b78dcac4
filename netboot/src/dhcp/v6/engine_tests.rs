use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use kiln_inventory::{Asker, Firmware, Flag, Machine, Plan, Snapshot, UnknownMachines};
use kiln_types::Mac;

use super::encode::ReplyKind;
use super::engine::Outcome;
use super::note::Note;
use super::option;
use super::subnet::Mode;
use super::wire::tests::{ia, message, relayed};
use super::world::{NOW, World, address, option as of, options, told};
use crate::dhcp::Timestamp;

/// A client whose name is made of a hardware address that ends so.
struct Client {
    last: u8,
    link_local: String,
}

impl Client {
    fn new(last: u8) -> Self {
        Self { last, link_local: format!("fe80::5054:ff:fe77:{last:x}") }
    }

    fn says(&self, kind: u8, more: &[(u16, &[u8])], world: &mut World) -> Outcome {
        self.says_at(kind, more, world, NOW)
    }

    fn says_at(
        &self,
        kind: u8,
        more: &[(u16, &[u8])],
        world: &mut World,
        now: Timestamp,
    ) -> Outcome {
        let duid = [0, 3, 0, 1, 0x52, 0x54, 0, 0x77, 0, self.last];
        let mut all: Vec<(u16, &[u8])> = vec![(option::CLIENT_ID, &duid)];
        let server = world.server.as_bytes().to_vec();
        if matches!(kind, 3 | 5 | 8 | 9) && more.iter().all(|(code, _)| *code != option::SERVER_ID)
        {
            all.push((option::SERVER_ID, &server));
        }
        all.extend(more);
        world.take(&message(kind, &all), &self.link_local, now).expect("it is a request")
    }

    /// Solicits and requests, and returns the address.
    fn gets(&self, world: &mut World) -> Option<Ipv6Addr> {
        let offered = self.says(1, &[(option::IA_NA, &ia(1, None))], world).address?;
        let wanted = ia(1, Some(&offered.to_string()));
        let given = self.says(3, &[(option::IA_NA, &wanted)], world);
        assert_eq!((given.note, given.address), (Note::Given, Some(offered)));
        Some(offered)
    }

    /// The same where there may be none.
    fn gets_any(&self, world: &mut World) -> Option<Ipv6Addr> {
        let offer = self.says(1, &[(option::IA_NA, &ia(1, None))], world);
        offer.address.and_then(|_| self.gets(world))
    }
}

/// Returns the addresses of the first association with their times, and its status.
fn association(outcome: &Outcome) -> (Vec<(Ipv6Addr, u32)>, Option<u16>) {
    let value = of(outcome, option::IA_NA).expect("an association");
    let inside = options(&value[12..]);
    let addresses = inside.iter().filter(|o| o.0 == option::IA_ADDRESS).map(|(_, value)| {
        let octets: [u8; 16] = value[..16].try_into().unwrap();
        (octets.into(), u32::from_be_bytes(value[20..24].try_into().unwrap()))
    });
    let status = inside.iter().find(|o| o.0 == option::STATUS);
    (addresses.collect(), status.map(|(_, value)| u16::from_be_bytes([value[0], value[1]])))
}

fn status(outcome: &Outcome) -> Option<u16> {
    of(outcome, option::STATUS).map(|value| u16::from_be_bytes([value[0], value[1]]))
}

#[test]
fn an_address_is_offered_and_given_with_all_that_goes_with_it() {
    let mut world = World::new();
    let client = Client::new(9);
    let offer = client.says(1, &[(option::IA_NA, &ia(1, None))], &mut world);
    assert_eq!(offer.reply.as_ref().map(|reply| reply.kind), Some(ReplyKind::Advertise));
    assert_eq!(offer.reply.as_ref().unwrap().to.to_string(), "[fe80::5054:ff:fe77:9%7]:546");
    let codes: Vec<u16> = told(&offer).iter().map(|option| option.0).collect();
    assert_eq!(codes, [1, 2, 3, 7, 23, 24]);
    assert_eq!(of(&offer, option::PREFERENCE), Some(vec![255]));
    assert_eq!(of(&offer, option::DOMAIN_LIST).unwrap(), b"\x03lab\x07example\0");
    assert!(offer.leases.is_empty(), "nothing is durable yet");
    let wanted = ia(1, Some(&offer.address.unwrap().to_string()));
    let given = client.says(3, &[(option::IA_NA, &wanted)], &mut world);
    assert_eq!(given.leases[0].expires, NOW.0 + 3600);
    assert_eq!(given.leases[0].mac, Some(Mac::new([0x52, 0x54, 0, 0x77, 0, 9])));
    assert_eq!(association(&given), (vec![(offer.address.unwrap(), 3600)], None));
    // Renewed after half of the time and asked of all after four fifths.
    let value = of(&given, option::IA_NA).unwrap();
    assert_eq!(value[..12], [0, 0, 0, 1, 0, 0, 7, 8, 0, 0, 11, 64]);
    // A stranger that is not a machine gets nothing to boot.
    assert_eq!(of(&given, option::BOOT_FILE_URL), None);
    assert_eq!(client.gets(&mut world), offer.address, "it keeps it");
}

#[test]
fn who_asks_for_prefixes_or_temporary_addresses_is_told_that_there_are_none() {
    let mut world = World::new();
    let client = Client::new(9);
    let (prefixes, temporary) = ([0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 4]);
    let offered = client.gets(&mut world).unwrap().to_string();
    let ours = ia(1, Some(&offered));
    let asked: [(u16, &[u8]); 3] =
        [(option::IA_PD, &prefixes), (option::IA_NA, &ours), (option::IA_TA, &temporary)];
    let code = |outcome: &Outcome, option, times: usize| {
        let value = of(outcome, option)?;
        assert!(value[..4] == [0, 0, 0, if times == 0 { 4 } else { 3 }]);
        assert!(value[4..4 + times].iter().all(|byte| *byte == 0));
        let [(option::STATUS, text)] = &options(&value[4 + times..])[..] else { return None };
        Some(u16::from_be_bytes([text[0], text[1]]))
    };
    for (kind, prefixes, temporary) in [
        (1, Some(6), Some(2)),
        (3, Some(6), Some(2)),
        (5, Some(3), Some(3)),
        (6, None, None),
        (9, Some(3), Some(3)),
        (8, Some(3), Some(3)),
    ] {
        let told = client.says(kind, &asked, &mut world);
        let codes = (code(&told, option::IA_PD, 8), code(&told, option::IA_TA, 0));
        assert_eq!(codes, (prefixes, temporary), "{kind}");
    }
    // Its own server may know better.
    let alone = client.says(6, &asked[..1], &mut world);
    assert_eq!(alone.reply, None);
}

#[test]
fn a_reserved_address_is_found_by_whatever_tells_the_hardware_address() {
    let reserved = Some(address(0x200));
    assert_eq!(Client::new(2).gets(&mut World::new()), reserved, "by the address it asks from");
    let ours = ia(1, None);
    let solicit = |duid: &[u8]| message(1, &[(option::CLIENT_ID, duid), (option::IA_NA, &ours)]);
    let by_duid = solicit(&[0, 1, 0, 1, 9, 9, 9, 9, 0x52, 0x54, 0, 0x77, 0, 2]);
    let opaque = solicit(&[0, 2, 1, 2, 3, 4, 5]);
    let take = |packet: &[u8], from: &str| {
        World::new().take(packet, from, NOW).and_then(|outcome| outcome.address)
    };
    assert_eq!(take(&by_duid, "fe80::1"), reserved, "by the DUID");
    let mac = [0, 1, 0x52, 0x54, 0, 0x77, 0, 2];
    let relay = relayed(0, "fd77::1", "fe80::1", &[(option::LINK_LAYER, &mac)], &opaque);
    assert_eq!(take(&relay, "fd78::1"), reserved, "by option 79");
    let relay = relayed(0, "fd77::1", "fe80::5054:ff:fe77:2", &[], &opaque);
    assert_eq!(take(&relay, "fd78::1"), reserved, "by the address the relay saw");
    let other = take(&opaque, "fe80::1");
    assert!(other.is_some() && other != reserved);
}

#[test]
fn firmware_loader_and_system_of_one_machine_have_one_address() {
    let mut world = World::new();
    let mut addresses = Vec::new();
    for (duid, iaid) in [([0, 4, 1], 7), ([0, 4, 2], 8), ([0, 2, 9], 9)] {
        let solicit = message(1, &[(option::CLIENT_ID, &duid), (option::IA_NA, &ia(iaid, None))]);
        let offered = world.take(&solicit, "fe80::5054:ff:fe77:3", NOW).unwrap().address.unwrap();
        let server = world.server.as_bytes().to_vec();
        let request = message(
            3,
            &[
                (option::CLIENT_ID, &duid),
                (option::SERVER_ID, &server),
                (option::IA_NA, &ia(iaid, Some(&offered.to_string()))),
            ],
        );
        addresses.push(world.take(&request, "fe80::5054:ff:fe77:3", NOW).unwrap().address);
    }
    addresses.dedup();
    assert_eq!(addresses.len(), 1, "{addresses:?}");
}

#[test]
fn firmware_is_told_its_loader_and_ipxe_its_script() {
    let pxe = [&343_u32.to_be_bytes()[..], &[0, 9], b"PXEClient"].concat();
    let http = [&343_u32.to_be_bytes()[..], &[0, 10], b"HTTPClient"].concat();
    let association = ia(1, None);
    let says = |more: &[(u16, &[u8])]| {
        let mut all = vec![(option::IA_NA, association.as_slice())];
        all.extend(more);
        Client::new(3).says(1, &all, &mut World::new())
    };
    let url = |outcome: &Outcome| {
        of(outcome, option::BOOT_FILE_URL).map(|url| String::from_utf8(url).unwrap())
    };
    let outcome = says(&[(option::VENDOR_CLASS, &pxe), (option::CLIENT_ARCHITECTURE, &[0, 11])]);
    assert_eq!(url(&outcome).as_deref(), Some("tftp://[fd77::1]/ipxe/ipxe-arm64.efi"));
    assert_eq!(of(&outcome, option::VENDOR_CLASS), None);
    assert_eq!(outcome.sighting.unwrap().firmware, Some(Firmware::UefiArm64));
    let outcome = says(&[(option::VENDOR_CLASS, &http), (option::CLIENT_ARCHITECTURE, &[0, 16])]);
    assert_eq!(url(&outcome).as_deref(), Some("http://[fd77::1]:8080/loader/ipxe-amd64.efi"));
    assert_eq!(of(&outcome, option::VENDOR_CLASS), Some(http.clone()));
    // iPXE says that it is PXE too.
    let outcome = says(&[
        (option::VENDOR_CLASS, &pxe),
        (option::CLIENT_ARCHITECTURE, &[0, 7]),
        (option::USER_CLASS, b"\0\x04iPXE"),
    ]);
    let script = "http://[fd77::1]:8080/script/52-54-00-77-00-03.ipxe?firmware=uefi-x64";
    assert_eq!(url(&outcome).as_deref(), Some(script));
    assert_eq!(outcome.sighting.unwrap().asker, Asker::Ipxe);
    // Firmware of a machine that nobody knows is left to other servers.
    let stranger = Client::new(9).says(
        1,
        &[(option::IA_NA, &association), (option::VENDOR_CLASS, &pxe)],
        &mut World::new(),
    );
    assert_eq!((stranger.note, stranger.reply), (Note::Ignored, None));
    assert_eq!(stranger.decision.unwrap().plan, Plan::Ignore);
}

#[test]
fn a_machine_that_hides_its_hardware_address_is_known_by_its_uuid() {
    let pxe = [&343_u32.to_be_bytes()[..], &[0, 9], b"PXEClient"].concat();
    let uuid = [0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee];
    let duid = [&[0, 4][..], &uuid, &[0xff, 2]].concat();
    let packet = message(
        1,
        &[
            (option::CLIENT_ID, &duid),
            (option::IA_NA, &ia(1, None)),
            (option::VENDOR_CLASS, &pxe),
            (option::CLIENT_ARCHITECTURE, &[0, 11]),
            (option::USER_CLASS, b"\0\x04iPXE"),
        ],
    );
    let sighting = World::new().take(&packet, "fe80::1", NOW).unwrap().sighting.unwrap();
    assert_eq!(sighting.mac, Mac::new([0x52, 0x54, 0, 0x77, 0, 3]));
    assert_eq!(sighting.uuid.as_deref(), Some("11223344-5566-7788-99aa-bbccddeeff02"));
}

#[test]
fn one_reply_is_enough_only_where_both_want_that() {
    let rapid = (option::RAPID_COMMIT, &[][..]);
    let association = ia(1, None);
    let solicit = [(option::IA_NA, association.as_slice()), rapid];
    let mut world = World::new();
    let offer = Client::new(9).says(1, &solicit, &mut world);
    assert_eq!((offer.note, offer.leases.len()), (Note::Offered, 0));
    world.subnet.rapid_commit = true;
    let given = Client::new(9).says(1, &solicit, &mut world);
    assert_eq!((given.note, given.leases.len()), (Note::Given, 1));
    assert_eq!(given.reply.as_ref().unwrap().kind, ReplyKind::Reply);
    assert_eq!(of(&given, option::RAPID_COMMIT), Some(vec![]));
    let offer = Client::new(8).says(1, &solicit[..1], &mut world);
    assert_eq!(offer.note, Note::Offered);
}

#[test]
fn what_a_client_has_is_renewed_and_what_it_has_not_is_taken_from_it() {
    let mut world = World::new();
    let client = Client::new(9);
    let own = client.gets(&mut world).unwrap();
    let later = Timestamp(NOW.0 + 1800);
    let mine = ia(1, Some(&own.to_string()));
    let renewed = client.says_at(5, &[(option::IA_NA, &mine)], &mut world, later);
    assert_eq!(association(&renewed), (vec![(own, 3600)], None));
    assert_eq!(renewed.leases[0].expires, later.0 + 3600);
    // A reservation that came later: the new address is given, the old one ends.
    let moved = ia(1, Some("fd77::150"));
    let reserved = Client::new(2).says(5, &[(option::IA_NA, &moved)], &mut World::new());
    assert_eq!(association(&reserved), (vec![], Some(3)), "of an association nobody knows");
    let mut known = World::new();
    Client::new(2).gets(&mut known);
    let reserved = Client::new(2).says(5, &[(option::IA_NA, &moved)], &mut known);
    let expected = vec![(address(0x200), 3600), ("fd77::150".parse().unwrap(), 0)];
    assert_eq!(association(&reserved).0, expected);
    // Someone else's address, by a client that we do not know.
    let theirs = Client::new(8).says(5, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((theirs.note, association(&theirs)), (Note::NotItsAddress, (vec![], Some(3))));
    assert!(theirs.leases.is_empty());
    // A server that lost its memory lets who has a free address keep it.
    let again = client.says(5, &[(option::IA_NA, &mine)], &mut World::new());
    assert_eq!(association(&again), (vec![(own, 3600)], None));
}

#[test]
fn who_asks_every_server_is_answered_by_the_one_that_knows() {
    let mut world = World::new();
    let client = Client::new(9);
    let own = client.gets(&mut world).unwrap();
    let mine = ia(1, Some(&own.to_string()));
    let rebound = client.says(6, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((rebound.note, rebound.address), (Note::Given, Some(own)));
    let theirs = Client::new(8).says(6, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((theirs.note, theirs.reply), (Note::NotItsAddress, None));
    let elsewhere = ia(1, Some("fd78::5"));
    let moved = Client::new(8).says(6, &[(option::IA_NA, &elsewhere)], &mut world);
    assert_eq!(association(&moved).0, [("fd78::5".parse().unwrap(), 0)]);
}

#[test]
fn a_client_that_woke_up_learns_whether_it_is_where_it_was() {
    for (address, expected) in
        [(Some("fd77::5"), Some(0)), (Some("fd78::5"), Some(4)), (None, None)]
    {
        let outcome =
            Client::new(9).says(4, &[(option::IA_NA, &ia(1, address))], &mut World::new());
        assert_eq!(outcome.reply.is_some().then(|| status(&outcome).unwrap()), expected);
    }
    let elsewhere = ia(1, Some("fd78::5"));
    let asked = Client::new(9).says(3, &[(option::IA_NA, &elsewhere)], &mut World::new());
    assert_eq!(association(&asked), (vec![], Some(4)));
}

#[test]
fn an_address_given_back_is_free_and_one_that_is_in_use_is_kept_from_all() {
    let mut world = World::new();
    world.subnet.pool = vec![address(0x100)..=address(0x100)];
    let client = Client::new(9);
    let own = client.gets(&mut world).unwrap();
    let mine = ia(1, Some(&own.to_string()));
    assert_eq!(Client::new(8).gets(&mut world), None);
    // Of others nobody gives anything back.
    let theirs = Client::new(8).says(8, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((theirs.note, theirs.leases.len()), (Note::NotItsAddress, 0));
    assert_eq!((status(&theirs), association(&theirs).1), (Some(0), Some(3)));
    let theirs = Client::new(8).says(9, &[(option::IA_NA, &mine)], &mut world);
    assert!(theirs.quarantine.is_empty() && theirs.leases.is_empty());
    let released = client.says(8, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((released.note, status(&released)), (Note::Released, Some(0)));
    assert_eq!(Client::new(8).gets(&mut world), Some(own));
    let declined = Client::new(8).says(9, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((declined.note, &declined.quarantine[..]), (Note::Declined, &[own][..]));
    assert_eq!(client.gets(&mut world), None);
    assert_eq!(Client::new(8).gets(&mut world), None);
}

#[test]
fn a_reserved_address_that_someone_else_uses_is_not_given_to_its_machine_again_at_once() {
    let mut world = World::new();
    let client = Client::new(2);
    let reserved = client.gets(&mut world).unwrap();
    assert_eq!(reserved, address(0x200));
    let mine = ia(1, Some(&reserved.to_string()));
    let declined = client.says(9, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((declined.note, &declined.quarantine[..]), (Note::Declined, &[reserved][..]));
    assert!(client.gets(&mut world).is_some_and(|other| other != reserved));
    let later = Timestamp(NOW.0 + 600);
    let offer = client.says_at(1, &[(option::IA_NA, &ia(1, None))], &mut world, later);
    assert_eq!(offer.address, Some(reserved));
}

#[test]
fn without_an_address_to_give_the_answer_says_so() {
    let mut world = World::new();
    world.subnet.pool = vec![address(0x100)..=address(0x100)];
    Client::new(9).gets(&mut world).unwrap();
    let association_of_mine = ia(1, None);
    let none = Client::new(8).says(1, &[(option::IA_NA, &association_of_mine)], &mut world);
    assert_eq!((none.note, association(&none)), (Note::NoAddress, (vec![], Some(2))));
}

#[test]
fn each_association_of_a_client_gets_an_address_of_its_own() {
    for kind in [1, 3] {
        let mut world = World::new();
        world.subnet.pool = vec![address(0x100)..=address(0x101)];
        let (one, two, three) = (ia(1, None), ia(2, None), ia(3, None));
        let all = [(option::IA_NA, &one[..]), (option::IA_NA, &two), (option::IA_NA, &three)];
        let outcome = Client::new(9).says(kind, &all, &mut world);
        let held = outcome.holds.iter().map(|held| held.0);
        let mut given: Vec<_> = held.chain(outcome.leases.iter().map(|it| it.address)).collect();
        given.sort_unstable();
        assert_eq!(given, [address(0x100), address(0x101)], "{kind}");
    }
}

#[test]
fn a_full_pool_is_looked_through_once_a_second_and_again_when_an_address_is_free() {
    let mut world = World::new();
    world.subnet.pool = vec![address(0x100)..=address(0x100)];
    let (client, other) = (Client::new(9), Client::new(8));
    let own = client.gets(&mut world).unwrap();
    let association = ia(1, None);
    let asks = [(option::IA_NA, association.as_slice())];
    let none = other.says(1, &asks, &mut world);
    assert_eq!((none.note, none.full), (Note::NoAddress, Some(world.subnet.network)));
    assert!(world.leases.ours.is_full(world.subnet.network, NOW));
    let mine = ia(1, Some(&own.to_string()));
    let renewed = client.says(5, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!(renewed.address, Some(own), "who has one keeps it");
    assert_eq!(other.says(1, &asks, &mut world).note, Note::NoAddress);
    client.says(8, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!(other.gets(&mut world), Some(own));
    // Of who has one reserved nobody says that there is none.
    world.subnet.mode = Mode::Stateless;
    assert_eq!(other.says(1, &asks, &mut world).full, None);
}

#[test]
fn a_stateless_subnet_tells_the_rest_and_gives_only_what_is_reserved() {
    let mut world = World::new();
    (world.subnet.mode, world.subnet.pool) = (Mode::Stateless, vec![]);
    let informed = Client::new(9).says(11, &[], &mut world);
    assert_eq!((informed.note, informed.leases.len()), (Note::Informed, 0));
    assert!(of(&informed, option::DNS_SERVERS).is_some());
    assert_eq!(of(&informed, option::REFRESH_TIME), Some(vec![0, 0, 14, 16]));
    let anonymous = world.take(&message(11, &[]), "fe80::1", NOW).unwrap();
    assert_eq!(of(&anonymous, option::CLIENT_ID), None);
    let with = Client::new(9).says(11, &[(option::IA_NA, &ia(1, None))], &mut world);
    assert_eq!(with.reply, None);
    assert_eq!(Client::new(9).gets(&mut world), None);
    assert_eq!(Client::new(2).gets(&mut world), Some(address(0x200)));
}

#[test]
fn what_is_for_another_server_is_not_ours_to_answer() {
    for kind in [3, 5, 8, 9, 11] {
        let other = (option::SERVER_ID, &[0, 4, 1, 1][..]);
        let outcome = Client::new(9).says(kind, &[other], &mut World::new());
        assert_eq!((outcome.note, outcome.reply), (Note::OtherServer, None), "{kind}");
    }
}

#[test]
fn a_reply_goes_back_through_every_relay_that_the_request_came_by() {
    let duid = [0, 3, 0, 1, 0x52, 0x54, 0, 0x77, 0, 9];
    let inner = message(1, &[(option::CLIENT_ID, &duid), (option::IA_NA, &ia(1, None))]);
    let id = (option::INTERFACE_ID, &b"port 7"[..]);
    let near = relayed(0, "fd77::9", "fe80::9", &[id], &inner);
    let far = relayed(1, "::", "fd77::9", &[], &near);
    let reply = World::new().take(&far, "fd78::9", NOW).unwrap().reply.unwrap();
    assert_eq!(reply.to.to_string(), "[fd78::9%7]:547");
    let bytes = reply.encode();
    assert_eq!(bytes[..2], [13, 1]);
    let [(option::RELAY_MESSAGE, near)] = &options(&bytes[34..])[..] else { panic!("{bytes:?}") };
    assert_eq!(near[..2], [13, 0]);
    assert_eq!(near[18..34], "fe80::9".parse::<Ipv6Addr>().unwrap().octets());
    let inside = options(&near[34..]);
    assert_eq!(inside[0], (option::INTERFACE_ID, b"port 7".to_vec()));
    assert_eq!((inside[1].0, inside[1].1[0]), (option::RELAY_MESSAGE, 2));
}

#[test]
fn a_retired_machine_gets_no_boot_and_its_system_no_address() {
    let mut world = World::new();
    let retired = world.snapshot.machines().iter().map(|machine| {
        let mut machine = Machine::clone(machine);
        machine.spec.flags.insert(Flag::Retired);
        Arc::new(machine)
    });
    let images = world.snapshot.images.clone();
    world.snapshot = Snapshot::new(retired.collect(), images, UnknownMachines::Hold);
    let system = Client::new(2).says(1, &[(option::IA_NA, &ia(1, None))], &mut world);
    assert!(system.reply.is_none() && system.address.is_none());
    let pxe = [&343_u32.to_be_bytes()[..], &[0, 9], b"PXEClient"].concat();
    let asks = [(option::VENDOR_CLASS, &pxe[..]), (option::CLIENT_ARCHITECTURE, &[0, 7])];
    let firmware = Client::new(2).says(1, &asks, &mut world);
    let plan = firmware.decision.map(|decision| decision.plan);
    assert!(matches!(plan, Some(Plan::Refuse)), "{plan:?}");
}

/// Claims blocks for a time, as a server does that shares its pools.
fn claim(world: &mut World, blocks: &[u16], seconds: u64) {
    let block = |first: &u16| address(*first).to_bits() / 16;
    world.leases.ours.set_claims(blocks.iter().map(block).collect());
    world.leases.ours.set_left(Duration::from_secs(seconds));
}

#[test]
fn of_a_shared_pool_only_what_is_claimed_is_given_and_no_longer_than_it_is_claimed() {
    let mut world = World::new();
    claim(&mut world, &[], 7200);
    let nothing = Client::new(9).says(1, &[(option::IA_NA, &ia(1, None))], &mut world);
    assert_eq!(nothing.note, Note::NoAddress);
    claim(&mut world, &[0x120, 0x1c0], 1800);
    let ours = |given: &Ipv6Addr| matches!(given.segments()[7], 0x120..=0x12f | 0x1c0..=0x1cf);
    let all: Vec<Ipv6Addr> =
        (10..50).filter_map(|last| Client::new(last).gets_any(&mut world)).collect();
    assert_eq!(all.len(), 32);
    assert!(all.iter().all(ours), "{all:?}");
    let first = Client::new(10);
    let mine = ia(1, Some(&all[0].to_string()));
    let renewed = first.says(5, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!(association(&renewed).0, [(all[0], 1800)]);
    assert_eq!(renewed.leases[0].expires, NOW.0 + 1800);
    // What is reserved outside the pools every server gives, for the whole time; what is within, who has the block.
    assert_eq!(Client::new(2).gets(&mut world), Some(address(0x200)));
    // With too little of the claim left its clients are not kept here, and a stranger to us is left to its own server.
    claim(&mut world, &[0x120, 0x1c0], 59);
    let renewed = first.says(5, &[(option::IA_NA, &mine)], &mut world);
    assert_eq!((association(&renewed), renewed.leases.len()), ((vec![], Some(3)), 0));
    claim(&mut world, &[0x1c0], 1800);
    let theirs = ia(1, Some(&address(0x155).to_string()));
    let rebound = Client::new(60).says(6, &[(option::IA_NA, &theirs)], &mut world);
    assert_eq!((rebound.reply, rebound.note), (None, Note::NotItsAddress));
}
