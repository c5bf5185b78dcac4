use super::*;

const MAC: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];

fn ask(ask: Ask) -> Vec<u8> {
    write(ask, &Asker { mac: MAC, hostname: Some("n1"), xid: 7, seconds: 3 })
}

fn reply(options: &[u8]) -> Vec<u8> {
    let mut packet = ask(Ask::Discover { wish: None });
    packet.truncate(FIXED + 4);
    packet[0] = 2;
    packet[16..20].copy_from_slice(&[10, 0, 0, 5]);
    packet.extend(options);
    packet
}

fn answer(options: &[u8]) -> Answer {
    read(&reply(&[&[53, 1, 5], options].concat()), 7, MAC).unwrap()
}

fn has(packet: &[u8], option: &[u8]) -> bool {
    packet.windows(option.len()).any(|part| part == option)
}

#[test]
fn an_ack_is_read() {
    let answer = answer(&[
        0, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 6, 8, 10, 0, 0, 1, 10, 0, 0, 2, 15, 3, b'l',
        b'a', b'b', 51, 4, 0, 0, 14, 16, 54, 4, 10, 0, 0, 1, 58, 4, 0, 0, 0, 60, 59, 4, 0, 0, 0,
        90, 26, 2, 0x23, 0x28, 42, 4, 10, 0, 0, 3, 12, 2, b'n', b'7', 119, 7, 1, b'x', 0, 3, b'l',
        b'a', b'b', 119, 1, 0, 255,
    ]);
    assert_eq!(answer.kind, Kind::Ack);
    assert_eq!((answer.address, answer.prefix), (Ipv4Addr::new(10, 0, 0, 5), 24));
    assert_eq!(answer.name_servers.len(), 2);
    assert_eq!(answer.search, ["lab", "x"]);
    assert_eq!((answer.lease, answer.t1, answer.t2), (3600, Some(60), Some(90)));
    assert_eq!(answer.mtu, Some(9000));
    assert_eq!(answer.time_servers, [Ipv4Addr::new(10, 0, 0, 3)]);
    assert_eq!(answer.hostname.as_deref(), Some("n7"));
    assert_eq!(answer.routes, [(Ipv4Addr::UNSPECIFIED, 0, Some(Ipv4Addr::new(10, 0, 0, 1)))]);
}

#[test]
fn classless_routes_take_the_place_of_routers() {
    let router = Ipv4Addr::new(10, 0, 0, 1);
    let answer = answer(&[
        3, 4, 10, 0, 0, 9, 121, 20, 0, 10, 0, 0, 1, 16, 172, 16, 10, 0, 0, 1, 24, 192, 168, 7, 0,
        0, 0, 0, 255,
    ]);
    assert_eq!(
        answer.routes,
        [
            (Ipv4Addr::UNSPECIFIED, 0, Some(router)),
            (Ipv4Addr::new(172, 16, 0, 0), 16, Some(router)),
            (Ipv4Addr::new(192, 168, 7, 0), 24, None),
        ]
    );
}

#[test]
fn broken_classless_routes_leave_the_router_in_its_place() {
    let expected = [(Ipv4Addr::UNSPECIFIED, 0, Some(Ipv4Addr::new(10, 0, 0, 9)))];
    for broken in [&[121, 1, 33][..], &[121, 5, 24, 10, 0, 0, 1], &[121, 4, 0, 10, 0, 0], &[121, 0]]
    {
        let options = [&[3, 4, 10, 0, 0, 9], broken, &[255]].concat();
        assert_eq!(answer(&options).routes, expected, "{broken:?}");
    }
    // Bits behind the prefix are no reason to refuse it: the kernel would.
    let routes = answer(&[121, 7, 12, 172, 31, 10, 0, 0, 1, 255]).routes;
    assert_eq!(routes[0].0, Ipv4Addr::new(172, 16, 0, 0));
}

#[test]
fn a_mask_with_a_hole_is_no_mask() {
    for (mask, expected) in
        [([255, 255, 254, 0], 23), ([255; 4], 32), ([0; 4], 8), ([255, 0, 255, 0], 8)]
    {
        let options = [&[1, 4], mask.as_slice(), &[255]].concat();
        assert_eq!(answer(&options).prefix, expected, "{mask:?}");
    }
}

#[test]
fn what_is_not_for_us_is_passed_over() {
    let packet = reply(&[53, 1, 5, 255]);
    assert!(read(&packet, 7, MAC).is_some());
    assert!(read(&packet, 8, MAC).is_none());
    assert!(read(&packet, 7, [0; 6]).is_none());
    assert!(read(&packet[..100], 7, MAC).is_none());
    assert!(read(&ask(Ask::Discover { wish: None }), 7, MAC).is_none());
    let mut packet = packet;
    for address in [[0; 4], [127, 0, 0, 1], [255; 4], [239, 0, 0, 1]] {
        packet[16..20].copy_from_slice(&address);
        assert!(read(&packet, 7, MAC).is_none(), "{address:?}");
    }
}

#[test]
fn no_cut_and_no_byte_makes_it_panic() {
    let whole = reply(&[
        53, 1, 5, 52, 1, 3, 1, 4, 255, 255, 255, 0, 51, 4, 0, 0, 14, 16, 121, 8, 24, 10, 0, 0, 10,
        0, 0, 1, 119, 5, 1, b'a', 0, 0xc0, 0, 26, 1, 0, 3, 2, 0, 0, 255,
    ]);
    for end in 0..whole.len() {
        let _ = read(&whole[..end], 7, MAC);
        for byte in [0, 1, 2, 0x3f, 0xc0, 0xff] {
            let mut packet = whole.clone();
            packet[end] = byte;
            let _ = read(&packet, 7, MAC);
        }
    }
}

#[test]
fn a_small_mtu_and_a_domain_with_a_line_break_are_not_taken() {
    let answer = answer(&[15, 3, b'a', b'\n', b'b', 26, 2, 0, 68, 12, 2, b'a', b' ', 255]);
    assert_eq!((answer.search, answer.mtu, answer.hostname), (Vec::new(), None, None));
}

#[test]
fn each_question_says_what_its_state_demands() {
    let (address, server) = (Ipv4Addr::new(10, 0, 0, 5), Ipv4Addr::new(10, 0, 0, 1));
    let (wish, from) = ([50, 4, 10, 0, 0, 5], [54, 4, 10, 0, 0, 1]);
    for (question, kind, own, wishes, names_server, broadcast) in [
        (Ask::Discover { wish: None }, 1, false, false, false, true),
        (Ask::Discover { wish: Some(address) }, 1, false, true, false, true),
        (Ask::Select { address, server }, 3, false, true, true, true),
        (Ask::Reboot { address }, 3, false, true, false, true),
        (Ask::Renew { address }, 3, true, false, false, false),
        (Ask::Decline { address, server }, 4, false, true, true, true),
    ] {
        let packet = ask(question);
        assert_eq!(packet[240..243], [53, 1, kind], "{question:?}");
        assert_eq!(packet[12..16] == address.octets(), own, "{question:?}");
        assert_eq!(has(&packet, &wish), wishes, "{question:?}");
        assert_eq!(has(&packet, &from), names_server, "{question:?}");
        assert_eq!(packet[10] == 0x80, broadcast, "{question:?}");
        assert_eq!(packet[8..10], [0, 3]);
        assert!(has(&packet, &[61, 7, 1, 0x52, 0x54, 0, 0, 0, 1]), "{question:?}");
        assert!(packet.len() >= SMALLEST);
        assert_eq!(has(&packet, &[12, 2, b'n', b'1']), kind != 4, "{question:?}");
    }
}

#[test]
fn fuzzed_answers_are_read_or_passed_over() {
    let whole = reply(&[
        53, 1, 5, 1, 4, 255, 255, 255, 0, 3, 4, 10, 0, 0, 1, 6, 8, 10, 0, 0, 1, 10, 0, 0, 2, 51, 4,
        0, 0, 14, 16, 26, 2, 0x23, 0x28, 12, 2, b'n', b'7', 119, 7, 1, b'x', 0, 3, b'l', b'a',
        b'b', 119, 1, 0, 121, 9, 0, 10, 0, 0, 1, 16, 172, 16, 10, 255,
    ]);
    kiln_fuzz::check("init-dhcp4", &[&whole], |bytes| {
        if let Some(answer) = read(bytes, 7, MAC) {
            assert!(answer.prefix <= 32);
        }
    });
}
