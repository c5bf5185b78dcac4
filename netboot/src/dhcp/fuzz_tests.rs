//! Packets that nobody meant for us, of clients and of other servers.

use std::net::SocketAddrV4;

use super::Reply;
use super::client::{Answer, Answer6, ClientError};
use super::leases::Timestamp;
use super::replay::{World, packets};
use super::wire::Request;
use super::wire::tests::packet;

const NOW: Timestamp = Timestamp(1_000_000);

/// Takes a packet to ports 67 and 4011, and encodes and logs what comes out.
fn take(bytes: &[u8]) {
    let Ok(request) = Request::decode(bytes) else { return };
    let mut world = World::new();
    let from = SocketAddrV4::new(request.ciaddr, 4011);
    for outcome in [
        world.respond(&request, NOW),
        world.respond(&request, Timestamp(NOW.0 + 1)),
        world.respond_4011(&request, from),
    ] {
        if let Some(Ok(reply)) = outcome.reply.as_ref().map(Reply::encode) {
            assert!((300..=1472).contains(&reply.len()), "{}", reply.len());
            // BOOTP knows no kinds of messages; else any client has to be able to read what we send.
            let read = Answer::decode(&reply);
            assert!(matches!(read, Ok(_) | Err(ClientError::NoKind)), "{read:?}");
        }
        let _ = format!("{request:?} {outcome:?}");
    }
    assert!(world.leases.all().len() <= 1);
}

#[test]
fn fuzzed_packets_of_clients_are_answered_shortly_or_not_at_all() {
    let recorded = packets();
    let samples: Vec<&[u8]> = recorded.iter().map(|packet| packet.bytes.as_slice()).collect();
    kiln_fuzz::check("dhcp4", &samples, take);
}

#[test]
fn fuzzed_options_are_read_in_every_place_where_they_may_be() {
    let long = [&[82, 200][..], &[1; 200], &[82, 120], &[2; 120]].concat();
    let samples: [&[u8]; 5] = [
        &[
            53, 1, 1, 60, 9, b'P', b'X', b'E', b'C', b'l', b'i', b'e', b'n', b't', 93, 2, 0, 7, 43,
            6, 71, 4, 0, 0, 0, 0,
        ],
        &[53, 1, 3, 50, 4, 10, 77, 0, 60, 12, 2, b'n', b'1', 81, 4, 0, 0, 0, b'n', 61, 3, 1, 2, 3],
        &[
            53, 1, 1, 175, 9, 0xb1, 4, 0, 1, 2, 3, 0x18, 1, 1, 77, 4, b'i', b'P', b'X', b'E', 97,
            3, 0, 1, 2,
        ],
        &[53, 1, 1, 52, 1, 3, 82, 14, 1, 4, 1, 2, 3, 4, 5, 4, 10, 77, 0, 0, 151, 0, 255],
        &long,
    ];
    kiln_fuzz::check("dhcp4-options", &samples, |options| {
        let options = &options[..options.len().min(1200)];
        let mut plain = packet(options);
        take(&plain);
        // By a relay, from a machine of the inventory.
        plain[24..28].copy_from_slice(&[10, 77, 0, 8]);
        plain[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 1]);
        take(&plain);
        // In the fields of the file and the name, which options may overload.
        let mut overloaded = packet(&[53, 1, 1, 52, 1, 3]);
        let (file, rest) = options.split_at(options.len().min(128));
        overloaded[108..108 + file.len()].copy_from_slice(file);
        let name = &rest[..rest.len().min(64)];
        overloaded[44..44 + name.len()].copy_from_slice(name);
        take(&overloaded);
    });
}

#[test]
fn fuzzed_answers_of_other_servers_are_read_or_refused() {
    let mut world = World::new();
    let answers = packets().into_iter().filter_map(|packet| {
        let request = Request::decode(&packet.bytes).ok()?;
        world.respond(&request, NOW).reply?.encode().ok()
    });
    let answers: Vec<_> = answers.collect();
    let samples: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
    kiln_fuzz::check("dhcp4-answers", &samples, |bytes| {
        let _ = format!("{:?}", Answer::decode(bytes));
        let _ = format!("{:?}", Answer6::decode(bytes));
    });
}
