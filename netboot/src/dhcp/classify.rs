use std::fmt::Write as _;

use kiln_inventory::{Asker, Firmware, Sighting};

use super::board::board;
use super::option;
use super::wire::Request;

/// Reads from a request who asks and on what firmware.
///
/// iPXE is recognised first, by its user class or its own option, because it also says `PXEClient`. The
/// architecture comes from option 93 alone: after a reply that carried option 60, iPXE sends that text back
/// instead of its own.
pub fn classify(request: &Request) -> Sighting {
    let class = request.option(option::VENDOR_CLASS).unwrap_or_default();
    let http = class.starts_with(b"HTTPClient");
    let ipxe = is_ipxe(request);
    if let Some(board) = board(request).filter(|_| !ipxe) {
        // What a Raspberry Pi has in place of a UUID is none.
        let uuid = uuid(request).filter(|_| board != Firmware::RaspberryPi);
        let (asker, firmware) = (Asker::Firmware, Some(board));
        return Sighting { mac: request.mac, asker, firmware, uuid };
    }
    let asker = if ipxe {
        Asker::Ipxe
    } else if http || class.starts_with(b"PXEClient") {
        Asker::Firmware
    } else {
        Asker::System
    };
    let told = request.architecture().map(Firmware::from_option_93);
    let firmware = if asker == Asker::Firmware { told.map(|f| by_protocol(f, http)) } else { told };
    Sighting { mac: request.mac, asker, firmware, uuid: uuid(request) }
}

fn is_ipxe(request: &Request) -> bool {
    // iPXE leaves out the length byte that RFC 3004 wants; take both forms.
    let named = matches!(request.option(option::USER_CLASS), Some(b"iPXE" | b"\x04iPXE"));
    named || request.option(option::IPXE).is_some()
}

/// Settles the protocol by the class, since some firmware keeps one number for both.
pub(super) const fn by_protocol(firmware: Firmware, http: bool) -> Firmware {
    match (firmware, http) {
        (Firmware::UefiX64 | Firmware::UefiX64Http, true) => Firmware::UefiX64Http,
        (Firmware::UefiX64 | Firmware::UefiX64Http, false) => Firmware::UefiX64,
        (Firmware::UefiArm64 | Firmware::UefiArm64Http, true) => Firmware::UefiArm64Http,
        (Firmware::UefiArm64 | Firmware::UefiArm64Http, false) => Firmware::UefiArm64,
        (other, _) => other,
    }
}

/// UUIDs that whole product lines share, so that they name no machine.
const SHARED_UUIDS: [&str; 4] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "03000200-0400-0500-0006-000700080009",
    "00020003-0004-0005-0006-000700080009",
];

/// Returns the SMBIOS UUID of option 97, if it names one machine.
fn uuid(request: &Request) -> Option<String> {
    uuids(request).into_iter().next()
}

/// Returns the SMBIOS UUID of option 97 in both orders in which firmware writes it: first as SMBIOS has it since 2.6, the
/// first three groups little-endian, and then as people read it.
pub(super) fn uuids(request: &Request) -> Vec<String> {
    let bytes = request.option(option::CLIENT_UUID).and_then(|bytes| bytes.try_into().ok());
    let Some([0, d, c, b, a, f, e, h, g, rest @ ..]) = bytes.map(|bytes: [u8; 17]| bytes) else {
        return Vec::new();
    };
    let text = |first: [u8; 8]| uuid_text(first.into_iter().chain(rest));
    // In whatever order it is shared, it names no machine.
    match (text([a, b, c, d, e, f, g, h]), text([d, c, b, a, f, e, h, g])) {
        (Some(first), Some(second)) => vec![first, second],
        _ => Vec::new(),
    }
}

/// Writes 16 bytes as people read them, unless they name no machine.
pub(super) fn uuid_text(bytes: impl Iterator<Item = u8>) -> Option<String> {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    (!SHARED_UUIDS.contains(&text.as_str())).then_some(text)
}

/// Returns a vendor class as people read it; the packet may hold anything.
pub(super) fn class_text(class: &[u8]) -> Option<String> {
    const LONGEST: usize = 64;
    let plain = class.iter().copied().filter(|byte| matches!(byte, b' '..=b'~'));
    let text: String = plain.take(LONGEST).map(char::from).collect();
    Some(text).filter(|text| !text.trim().is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::wire::tests::packet;

    fn sighting(options: &[(u8, &[u8])]) -> Sighting {
        let mut bytes = vec![53, 1, 1];
        for (code, value) in options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(*value);
        }
        classify(&Request::decode(&packet(&bytes)).unwrap())
    }

    #[test]
    fn ipxe_is_recognised_before_its_vendor_class() {
        let pxe: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");
        for mark in [(77, &b"iPXE"[..]), (77, b"\x04iPXE"), (175, b"\x13\x01\x01")] {
            let seen = sighting(&[pxe, (93, &[0, 7]), mark]);
            assert_eq!((seen.asker, seen.firmware), (Asker::Ipxe, Some(Firmware::UefiX64)));
        }
        assert_eq!(sighting(&[pxe]).asker, Asker::Firmware);
        assert_eq!(sighting(&[(77, b"other")]).asker, Asker::System);
        assert_eq!(sighting(&[]).asker, Asker::System);
    }

    #[test]
    fn the_class_tells_the_protocol_and_option_93_the_architecture() {
        let table: [(&[u8], u8, Firmware); 6] = [
            (b"PXEClient:Arch:00000:UNDI:003000", 7, Firmware::UefiX64),
            (b"PXEClient", 11, Firmware::UefiArm64),
            (b"HTTPClient:Arch:00016", 16, Firmware::UefiX64Http),
            (b"HTTPClient", 7, Firmware::UefiX64Http),
            (b"HTTPClient", 19, Firmware::UefiArm64Http),
            (b"PXEClient", 6, Firmware::Other(6)),
        ];
        for (class, number, firmware) in table {
            assert_eq!(sighting(&[(60, class), (93, &[0, number])]).firmware, Some(firmware));
        }
        assert_eq!(sighting(&[(60, b"PXEClient:Arch:00007")]).firmware, None);
    }

    #[test]
    fn the_uuid_is_turned_into_the_order_that_people_read() {
        let wire: Vec<u8> = [0, 0x44, 0x33, 0x22, 0x11, 0x66, 0x55, 0x88, 0x77]
            .into_iter()
            .chain([0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff, 0x01])
            .collect();
        assert_eq!(
            sighting(&[(97, &wire)]).uuid.as_deref(),
            Some("11223344-5566-7788-99aa-bbccddeeff01")
        );
        assert_eq!(sighting(&[(97, &[0; 17])]).uuid, None);
        assert_eq!(sighting(&[(97, &[1; 17])]).uuid, None);
        assert_eq!(sighting(&[(97, &[])]).uuid, None);
    }
}
