use super::*;
use crate::dhcp::wire::Request;

fn reply() -> Reply {
    Reply {
        xid: 7,
        flags: 0x8000,
        yiaddr: [10, 0, 0, 9].into(),
        siaddr: [10, 0, 0, 1].into(),
        file: "ipxe/undionly.kpxe".into(),
        options: vec![ReplyOption::new(54, [10, 0, 0, 1])],
        to: SocketAddrV4::new(Ipv4Addr::BROADCAST, 68),
        ..Reply::empty(ReplyKind::Offer)
    }
}

/// Reads a reply with the decoder of requests, which follows option 52 and joins what came in parts.
fn read(mut bytes: Vec<u8>) -> Request {
    bytes[0] = 1;
    let kind = bytes.windows(3).position(|part| part[..2] == [53, 1]).unwrap();
    bytes[kind + 2] = 1;
    Request::decode(&bytes).unwrap()
}

#[test]
fn a_short_reply_is_padded_and_begins_with_its_kind_and_its_server() {
    let bytes = reply().encode().unwrap();
    assert_eq!(bytes.len(), MIN);
    assert_eq!(&bytes[..8], [2, 1, 6, 0, 0, 0, 0, 7]);
    assert_eq!(&bytes[108..127], b"ipxe/undionly.kpxe\0");
    assert_eq!(&bytes[240..250], [53, 1, 2, 54, 4, 10, 0, 0, 1, 255]);
    let bootp = Reply { kind: ReplyKind::Bootp, ..reply() }.encode().unwrap();
    assert_eq!(&bootp[240..247], [54, 4, 10, 0, 0, 1, 255]);
}

#[test]
fn option_82_is_the_last_and_unchanged() {
    let relay_agent = vec![82, 4, 2, 2, 9, 9, 82, 3, 1, 1, 7];
    let bytes = Reply { relay_agent: relay_agent.clone(), ..reply() }.encode().unwrap();
    assert_eq!(&bytes[249..260], relay_agent);
    assert_eq!(bytes[260], 255);
}

#[test]
fn a_reply_is_never_longer_than_the_client_takes() {
    let long = |length: usize, max_size| {
        let mut relay_agent = vec![82, 255];
        relay_agent.resize(length, 0);
        Reply { relay_agent, max_size, ..reply() }.encode().map(|bytes| bytes.len())
    };
    assert_eq!(long(MAX - 250, None).unwrap(), MAX);
    assert_eq!(long(MAX - 250, Some(0xff00)).unwrap(), MAX);
    // One byte more, and option 54 goes to `sname` for want of room.
    assert_eq!(long(MAX - 249, None).unwrap(), MAX - 249 + 247);
    assert!(matches!(long(MAX - 246, None), Err(EncodeError::TooLong { .. })));
    assert!(matches!(long(600, Some(576)), Err(EncodeError::TooLong { max: 548, .. })));
    assert_eq!(long(200, Some(0)).unwrap(), 450);
}

#[test]
fn a_long_option_is_sent_in_parts() {
    let value: Vec<u8> = (0..600_u16).map(|n| n.to_be_bytes()[1]).collect();
    let options = vec![ReplyOption::new(54, [10, 0, 0, 1]), ReplyOption::new(119, value)];
    let bytes = Reply { options, ..reply() }.encode().unwrap();
    let parts = [(249, 255), (249 + 257, 255), (249 + 2 * 257, 90)];
    for (at, length) in parts {
        assert_eq!(bytes[at..at + 2], [119, length]);
    }
    let joined = read(bytes);
    assert_eq!(joined.option(119).map(<[u8]>::len), Some(600));
    let empty = Reply { options: vec![ReplyOption::new(80, [])], ..reply() }.encode().unwrap();
    assert_eq!(empty[243..246], [80, 0, 255]);
}

#[test]
fn what_finds_no_room_goes_to_the_other_fields_and_then_away() {
    // 548 bytes have 304 for options and option 52: 200 and 90 of text, 120 and 40 beside, the last nowhere.
    let option = |code, length| ReplyOption::new(code, vec![code; length]);
    let options = [(54, 4), (128, 200), (129, 80), (130, 120), (131, 40), (132, 90)];
    let all = options.map(|(code, length)| option(code, length));
    let crowded =
        Reply { options: all.to_vec(), file: String::new(), max_size: Some(576), ..reply() };
    let bytes = crowded.encode().unwrap();
    assert!(bytes.len() <= 548, "{}", bytes.len());
    assert_eq!(bytes[240..246], [53, 1, 2, 52, 1, 3]);
    assert_eq!((&bytes[108..110], &bytes[44..46]), (&[130, 120][..], &[131, 40][..]));
    let read = read(bytes);
    for (code, length) in [(128, 200), (129, 80), (130, 120), (131, 40)] {
        assert_eq!(read.option(code), Some(vec![code; length].as_slice()), "{code}");
    }
    assert_eq!(read.option(132), None);
    // The name of the boot file keeps its field.
    let named = Reply { file: "ipxe".into(), ..crowded.clone() }.encode().unwrap();
    assert_eq!(&named[108..113], b"ipxe\0");
    // What has to be said is said, or nothing at all is.
    let mut options = all.to_vec();
    options.push(option(67, 90));
    let crowded = Reply { options, ..crowded };
    assert!(matches!(crowded.encode(), Err(EncodeError::TooLong { max: 548, .. })));
}

#[test]
fn a_file_that_the_field_cannot_hold_is_left_out_of_it() {
    let bytes = Reply { file: "x".repeat(128), ..reply() }.encode().unwrap();
    assert!(bytes[108..236].iter().all(|byte| *byte == 0));
    let bytes = Reply { file: "x".repeat(127), ..reply() }.encode().unwrap();
    assert_eq!((bytes[234], bytes[235]), (b'x', 0));
}
