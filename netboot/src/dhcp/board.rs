//! Boards that are firmware and loader in one: U-Boot and the Raspberry Pi.

use kiln_inventory::Firmware;

use super::option;
use super::wire::Request;

/// The first bytes of addresses that Raspberry Pis have.
const PI_ADDRESSES: [[u8; 3]; 7] = [
    [0xb8, 0x27, 0xeb],
    [0xdc, 0xa6, 0x32],
    [0xe4, 0x5f, 0x01],
    [0x28, 0xcd, 0xc1],
    [0xd8, 0x3a, 0xdd],
    [0x2c, 0xcf, 0x67],
    [0x88, 0xa2, 0x9e],
];

/// What the boot program of a Raspberry Pi looks for in option 43 before it takes an answer for one to itself: a menu
/// with its name, a prompt that does not wait, and the boot file without a question to a boot server (PXE 2.1 §2.2.3).
/// The three spaces at the end are for the first Raspberry Pi 3, which looks for them.
pub(super) const PI_MENU: &[u8] =
    b"\x06\x01\x03\x0a\x04\x00PXE\x09\x17\x00\x00\x14Raspberry Pi Boot   \xff";

/// Returns what a board's own program says that it is.
///
/// U-Boot names itself in option 60 and may leave out option 93. A Raspberry Pi says in option 93 that it is a BIOS; from
/// the 4th on it writes `RPi` and its number where others have a UUID, before that only its hardware address tells it
/// from one. With UEFI on it, it says what UEFI says. Its second request may come without option 60.
pub(super) fn board(request: &Request) -> Option<Firmware> {
    let class = request.option(option::VENDOR_CLASS).unwrap_or_default();
    let told = request.architecture();
    if class.starts_with(b"U-Boot") || matches!(told, Some(21..=24)) {
        let by_class = || class.starts_with(b"U-Boot.armv8").then_some(Firmware::UbootArm64);
        return told.map(Firmware::from_option_93).or_else(by_class);
    }
    if let [0, b'R', b'P', b'i', ..] = request.option(option::CLIENT_UUID).unwrap_or_default() {
        return Some(Firmware::RaspberryPi);
    }
    let [a, b, c, ..] = request.mac.octets();
    let is_pi = PI_ADDRESSES.contains(&[a, b, c]) && matches!(told, Some(0 | 41));
    is_pi.then_some(Firmware::RaspberryPi)
}

#[cfg(test)]
mod tests {
    use kiln_inventory::Asker;

    use super::*;
    use crate::dhcp::classify::classify;
    use crate::dhcp::wire::tests::packet;

    fn seen(mac: [u8; 6], options: &[(u8, &[u8])]) -> (Asker, Option<Firmware>) {
        let mut bytes = vec![53, 1, 1];
        for (code, value) in options {
            bytes.extend([*code, u8::try_from(value.len()).unwrap()]);
            bytes.extend(*value);
        }
        let mut packet = packet(&bytes);
        packet[28..34].copy_from_slice(&mac);
        let sighting = classify(&Request::decode(&packet).unwrap());
        (sighting.asker, sighting.firmware)
    }

    const ANY: [u8; 6] = [0x52, 0x54, 0, 0, 0, 1];
    const PI: [u8; 6] = [0xdc, 0xa6, 0x32, 1, 0x36, 0xc2];

    #[test]
    fn u_boot_is_known_by_its_number_or_by_its_name() {
        let class: (u8, &[u8]) = (60, b"U-Boot.armv8");
        let arm64 = Some(Firmware::UbootArm64);
        assert_eq!(seen(ANY, &[class]), (Asker::Firmware, arm64));
        assert_eq!(seen(ANY, &[class, (93, &[0, 22])]), (Asker::Firmware, arm64));
        assert_eq!(seen(ANY, &[(93, &[0, 22])]), (Asker::Firmware, arm64));
        let http = Some(Firmware::UbootArm64Http);
        assert_eq!(seen(ANY, &[class, (93, &[0, 24])]), (Asker::Firmware, http));
        let arm = (Asker::Firmware, Some(Firmware::Other(21)));
        assert_eq!(seen(ANY, &[(60, b"U-Boot.armv7"), (93, &[0, 21])]), arm);
        // It says so when it looks for a program of UEFI.
        let uefi: (u8, &[u8]) = (60, b"PXEClient:Arch:00011:UNDI:003000");
        let arm64 = (Asker::Firmware, Some(Firmware::UefiArm64));
        assert_eq!(seen(ANY, &[uefi, (93, &[0, 11])]), arm64);
    }

    /// The packets are put together from what the documentation of the boot programs says of them.
    #[test]
    fn a_raspberry_pi_is_known_by_its_mark_or_by_its_address() {
        let pxe: (u8, &[u8]) = (60, b"PXEClient:Arch:00000:UNDI:002001");
        let mark = |number| {
            let mut mark = vec![0, b'R', b'P', b'i', number, 0x14, 0x31, 0xc0, 0x00];
            mark.extend([0x32, 1, 0x36, 0xc2, 0x9f, 0xfe, 0xfd, 0xef]);
            mark
        };
        let pi = (Asker::Firmware, Some(Firmware::RaspberryPi));
        for number in [b'4', b'5'] {
            assert_eq!(seen(ANY, &[pxe, (93, &[0, 0]), (97, &mark(number))]), pi);
        }
        assert_eq!(seen(PI, &[(97, &mark(b'4'))]), pi, "its request has no option 60");
        // The 3rd: a UUID that all have, and an answer only to an offer.
        assert_eq!(seen(PI, &[pxe, (93, &[0, 0]), (94, &[1, 2, 1]), (97, &[0x44; 17])]), pi);
        let bios = (Asker::Firmware, Some(Firmware::Bios));
        assert_eq!(seen(ANY, &[pxe, (93, &[0, 0])]), bios, "of another vendor");
        let uefi = (Asker::Firmware, Some(Firmware::UefiArm64));
        assert_eq!(seen(PI, &[(60, b"PXEClient:Arch:00011"), (93, &[0, 11])]), uefi);
        assert_eq!(seen(PI, &[]).0, Asker::System, "its system");
    }

    #[test]
    fn the_menu_for_a_raspberry_pi_is_well_formed() {
        let mut rest = PI_MENU;
        let mut codes = Vec::new();
        while let [code, len, tail @ ..] = rest {
            codes.push(*code);
            rest = &tail[usize::from(*len)..];
        }
        assert_eq!((codes, rest), (vec![6, 10, 9], &[255][..]));
    }
}
