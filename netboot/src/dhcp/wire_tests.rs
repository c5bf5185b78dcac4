use super::*;
use crate::dhcp::replay;

/// Builds a request with these options behind the fixed fields of an Ethernet client.
pub(in crate::dhcp) fn packet(options: &[u8]) -> Vec<u8> {
    let mut packet = vec![0; OPTIONS_AT];
    packet[..4].copy_from_slice(&[1, 1, 6, 0]);
    packet[4..8].copy_from_slice(&[1, 2, 3, 4]);
    packet[28..34].copy_from_slice(&[0x52, 0x54, 0, 0x77, 0, 9]);
    packet[236..240].copy_from_slice(&COOKIE);
    packet.extend(options);
    packet
}

#[test]
fn padding_may_be_anywhere_and_the_end_may_be_missing() {
    let request = Request::decode(&packet(&[0, 0, 53, 1, 1, 0, 12, 3, b'N', b'1', b'.'])).unwrap();
    assert_eq!(request.kind, Kind::Discover);
    assert_eq!(request.hostname().as_deref(), Some("n1"));
    assert_eq!(request.xid, 0x0102_0304);
}

#[test]
fn an_option_that_makes_no_sense_does_not_hide_the_others() {
    let bytes = [12, 2, 0xff, 0xfe, 93, 1, 7, 50, 3, 1, 2, 3, 53, 1, 3, 57, 2, 5, 0xc0];
    let request = Request::decode(&packet(&bytes)).unwrap();
    assert_eq!((request.kind, request.max_size()), (Kind::Request, Some(1472)));
    assert_eq!((request.hostname(), request.architecture()), (None, None));
    assert_eq!(request.requested(), None);
}

#[test]
fn what_is_cut_off_is_left_out() {
    let request = Request::decode(&packet(&[53, 1, 1, 60, 200, b'P'])).unwrap();
    assert_eq!(request.option(60), None);
    assert_eq!(Request::decode(&packet(&[53])), Err(WireError::NoKind));
    assert_eq!(Request::decode(&packet(&[53, 2, 1, 1])), Err(WireError::NoKind));
}

#[test]
fn without_a_message_type_it_is_bootp() {
    let old = |bytes: &[u8]| Request::decode(bytes).map(|request| request.kind);
    assert_eq!(old(&packet(&[255])), Ok(Kind::Bootp));
    let mut bytes = packet(&[0; 60]);
    bytes[236..240].copy_from_slice(&[0; 4]);
    assert_eq!(old(&bytes), Ok(Kind::Bootp));
    assert_eq!(old(&packet(&[12, 9, b'x'])), Err(WireError::NoKind), "who knows what is cut off");
}

#[test]
fn options_within_options_are_found() {
    let bytes = [
        53, 1, 3, 43, 9, 0, 6, 1, 8, 71, 4, 0, 9, 0x80, 175, 9, 0x14, 1, 1, 0x13, 1, 0, 0xeb, 1, 5,
        51, 4, 0, 0, 1, 0, 61, 3, 1, 2, 3,
    ];
    // Sub-option 71 is cut off in this one, and whole in the next.
    let request = Request::decode(&packet(&bytes)).unwrap();
    assert_eq!(request.boot_item(), None);
    assert!(request.ipxe_can(0x14) && !request.ipxe_can(0x13) && !request.ipxe_can(0x25));
    assert_eq!((request.lease_time(), request.client_id()), (Some(256), Some(&[1, 2, 3][..])));
    let bytes = [53, 1, 3, 43, 11, 0, 6, 1, 8, 71, 4, 0, 9, 0x80, 1, 255];
    let request = Request::decode(&packet(&bytes)).unwrap();
    assert_eq!(request.boot_item(), Some((9, 0x8001)));
}

#[test]
fn overloaded_fields_hold_options_and_parts_are_joined() {
    let mut bytes = packet(&[52, 1, 3, 67, 1, b'a', 255, 53, 1, 4]);
    bytes[108..115].copy_from_slice(&[67, 1, b'b', 53, 1, 1, 255]);
    bytes[44..48].copy_from_slice(&[67, 1, b'c', 255]);
    let request = Request::decode(&bytes).unwrap();
    assert_eq!((request.kind, request.option(67)), (Kind::Discover, Some(&b"abc"[..])));
}

#[test]
fn option_82_is_kept_byte_for_byte() {
    let bytes = [82, 4, 2, 2, 9, 9, 53, 1, 1, 82, 3, 1, 1, 7, 255];
    let request = Request::decode(&packet(&bytes)).unwrap();
    assert_eq!(request.relay_agent(), [82, 4, 2, 2, 9, 9, 82, 3, 1, 1, 7]);
}

#[test]
fn what_a_relay_says_about_itself_is_read_only_from_a_relay() {
    let mut bytes =
        packet(&[82, 15, 1, 1, 7, 5, 4, 10, 9, 0, 0, 11, 4, 10, 9, 0, 254, 53, 1, 1, 255]);
    let request = Request::decode(&bytes).unwrap();
    assert_eq!((request.link_selection(), request.server_override()), (None, None));
    assert_eq!(request.circuit_id(), None);
    bytes[24..28].copy_from_slice(&[10, 9, 0, 254]);
    let request = Request::decode(&bytes).unwrap();
    assert_eq!(request.link_selection(), Some([10, 9, 0, 0].into()));
    assert_eq!(request.server_override(), Some([10, 9, 0, 254].into()));
    assert_eq!(request.circuit_id(), Some(&[7][..]));
    // A length that leads outside, and an address of three bytes.
    for (at, byte) in [(243, 200), (246, 3)] {
        let mut bytes = bytes.clone();
        bytes[at] = byte;
        assert_eq!(Request::decode(&bytes).unwrap().link_selection(), None);
    }
}

#[test]
fn fixed_fields_that_make_no_sense_are_refused() {
    let change = |at: usize, byte: u8| {
        let mut bytes = packet(&[53, 1, 1, 255]);
        bytes[at] = byte;
        Request::decode(&bytes).unwrap_err()
    };
    assert_eq!(change(0, 2), WireError::NotARequest(2));
    assert_eq!(change(1, 32), WireError::NotEthernet { htype: 32, hlen: 6 });
    assert_eq!(change(2, 17), WireError::NotEthernet { htype: 1, hlen: 17 });
    assert!(matches!(change(28, 0xff), WireError::NotAnInterface(_)));
    assert_eq!(change(236, 1), WireError::NoCookie);
    assert_eq!(change(242, 5), WireError::OtherKind(5));
    assert_eq!(Request::decode(&[1; 239]), Err(WireError::Short(239)));
    assert_eq!(Request::decode(&[]), Err(WireError::Short(0)));
}

#[test]
fn no_damage_to_recorded_packets_makes_it_panic() {
    let mut random = replay::Random::new(0x6b69_6c6e);
    for recorded in replay::packets() {
        for _ in 0..replay::rounds(400) {
            let mut bytes = recorded.bytes.clone();
            for _ in 0..random.below(12) {
                let at = random.below(bytes.len());
                bytes[at] = random.byte();
            }
            bytes.truncate(random.below(bytes.len() * 2).max(1));
            if let Ok(request) = Request::decode(&bytes) {
                let _ = (request.hostname(), request.requested(), request.max_size());
                let _ = crate::dhcp::classify(&request);
            }
        }
    }
}
