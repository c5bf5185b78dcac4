use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};

use super::engine::{Note, Outcome};
use super::leases::Timestamp;
use super::replay::{World, describe, options, packets};
use super::subnet::Role;
use super::wire::Request;
use super::wire::tests::packet;

const NOW: Timestamp = Timestamp(1_000_000);

fn world(by_4011: bool) -> World {
    let mut world = World::new();
    world.subnet.role = Role::Proxy { by_4011 };
    world
}

/// The first machine's request of a kind, with the class of UEFI and more options.
fn request(kind: u8, more: &[u8]) -> Request {
    let mut bytes = vec![53, 1, kind, 60, 9];
    bytes.extend(b"PXEClient");
    bytes.extend([93, 2, 0, 7]);
    bytes.extend(more);
    let mut bytes = packet(&bytes);
    bytes[33] = 2;
    Request::decode(&bytes).unwrap()
}

fn codes(outcome: &Outcome) -> Vec<u8> {
    let reply = outcome.reply.as_ref().unwrap();
    options(&reply.encode().unwrap()).into_keys().collect()
}

#[test]
fn a_proxy_offers_a_boot_file_and_no_address() {
    let outcome = world(false).respond(&request(1, &[]), NOW);
    assert_eq!(
        (outcome.note, outcome.lease.clone(), outcome.change),
        (Note::BootOffered, None, None)
    );
    assert_eq!(codes(&outcome), [43, 53, 54, 60, 66, 67], "nothing of addresses");
    let reply = outcome.reply.unwrap();
    assert_eq!((reply.yiaddr, reply.siaddr), (Ipv4Addr::UNSPECIFIED, [10, 77, 0, 1].into()));
    assert_eq!(reply.to.to_string(), "255.255.255.255:68");
}

#[test]
fn a_proxy_is_silent_where_the_other_server_speaks() {
    for kind in [3, 4, 7, 8] {
        let asks = request(kind, &[50, 4, 10, 77, 0, 9, 54, 4, 10, 77, 0, 1]);
        let outcome = world(false).respond(&asks, NOW);
        assert_eq!((outcome.note, outcome.reply), (Note::OtherServer, None), "never a NAK");
    }
    let mut bytes = packet(&[53, 1, 1]);
    bytes[33] = 2;
    let system = Request::decode(&bytes).unwrap();
    let outcome = world(false).respond(&system, NOW);
    assert_eq!((outcome.note, outcome.reply), (Note::Ignored, None), "a system needs no boot file");
    let mut stranger = request(1, &[]);
    stranger.mac = kiln_types::Mac::new([2; 6]);
    assert_eq!(world(false).respond(&stranger, NOW).note, Note::Ignored);
}

#[test]
fn firmware_may_be_sent_to_port_4011_and_ipxe_never() {
    let mut world = world(true);
    let outcome = world.respond(&request(1, &[]), NOW);
    assert_eq!(codes(&outcome), [53, 54, 60], "with option 43 or a file EDK2 would not ask");
    let outcome = world.respond(&request(1, &[77, 4, b'i', b'P', b'X', b'E']), NOW);
    assert!(codes(&outcome).contains(&67));
    assert!(codes(&outcome).contains(&60), "iPXE takes only offers of its class");
}

#[test]
fn port_4011_answers_the_port_that_asked_and_only_who_has_the_address() {
    let world = world(true);
    let from: SocketAddrV4 = "10.77.0.30:4011".parse().unwrap();
    let asks = |kind, more: &[u8], ciaddr: [u8; 4]| {
        let mut request = request(kind, more);
        request.ciaddr = ciaddr.into();
        request
    };
    let own = [10, 77, 0, 30];
    let reply = world.respond_4011(&asks(3, &[], own), from).reply.unwrap();
    assert_eq!((reply.to, reply.yiaddr), (from, Ipv4Addr::UNSPECIFIED));
    assert_eq!((reply.ciaddr, reply.file.as_str()), (own.into(), "ipxe/ipxe-amd64.efi"));
    let other_server = asks(3, &[54, 4, 10, 77, 0, 2], own);
    assert_eq!(world.respond_4011(&other_server, from).note, Note::OtherServer);
    for (ciaddr, from) in [
        ([0; 4], from),
        ([10, 77, 0, 31], from),
        ([10, 78, 0, 30], "10.78.0.30:4011".parse().unwrap()),
    ] {
        assert_eq!(world.respond_4011(&asks(3, &[], ciaddr), from).note, Note::NotItsAddress);
    }
    assert_eq!(world.respond_4011(&asks(1, &[], own), from).note, Note::Ignored);
}

#[test]
fn recorded_firmware_boots_beside_another_server() {
    let mut out = String::new();
    for by_4011 in [false, true] {
        let _ = writeln!(out, "== {}", if by_4011 { "by port 4011" } else { "by the offer" });
        let mut world = world(by_4011);
        for packet in packets().iter().filter(|packet| packet.recording.contains("proxy")) {
            let request = Request::decode(&packet.bytes).unwrap();
            let outcome = if packet.port == 67 {
                world.respond(&request, NOW)
            } else {
                let port = if packet.recording.starts_with("ovmf") { 4011 } else { 68 };
                world.respond_4011(&request, SocketAddrV4::new(request.ciaddr, port))
            };
            let (recording, seconds, port) = (&packet.recording, packet.seconds, packet.port);
            let kind = request.kind;
            let _ = writeln!(out, "{recording} {seconds:6.3} {kind:?} to {port}: {}", outcome.note);
            if let Some(reply) = &outcome.reply {
                out.push_str(&describe(reply));
            }
        }
    }
    insta::assert_snapshot!(out);
}
