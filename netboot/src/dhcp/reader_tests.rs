//! Our replies, read by another's hand: dhcproto finds in them what we meant to say.

use dhcproto::v4::{Message, Opcode, OptionCode};
use dhcproto::{Decodable as _, Encodable as _};

use super::client::{Answer, AnswerKind};
use super::replay::{World, packets};
use super::wire::Request;
use super::{Reply, ReplyKind, Timestamp};

/// Compares a reply with what dhcproto reads in its bytes, option by option.
fn read(reply: &Reply) {
    let bytes = reply.encode().unwrap();
    let message = Message::from_bytes(&bytes).unwrap();
    assert_eq!((message.opcode(), message.hlen()), (Opcode::BootReply, 6));
    assert_eq!((message.xid(), u16::from(message.flags())), (reply.xid, reply.flags));
    let addresses = [message.ciaddr(), message.yiaddr(), message.siaddr(), message.giaddr()];
    assert_eq!(addresses, [reply.ciaddr, reply.yiaddr, reply.siaddr, reply.giaddr]);
    let file = message.fname().unwrap_or_default();
    assert_eq!(String::from_utf8_lossy(file).trim_end_matches('\0'), reply.file);
    for option in &reply.options {
        let found = message.opts().get(OptionCode::from(option.code));
        let found = found.unwrap_or_else(|| panic!("no option {} in {reply:?}", option.code));
        let written = found.to_vec().unwrap();
        let value: Vec<u8> = written.chunks(257).flat_map(|part| part[2..].to_vec()).collect();
        assert_eq!(value, option.value, "option {}", option.code);
    }
    let kind = match reply.kind {
        ReplyKind::Offer => AnswerKind::Offer,
        ReplyKind::Ack => AnswerKind::Ack,
        ReplyKind::Nak => AnswerKind::Nak,
        ReplyKind::Bootp => return,
    };
    let answer = Answer::decode(&bytes).unwrap();
    assert_eq!((answer.kind, answer.mac, answer.xid), (kind, reply.mac, reply.xid));
    assert_eq!(answer.address.is_none(), reply.yiaddr.is_unspecified());
}

#[test]
fn another_reader_finds_in_our_replies_what_we_meant() {
    let (mut world, mut count) = (World::new(), 0);
    for packet in packets() {
        let request = Request::decode(&packet.bytes).unwrap();
        let replies = [
            world.respond(&request, Timestamp(1_800_000_000)).reply,
            world.respond_4011(&request, "10.77.0.9:4011".parse().unwrap()).reply,
        ];
        for reply in replies.iter().flatten() {
            read(reply);
            count += 1;
        }
    }
    assert!(count > 20, "{count} replies");
}

#[test]
fn another_reader_joins_what_we_send_in_parts() {
    use super::ReplyOption;
    for length in [0, 1, 254, 255, 256, 600] {
        let value = vec![b'x'; length];
        let options = vec![ReplyOption::new(54, [10, 0, 0, 1]), ReplyOption::new(43, value)];
        read(&Reply { options, ..Reply::empty(ReplyKind::Ack) });
    }
}
