use super::*;

/// Builds a message of a client with these options.
pub(in crate::dhcp::v6) fn message(kind: u8, options: &[(u16, &[u8])]) -> Vec<u8> {
    let mut bytes = vec![kind, 1, 2, 3];
    for (code, value) in options {
        bytes.extend(code.to_be_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(*value);
    }
    bytes
}

/// Wraps a message as a relay does.
pub(in crate::dhcp::v6) fn relayed(
    hops: u8,
    link: &str,
    peer: &str,
    more: &[(u16, &[u8])],
    inner: &[u8],
) -> Vec<u8> {
    let mut bytes = vec![RELAY_FORWARD, hops];
    for address in [link, peer] {
        bytes.extend(address.parse::<Ipv6Addr>().unwrap().octets());
    }
    for (code, value) in more.iter().copied().chain([(option::RELAY_MESSAGE, inner)]) {
        bytes.extend(code.to_be_bytes());
        bytes.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        bytes.extend(value);
    }
    bytes
}

pub(in crate::dhcp::v6) const CLIENT: (u16, &[u8]) =
    (option::CLIENT_ID, &[0, 3, 0, 1, 0x52, 0x54, 0, 0x77, 0, 9]);

/// Builds the contents of an association with one address.
pub(in crate::dhcp::v6) fn ia(iaid: u32, address: Option<&str>) -> Vec<u8> {
    let mut bytes = iaid.to_be_bytes().to_vec();
    bytes.extend([0; 8]);
    if let Some(address) = address {
        bytes.extend([0, 5, 0, 24]);
        bytes.extend(address.parse::<Ipv6Addr>().unwrap().octets());
        bytes.extend([0; 8]);
    }
    bytes
}

#[test]
fn a_solicit_is_read_with_all_that_says_who_asks() {
    let (one, two) = (ia(7, Some("fd77::5")), ia(8, None));
    let vendor = [&343_u32.to_be_bytes()[..], &[0, 10], b"HTTPClient"].concat();
    let bytes = message(
        1,
        &[
            CLIENT,
            (option::IA_NA, &one),
            (option::IA_NA, &two),
            (option::IA_PD, &[0; 12]),
            (option::IA_PD, &[0; 12]),
            (option::IA_TA, &[0, 0, 0, 5]),
            (option::IA_TA, &[0; 3]),
            (option::RAPID_COMMIT, &[]),
            (option::USER_CLASS, b"\x00\x01x\x00\x04iPXE"),
            (option::VENDOR_CLASS, &vendor),
            (option::CLIENT_ARCHITECTURE, &[0, 16, 0, 7]),
        ],
    );
    let request = Request::decode(&bytes).unwrap();
    assert_eq!((request.kind, request.xid), (Kind::Solicit, [1, 2, 3]));
    let addresses = vec!["fd77::5".parse().unwrap()];
    let expected = [Association { iaid: 7, addresses }, Association { iaid: 8, addresses: vec![] }];
    assert_eq!(request.associations, expected);
    let others =
        [Other { of: OtherKind::Prefixes, iaid: 0 }, Other { of: OtherKind::Temporary, iaid: 5 }];
    assert!(request.rapid_commit);
    assert_eq!(request.others, others);
    assert_eq!(request.user_classes, [&b"x"[..], b"iPXE"]);
    assert_eq!(request.vendor_class.as_deref(), Some(&b"HTTPClient"[..]));
    assert_eq!(request.architecture, Some(16));
}

#[test]
fn which_messages_name_a_server_is_as_the_rfc_says() {
    let server: (u16, &[u8]) = (option::SERVER_ID, &[0, 4, 1]);
    for (kind, alone, named) in [
        (1, true, false),
        (3, false, true),
        (4, true, false),
        (5, false, true),
        (6, true, false),
        (8, false, true),
        (9, false, true),
        (11, true, true),
    ] {
        assert_eq!(Request::decode(&message(kind, &[CLIENT])).is_ok(), alone, "{kind}");
        assert_eq!(Request::decode(&message(kind, &[CLIENT, server])).is_ok(), named, "{kind}");
    }
    for kind in [0, 2, 7, 10, 13, 255] {
        assert_eq!(Request::decode(&message(kind, &[CLIENT])), Err(WireError::OtherKind(kind)));
    }
}

#[test]
fn an_empty_or_endless_identifier_is_nobodys() {
    for length in [0, 1, 2, 131, 3000] {
        let value = vec![0; length];
        let bytes = message(1, &[(option::CLIENT_ID, &value)]);
        assert_eq!(Request::decode(&bytes), Err(WireError::NoClient), "{length}");
        let bytes = message(11, &[(option::CLIENT_ID, &value)]);
        assert_eq!(Request::decode(&bytes), Err(WireError::NoClient), "{length}");
    }
    assert!(Request::decode(&message(11, &[])).is_ok());
    // The second of two does not help the first out.
    let bytes = message(1, &[(option::CLIENT_ID, &[]), CLIENT]);
    assert_eq!(Request::decode(&bytes), Err(WireError::NoClient));
}

#[test]
fn of_an_option_that_comes_twice_or_two_hundred_times_the_first_counts() {
    let other: (u16, &[u8]) = (option::CLIENT_ID, &[0, 4, 9]);
    let (first, second) = (ia(7, Some("fd77::5")), ia(7, Some("fd77::6")));
    let mut all = vec![CLIENT, other, (option::IA_NA, &first), (option::IA_NA, &second)];
    all.extend([(option::CLIENT_ARCHITECTURE, &[0, 7][..]); 200]);
    all.extend([(option::CLIENT_ARCHITECTURE, &[0, 16][..]); 200]);
    let request = Request::decode(&message(1, &all)).unwrap();
    assert_eq!(request.client, Duid::new(CLIENT.1));
    assert_eq!(request.associations.len(), 1);
    assert_eq!(request.associations[0].addresses, ["fd77::5".parse::<Ipv6Addr>().unwrap()]);
    assert_eq!(request.architecture, Some(7));
}

#[test]
fn associations_and_addresses_are_bounded() {
    let many: Vec<Vec<u8>> = (0..200).map(|iaid| ia(iaid, None)).collect();
    let mut options = vec![CLIENT];
    options.extend(many.iter().map(|value| (option::IA_NA, value.as_slice())));
    let request = Request::decode(&message(1, &options)).unwrap();
    assert_eq!(request.associations.len(), MAX_ASSOCIATIONS);
    let mut long = ia(1, None);
    for last in 0..200 {
        long.extend(&ia(1, Some(&format!("fd77::{last:x}1")))[12..]);
    }
    let request = Request::decode(&message(1, &[CLIENT, (option::IA_NA, &long)])).unwrap();
    assert_eq!(request.associations[0].addresses.len(), MAX_ADDRESSES);
}

#[test]
fn a_damaged_option_hides_no_other_and_what_is_cut_off_is_left_out() {
    let damaged: [(u16, &[u8]); 6] = [
        (option::IA_NA, &[1, 2, 3]),
        (option::USER_CLASS, &[0, 200, 1]),
        (option::VENDOR_CLASS, &[1]),
        (option::CLIENT_ARCHITECTURE, &[7]),
        (option::IA_NA, &[0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 200, 1]),
        (999, &[]),
    ];
    let mut all = damaged.to_vec();
    all.push(CLIENT);
    let mut bytes = message(1, &all);
    let request = Request::decode(&bytes).unwrap();
    assert_eq!(request.client, Duid::new(CLIENT.1));
    assert_eq!(request.associations, [Association { iaid: 7, addresses: vec![] }]);
    assert_eq!((request.architecture, request.vendor_class), (None, None));
    bytes.extend([0, 14, 0xff, 0xff, 1]);
    assert!(!Request::decode(&bytes).unwrap().rapid_commit);
}

#[test]
fn the_way_through_relays_is_kept_from_us_to_the_client() {
    let inner = message(1, &[CLIENT]);
    let mac = [0, 1, 0x52, 0x54, 0, 0x77, 0, 9];
    let id: (u16, &[u8]) = (option::INTERFACE_ID, b"port 7");
    let near = relayed(0, "fd78::1", "fe80::9", &[id, (option::LINK_LAYER, &mac)], &inner);
    let request = Request::decode(&relayed(1, "::", "fd78::1", &[], &near)).unwrap();
    let [far, near] = &request.relays[..] else { panic!("{:?}", request.relays) };
    assert_eq!((far.hops, far.interface_id.as_deref(), far.mac), (1, None, None));
    assert_eq!((near.hops, near.link), (0, "fd78::1".parse().unwrap()));
    assert_eq!(near.interface_id.as_deref(), Some(&b"port 7"[..]));
    assert_eq!(near.mac, Some(Mac::new([0x52, 0x54, 0, 0x77, 0, 9])));
}

#[test]
fn the_hardware_address_of_a_relay_has_six_bytes_or_is_none() {
    for value in
        [&[][..], &[0], &[0, 1], &[0, 1, 2, 0, 0, 0, 0], &[0; 40], &[0, 6, 2, 0, 0, 0, 0, 1]]
    {
        let packet =
            relayed(0, "::", "fe80::9", &[(option::LINK_LAYER, value)], &message(1, &[CLIENT]));
        assert_eq!(Request::decode(&packet).unwrap().relays[0].mac, None, "{value:?}");
    }
}

#[test]
fn relays_without_end_are_refused_at_the_ninth() {
    let mut packet = message(1, &[CLIENT]);
    for hops in 0..8 {
        packet = relayed(hops, "fd78::1", "fe80::9", &[], &packet);
    }
    assert_eq!(Request::decode(&packet).unwrap().relays.len(), 8);
    packet = relayed(8, "fd78::1", "fe80::9", &[], &packet);
    assert_eq!(Request::decode(&packet), Err(WireError::TooManyRelays));
    // As many as fit a datagram, with nothing inside.
    let mut packet = Vec::new();
    while packet.len() < 60_000 {
        packet = relayed(0, "::", "::", &[], &packet);
    }
    assert_eq!(Request::decode(&packet), Err(WireError::TooManyRelays));
    let empty = relayed(0, "::", "::", &[], &[]);
    assert_eq!(Request::decode(&empty), Err(WireError::Short(0)));
    assert_eq!(Request::decode(&empty[..34]), Err(WireError::EmptyRelay));
    assert_eq!(Request::decode(&empty[..33]), Err(WireError::Short(33)));
}

#[test]
fn an_option_of_64_kilobytes_is_just_long() {
    let huge = vec![b'x'; 65_000];
    for code in 0..200 {
        let packet = message(1, &[(code, &huge), CLIENT]);
        let decoded = Request::decode(&packet);
        let no_client = code == option::CLIENT_ID;
        let out_of_place = code == option::SERVER_ID;
        assert_eq!(decoded.is_err(), no_client || out_of_place, "{code}");
    }
    let id = (option::INTERFACE_ID, huge.as_slice());
    let packet = relayed(0, "::", "::", &[id], &message(1, &[CLIENT]));
    assert!(Request::decode(&packet[..300]).is_err());
    assert_eq!(Request::decode(&packet).unwrap().relays[0].interface_id, None);
}
