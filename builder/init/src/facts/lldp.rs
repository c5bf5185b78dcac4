//! What switches say of their ports: the Link Layer Discovery Protocol (IEEE 802.1AB).

use kiln_types::facts::{SwitchPort, line};

/// Destination, source and type of an Ethernet frame.
const HEADER: usize = 14;
const ETHERTYPE: [u8; 2] = [0x88, 0xcc];
/// No frame carries more.
const MOST_FIELDS: usize = 256;

/// Reads a frame. Nothing is returned for what is no frame of LLDP, breaks off, lacks what the standard demands, or is
/// the farewell of a port that goes down.
pub(super) fn parse(frame: &[u8]) -> Option<SwitchPort> {
    if frame.get(12..HEADER)? != ETHERTYPE {
        return None;
    }
    let mut rest = frame.get(HEADER..)?;
    let (mut found, mut lives) = (SwitchPort::default(), false);
    for _ in 0..MOST_FIELDS {
        let (head, after) = rest.split_first_chunk::<2>()?;
        let head = u16::from_be_bytes(*head);
        let (value, after) = after.split_at_checked(usize::from(head & 0x1ff))?;
        rest = after;
        match head >> 9 {
            0 => break,
            1 => found.chassis = identity(value, 4, 5)?,
            2 => found.port = identity(value, 3, 4)?,
            3 => lives = value.get(..2)? != [0, 0],
            4 => found.description = text(value),
            5 => found.system = text(value),
            127 => {
                // The port's VLAN, of IEEE 802.1; zero is none.
                if let [0x00, 0x80, 0xc2, 1, high, low] = value {
                    found.vlan = Some(u16::from_be_bytes([*high, *low])).filter(|vlan| *vlan != 0);
                }
            }
            _ => {}
        }
    }
    (lives && !found.chassis.is_empty() && !found.port.is_empty()).then_some(found)
}

/// Reads an identity, whose first byte says what it is: a hardware address, a network address, or a text.
fn identity(value: &[u8], hardware: u8, network: u8) -> Option<String> {
    let (kind, value) = value.split_first()?;
    Some(match value {
        _ if *kind == hardware && value.len() == 6 => hex(value),
        // 1 is IPv4.
        [1, a, b, c, d] if *kind == network => format!("{a}.{b}.{c}.{d}"),
        _ if *kind == hardware || *kind == network => hex(value),
        _ => text(value),
    })
}

fn hex(bytes: &[u8]) -> String {
    let mut text = String::new();
    for byte in bytes.iter().take(32) {
        if !text.is_empty() {
            text.push(':');
        }
        for nibble in [byte >> 4, byte & 15] {
            text.extend(char::from_digit(u32::from(nibble), 16));
        }
    }
    text
}

fn text(value: &[u8]) -> String {
    line(&String::from_utf8_lossy(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(kind: u16, value: &[u8]) -> Vec<u8> {
        let head = (kind << 9) | u16::try_from(value.len()).unwrap();
        [&head.to_be_bytes(), value].concat()
    }

    fn frame(fields: &[Vec<u8>]) -> Vec<u8> {
        let head = [1, 0x80, 0xc2, 0, 0, 0x0e, 2, 0, 0, 0, 0, 1, 0x88, 0xcc];
        [&head[..], &fields.concat()].concat()
    }

    fn usual() -> Vec<Vec<u8>> {
        vec![
            field(1, &[4, 0, 0x1b, 0x21, 0xaa, 0xbb, 0xcc]),
            field(2, b"\x05Ethernet1/7"),
            field(3, &[0, 120]),
            field(4, b"to rack 3"),
            field(5, b"tor-3"),
            field(127, &[0, 0x80, 0xc2, 1, 0x0f, 0xa0]),
            field(127, &[0, 0x12, 0x0f, 1, 3]),
            field(0, &[]),
        ]
    }

    #[test]
    fn a_switch_names_itself_its_port_and_its_vlan() {
        let expected = SwitchPort {
            chassis: "00:1b:21:aa:bb:cc".to_owned(),
            port: "Ethernet1/7".to_owned(),
            description: "to rack 3".to_owned(),
            system: "tor-3".to_owned(),
            vlan: Some(4000),
        };
        let mut padded = frame(&usual());
        padded.extend([0; 20]);
        assert_eq!(parse(&padded), Some(expected));
    }

    #[test]
    fn identities_are_read_by_their_kind() {
        for (chassis, port, expected) in [
            (&b"\x07local"[..], &b"\x03\x02\0\0\0\0\x01"[..], ("local", "02:00:00:00:00:01")),
            (b"\x05\x01\x0a\0\0\x01", b"\x04\x01\x0a\0\0\x02", ("10.0.0.1", "10.0.0.2")),
            (b"\x04\x01\x02", b"\x07a\x1b[2Jb\xff", ("01:02", "a[2Jb")),
        ] {
            let fields = [field(1, chassis), field(2, port), field(3, &[0, 1]), field(0, &[])];
            let found = parse(&frame(&fields)).unwrap();
            assert_eq!((found.chassis.as_str(), found.port.as_str()), expected);
        }
    }

    #[test]
    fn what_is_not_whole_or_says_farewell_is_passed_over() {
        let whole = frame(&usual());
        let end = whole.len() - 2;
        for length in 0..end {
            assert_eq!(parse(&whole[..length]), None, "cut at {length}");
        }
        let without = |kind: usize| {
            let mut fields = usual();
            fields.remove(kind);
            parse(&frame(&fields))
        };
        assert_eq!((without(0), without(1), without(2)), (None, None, None));
        let mut farewell = usual();
        farewell[2] = field(3, &[0, 0]);
        assert_eq!(parse(&frame(&farewell)), None);
        let mut other = whole;
        other[12] = 8;
        assert_eq!(parse(&other), None);
    }

    #[test]
    fn bytes_that_make_no_sense_do_no_harm() {
        let whole = frame(&usual());
        for at in 0..whole.len() {
            for value in [0, 1, 2, 0x7f, 0xfe, 0xff] {
                let mut broken = whole.clone();
                broken[at] = value;
                parse(&broken);
            }
        }
        // Nothing but empty fields, and fields of the greatest length.
        assert_eq!(parse(&frame(&vec![field(9, &[]); 700])), None);
        let long = field(5, &[b'x'; 511]);
        let fields = [&usual()[..7], &[long, field(0, &[])]].concat();
        assert_eq!(parse(&frame(&fields)).unwrap().system.len(), 256);
    }

    #[test]
    fn fuzzed_frames_are_read_or_passed_over() {
        kiln_fuzz::check("lldp", &[&frame(&usual())], |bytes| {
            if let Some(port) = parse(bytes) {
                assert!(!format!("{port:?}").contains('\u{1b}'));
            }
        });
    }
}
