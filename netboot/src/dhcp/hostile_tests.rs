//! Inputs that have brought down other servers, one test for each kind: the numbers are of the list from which they
//! were taken, of advisories about Kea, ISC DHCP and dnsmasq.

use std::net::Ipv4Addr;

use super::engine::{Note, Outcome};
use super::leases::Timestamp;
use super::replay::{Random, World, packets, rounds};
use super::wire::tests::packet;
use super::wire::{Kind, Request};

const NOW: Timestamp = Timestamp(1_000_000);

/// Answers a packet, if it can be read, and encodes and logs what comes out.
fn play(world: &mut World, bytes: &[u8]) -> Option<Outcome> {
    let request = Request::decode(bytes).ok()?;
    let outcome = world.respond(&request, NOW);
    if let Some(Ok(reply)) = outcome.reply.as_ref().map(super::Reply::encode) {
        assert!((300..=1472).contains(&reply.len()));
    }
    // The path of the log, too (CVE-2018-5732).
    let _ = format!("{request:?} {outcome:?}");
    Some(outcome)
}

fn option(code: u8, value: &[u8]) -> Vec<u8> {
    let mut out = vec![code, u8::try_from(value.len()).unwrap()];
    out.extend(value);
    out
}

/// CVE-2025-40779: a unicast request from nowhere that we serve, with any option.
#[test]
fn unicast_requests_from_no_subnet_of_ours_are_left_alone_whatever_their_options() {
    let mut world = World::new();
    for kind in [1, 3, 4, 7, 8] {
        for code in 1..=254 {
            let mut bytes = packet(&[vec![53, 1, kind], option(code, &[1, 2, 3, 4])].concat());
            bytes[12..16].copy_from_slice(&[203, 0, 113, 9]);
            if let Some(outcome) = play(&mut world, &bytes) {
                let to = outcome.reply.map(|reply| *reply.to.ip());
                assert!(to.is_none_or(|to| to == Ipv4Addr::BROADCAST), "{kind} {code}: {to:?}");
            }
        }
    }
}

/// CVE-2025-11232 and CVE-2019-6473: names of which nothing is left.
#[test]
fn names_of_which_nothing_is_left_are_no_names() {
    let names: [&[u8]; 8] =
        [b"!!!", b"\0", b"", b".", b"\xff\xfe", b"-", b"\0\0\0", b"a\nb\x1b[31m"];
    for name in names {
        for code in [12, 81] {
            let value = if code == 81 { [&[0, 0, 0][..], name].concat() } else { name.to_vec() };
            let said = [vec![53, 1, 3, 50, 4, 10, 77, 0, 60], option(code, &value)].concat();
            let outcome = play(&mut World::new(), &packet(&said)).unwrap();
            assert_eq!(outcome.lease.unwrap().hostname, None, "{name:?}");
        }
    }
}

/// CVE-2019-6472: client identifiers of no bytes and of 255, and of more in parts.
#[test]
fn client_identifiers_may_be_empty_or_long() {
    for parts in [vec![], vec![255], vec![255, 255], vec![129]] {
        let id: Vec<u8> = parts.iter().flat_map(|length| option(61, &vec![7; *length])).collect();
        let empty = if id.is_empty() { option(61, &[]) } else { id };
        let said = [vec![53, 1, 1], empty].concat();
        let outcome = play(&mut World::new(), &packet(&said)).unwrap();
        assert_eq!(outcome.note, Note::Offered, "{parts:?}");
    }
}

/// CVE-2022-2929: a domain name with a label longer than 63 bytes, again and again.
#[test]
fn names_with_labels_that_are_too_long_leave_nothing_behind() {
    let mut world = World::new();
    let name = [&[0, 0, 0, 200][..], &[b'x'; 200]].concat();
    let said = [vec![53, 1, 3, 50, 4, 10, 77, 0, 60], option(81, &name)].concat();
    let bytes = packet(&said);
    for _ in 0..rounds(100) * 10 {
        play(&mut world, &bytes).unwrap();
    }
    assert_eq!(world.leases.all().len(), 1);
}

/// CVE-2022-2928: one option two hundred times.
#[test]
fn one_option_two_hundred_times_is_one_option() {
    for code in 1..=254 {
        let many: Vec<u8> = (0..200).flat_map(|n| option(code, &[n])).collect();
        play(&mut World::new(), &packet(&[vec![53, 1, 1], many].concat()));
    }
}

/// CVE-2021-25217: options within options at their full length come back as they were, and no later start minds them.
#[test]
fn encapsulated_options_of_full_length_come_back_unchanged() {
    let agent: Vec<u8> = (0..255_u8).collect();
    let said =
        [vec![53, 1, 1], option(43, &[0xff; 255]), option(82, &agent), option(82, &agent)].concat();
    let mut bytes = packet(&said);
    bytes[24..28].copy_from_slice(&[10, 77, 0, 8]);
    let outcome = play(&mut World::new(), &bytes).unwrap();
    let whole = [option(82, &agent), option(82, &agent)].concat();
    assert_eq!(outcome.reply.as_ref().unwrap().relay_agent, whole);
    let reply = outcome.reply.unwrap().encode().unwrap();
    let end = reply.iter().rposition(|byte| *byte == 255).unwrap();
    assert_eq!(reply[end - whole.len()..end], whole);
    // More than fits is an error, not half of it.
    let many: Vec<u8> = (0..6).flat_map(|_| option(82, &agent)).collect();
    let mut bytes = packet(&[vec![53, 1, 1], many].concat());
    bytes[24..28].copy_from_slice(&[10, 77, 0, 8]);
    let outcome = play(&mut World::new(), &bytes).unwrap();
    assert!(outcome.reply.unwrap().encode().is_err());
}

/// CVE-2018-5732 and CVE-2018-5733: cut-off options, an overload that names itself, an end within, floods of padding.
#[test]
fn cut_off_options_overloads_of_overloads_and_floods_of_padding_are_read_to_their_end() {
    let overloaded = |inner: &[u8]| {
        let mut bytes = packet(&[53, 1, 1, 52, 1, 3, 255]);
        bytes[108..108 + inner.len()].copy_from_slice(inner);
        bytes[44..44 + inner.len()].copy_from_slice(inner);
        bytes
    };
    let inner: [&[u8]; 5] =
        [&[52, 1, 3], &[52, 1, 3, 52, 1, 3, 255], &[255], &[12, 200, 1], &[53, 255]];
    for inner in inner {
        let read = Request::decode(&overloaded(inner));
        assert!(read.is_ok_and(|request| request.kind == Kind::Discover) || inner[0] == 53);
    }
    for cut in 0..20 {
        let said = [vec![53, 1, 1], option(60, b"PXEClient:Arch:00007")].concat();
        play(&mut World::new(), &packet(&said[..said.len() - cut]));
    }
    play(&mut World::new(), &packet(&[vec![0; 3000], vec![53, 1, 1]].concat())).unwrap();
    play(&mut World::new(), &packet(&[53, 1, 1, 255, 12, 250, 255, 0, 0])).unwrap();
}

/// Everything at once: bytes, lengths, parts and whole options of recorded packets changed, for as long as
/// `./dev fuzz` says, with one server that must not grow.
#[test]
fn damaged_packets_change_nothing_but_leases_and_take_no_memory() {
    let mut random = Random::new(0x6b69_6c6e_3476);
    let mut world = World::new();
    let mut memory = None;
    for (number, recorded) in packets().into_iter().enumerate() {
        if number == 4 {
            memory = resident();
        }
        for _ in 0..rounds(60) {
            let mut bytes = recorded.bytes.clone();
            for _ in 0..=random.below(4) {
                damage(&mut bytes, &mut random);
            }
            play(&mut world, &bytes);
            if let Ok(request) = Request::decode(&bytes) {
                let from = std::net::SocketAddrV4::new(request.ciaddr, 68);
                let outcome = world.respond_4011(&request, from);
                if let Some(Ok(reply)) = outcome.reply.as_ref().map(super::Reply::encode) {
                    assert!((300..=1472).contains(&reply.len()));
                }
            }
        }
    }
    assert!(world.leases.all().len() <= 254, "one for each address of the subnet at most");
    // Among other tests of this process nothing could be told from it.
    if std::env::var_os("KILN_FUZZ_ROUNDS").is_some() {
        let (before, after) = (memory.unwrap(), resident().unwrap());
        assert!(after < before + (16 << 20), "{before} bytes of memory became {after}");
    }
}

/// Options that hold options: of PXE (43), of relays (82), of iPXE (175), with lengths that are right by chance only.
#[test]
fn damaged_options_within_options_are_read_or_left_out_and_go_back_as_they_came() {
    let mut random = Random::new(0x6b69_6c6e_0043);
    let mut world = World::new();
    let mut back = 0;
    for _ in 0..rounds(60) * 20 {
        let mut said = vec![53, 1, [1, 3, 8][random.below(3)]];
        let mut agent = Vec::new();
        for code in [43, 175, 82] {
            let mut value = Vec::new();
            for _ in 0..random.below(12) {
                let code = [1, 5, 11, 71, 0x14, 0, 255, random.byte()][random.below(8)];
                value.extend([code, random.byte() % 9]);
                value.extend((0..random.below(9)).map(|_| random.byte()));
            }
            value.truncate(255);
            agent = option(code, &value);
            said.extend(&agent);
        }
        let mut bytes = packet(&said);
        bytes[24..28].copy_from_slice(&[10, 77, 0, 8]);
        // A machine of the inventory: others get no answer once option 175 says that they boot.
        bytes[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 1]);
        if let Some(reply) = play(&mut world, &bytes).and_then(|outcome| outcome.reply) {
            assert_eq!(reply.relay_agent, agent);
            back += 1;
        }
        let request = Request::decode(&bytes).unwrap();
        let from = std::net::SocketAddrV4::new(Ipv4Addr::new(10, 77, 0, 9), 4011);
        let outcome = world.respond_4011(&request, from);
        assert!(outcome.reply.is_none_or(|reply| reply.encode().is_ok()));
    }
    assert!(back > 100, "{back} replies");
}

/// Returns how much memory this process has.
fn resident() -> Option<usize> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    Some(pages.split(' ').nth(1)?.parse::<usize>().ok()? * 4096)
}

/// Does one of the things that happen to packets on the way, or on purpose.
fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    let length = bytes.len().max(1);
    let at = random.below(length);
    // Mostly behind the cookie, where lengths are.
    let at = if random.below(4) > 0 { (240 + random.below(length)).min(length - 1) } else { at };
    match random.below(7) {
        0 => bytes[at] = random.byte(),
        1 => bytes[at] ^= 1 << random.below(8),
        2 => bytes[at] = [0, 1, 0x7f, 0x80, 0xfe, 0xff][random.below(6)],
        3 => bytes.truncate(at.max(1)),
        4 => {
            let end = (at + random.below(40)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
        5 => {
            let end = (at + random.below(40)).min(bytes.len());
            bytes.drain(at..end);
        }
        _ => {
            let value: Vec<u8> = (0..random.below(255)).map(|_| random.byte()).collect();
            let one = option(random.byte(), &value);
            bytes.splice(at..at, one);
        }
    }
    bytes.truncate(4096);
    if bytes.is_empty() {
        bytes.push(0);
    }
}
