//! Our replies, read by another's hand: dhcproto finds in them what we meant to say.

use dhcproto::v6::{DhcpOption, Message, MessageType, RelayMessage};
use dhcproto::{Decodable as _, Encodable as _};

use super::replay::{for_us, packets};
use super::wire::Relay;
use super::world::{NOW, World, options};
use super::{Reply, ReplyKind, option};
use crate::dhcp::client::Answer6;

/// Compares a reply with what dhcproto reads in its bytes, option by option.
fn read(reply: &Reply) {
    let plain = Reply { relays: Vec::new(), ..reply.clone() }.encode();
    let message = Message::from_bytes(&plain).unwrap();
    let kind = match reply.kind {
        ReplyKind::Advertise => MessageType::Advertise,
        ReplyKind::Reply => MessageType::Reply,
    };
    assert_eq!((message.msg_type(), message.xid()), (kind, reply.xid));
    let mut ours = options(&plain[4..]);
    ours.sort();
    assert_eq!(message.opts().iter().count(), ours.len());
    for found in message.opts().iter() {
        if let DhcpOption::VendorClass(class) = found {
            // It reads this one rightly, and does not write it so.
            let whole = ours.iter().any(|(code, value)| {
                *code == option::VENDOR_CLASS
                    && value[..4] == class.num.to_be_bytes()
                    && value[6..] == class.data[0]
            });
            assert!(whole, "{class:?}");
            continue;
        }
        let bytes = found.to_vec().unwrap();
        let [one] = options(&bytes).try_into().unwrap();
        assert!(ours.contains(&one), "{found:?} is not of {ours:?}");
    }
    let answer = Answer6::decode(&plain).unwrap();
    assert_eq!(answer.xid, reply.xid);
}

#[test]
fn another_reader_finds_in_our_replies_what_we_meant() {
    let (mut world, mut count) = (World::new(), 0);
    for recorded in packets() {
        let packet = for_us(&recorded.bytes, &world);
        let outcome = world.take(&packet, &recorded.from, NOW).expect("it is a request");
        if let Some(reply) = &outcome.reply {
            read(reply);
            count += 1;
        }
    }
    assert!(count > 5, "{count} replies");
}

#[test]
fn another_reader_finds_the_way_back_through_relays() {
    let mut world = World::new();
    let packet = for_us(&packets()[0].bytes, &world);
    let outcome = world.take(&packet, "fe80::1", NOW).expect("it is a request");
    let relay = |hops| Relay {
        hops,
        link: "fd77::2".parse().unwrap(),
        peer: "fe80::9".parse().unwrap(),
        interface_id: Some(b"port 7".to_vec()),
        mac: None,
    };
    let reply = Reply { relays: vec![relay(1), relay(0)], ..outcome.reply.unwrap() };
    let bytes = reply.encode();
    let outer = RelayMessage::from_bytes(&bytes).unwrap();
    assert_eq!((outer.msg_type(), outer.hop_count()), (MessageType::RelayRepl, 1));
    assert_eq!(outer.link_addr(), relay(1).link);
    let all = options(&bytes[34..]);
    assert_eq!(all[0], (option::INTERFACE_ID, b"port 7".to_vec()));
    let inner = RelayMessage::from_bytes(&all[1].1).unwrap();
    assert_eq!((inner.hop_count(), inner.peer_addr()), (0, relay(0).peer));
}
