//! What is asked for by the paths of files that are made for one machine.

use std::net::IpAddr;

use kiln_inventory::{BootId, Firmware};
use kiln_types::Mac;

/// No path that we name, and none that firmware makes up, is longer.
const MAX_PATH: usize = 512;

/// A file that is made when it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// One UEFI program with everything in it.
    Uki { mac: Mac, firmware: Firmware },
    /// The script that iPXE asks for by itself.
    Autoexec,
    /// The script that U-Boot runs first.
    UbootScript,
    /// The menu of U-Boot, in PXELINUX's format.
    UbootMenu(Whose),
    /// The configuration of GRUB.
    GrubMenu(Whose),
    /// The kernel of a boot.
    Kernel { boot: BootId, key: String },
    /// All segments of a boot in one, with that of the machine.
    Initrd { boot: BootId, key: String },
    /// All files of a Raspberry Pi in one, or the signature of that.
    PiImage { signature: bool },
    /// A file of a Raspberry Pi, with the folder that it puts in front.
    Pi { folder: String, file: String },
}

/// Whose file it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Whose {
    /// That of the machine with this interface.
    Mac(Mac),
    /// That of the machine with this SMBIOS UUID, in lower case.
    Uuid(String),
    /// That of the machine that asks, by its address.
    Asker,
}

/// Reads a path. Loaders put the folder in front that they came from, so only the end counts.
pub(super) fn parse(path: &str, peer: IpAddr) -> Option<Wanted> {
    if path.len() > MAX_PATH {
        return None;
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    if let [.., "boot", boot, key, what @ ("kernel" | "initrd")] = parts.as_slice() {
        let (boot, key) = (BootId(boot.parse().ok()?), (*key).to_owned());
        return Some(match *what {
            "kernel" => Wanted::Kernel { boot, key },
            _ => Wanted::Initrd { boot, key },
        });
    }
    match parts.as_slice() {
        ["uki", mac, file] => {
            let firmware: Firmware = file.strip_suffix(".efi")?.parse().ok()?;
            Some(Wanted::Uki { mac: mac.parse().ok()?, firmware })
        }
        [.., "autoexec.ipxe"] => Some(Wanted::Autoexec),
        [.., "boot.scr.uimg" | "boot.scr"] => Some(Wanted::UbootScript),
        [.., "pxelinux.cfg", name] => whose(name, peer).map(Wanted::UbootMenu),
        [.., "extlinux.conf"] => Some(Wanted::UbootMenu(Whose::Asker)),
        [.., "boot.img"] => Some(Wanted::PiImage { signature: false }),
        [.., "boot.sig"] => Some(Wanted::PiImage { signature: true }),
        [.., "grub.cfg"] => Some(Wanted::GrubMenu(Whose::Asker)),
        [.., name] if name.starts_with("grub.cfg-") => {
            whose(name.strip_prefix("grub.cfg-")?, peer).map(Wanted::GrubMenu)
        }
        [file] => pi(String::new(), file),
        [folder, rest @ ..] if is_pi_folder(folder) => pi((*folder).to_owned(), &rest.join("/")),
        rest => pi(String::new(), &rest.join("/")),
    }
}

/// Reads a name as PXELINUX, U-Boot and GRUB make them up, one after the other: UUID, `01-` and MAC, address in
/// hexadecimal digits and its beginnings, `default` with and without architecture and board.
fn whose(name: &str, peer: IpAddr) -> Option<Whose> {
    if let Some(mac) = name.strip_prefix("01-") {
        return mac.parse().ok().map(Whose::Mac);
    }
    if name.starts_with("default") {
        return Some(Whose::Asker);
    }
    let groups: Vec<usize> = name.split('-').map(str::len).collect();
    let hex = name.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-');
    if hex && groups == [8, 4, 4, 4, 12] {
        return Some(Whose::Uuid(name.to_ascii_lowercase()));
    }
    let IpAddr::V4(address) = peer else { return None };
    let own = format!("{:08X}", address.to_bits());
    let is_own = !name.is_empty() && own.starts_with(&name.to_ascii_uppercase());
    is_own.then_some(Whose::Asker)
}

/// Returns whether a Raspberry Pi puts this in front of its files: its serial number, or its address with dashes.
fn is_pi_folder(text: &str) -> bool {
    let serial = matches!(text.len(), 8 | 16) && text.bytes().all(|b| b.is_ascii_hexdigit());
    serial || (text.len() == 17 && text.contains('-') && text.parse::<Mac>().is_ok())
}

fn pi(folder: String, file: &str) -> Option<Wanted> {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-+".contains(&b))
    };
    let sound = file.split('/').count() <= 2 && file.split('/').all(plain);
    sound.then(|| Wanted::Pi { folder, file: file.to_owned() })
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 168, 1, 10));
    const MAC: Mac = Mac::new([0x52, 0x54, 0, 0xaa, 0, 1]);

    #[test]
    fn every_name_that_loaders_make_up_is_understood() {
        let menu = |whose| Some(Wanted::UbootMenu(whose));
        let uuid = "11223344-5566-7788-99aa-bbccddeeff01";
        for (path, expected) in [
            ("/pxelinux.cfg/01-52-54-00-aa-00-01", menu(Whose::Mac(MAC))),
            ("x/pxelinux.cfg/01-52-54-00-AA-00-01", menu(Whose::Mac(MAC))),
            ("pxelinux.cfg/11223344-5566-7788-99AA-BBCCDDEEFF01", menu(Whose::Uuid(uuid.into()))),
            ("pxelinux.cfg/C0A8010A", menu(Whose::Asker)),
            ("pxelinux.cfg/C0A80", menu(Whose::Asker)),
            ("pxelinux.cfg/C", menu(Whose::Asker)),
            ("pxelinux.cfg/C0A8010B", None),
            ("pxelinux.cfg/default-arm-qemu-arm", menu(Whose::Asker)),
            ("pxelinux.cfg/default", menu(Whose::Asker)),
            ("pxelinux.cfg/01-zz", None),
            ("extlinux/extlinux.conf", menu(Whose::Asker)),
            ("grub/grub.cfg", Some(Wanted::GrubMenu(Whose::Asker))),
            ("grub/grub.cfg-01-52-54-00-aa-00-01", Some(Wanted::GrubMenu(Whose::Mac(MAC)))),
            ("grub/grub.cfg-C0A8010A", Some(Wanted::GrubMenu(Whose::Asker))),
            ("boot.scr.uimg", Some(Wanted::UbootScript)),
            ("ipxe/autoexec.ipxe", Some(Wanted::Autoexec)),
            ("loader/autoexec.ipxe", Some(Wanted::Autoexec)),
            (
                "uki/52-54-00-aa-00-01/uefi-x64-http.efi",
                Some(Wanted::Uki { mac: MAC, firmware: Firmware::UefiX64Http }),
            ),
            ("uki/52-54-00-aa-00-01/x.efi", None),
            ("boot/7/k/kernel", Some(Wanted::Kernel { boot: BootId(7), key: "k".to_owned() })),
            ("grub/boot/7/k/initrd", Some(Wanted::Initrd { boot: BootId(7), key: "k".to_owned() })),
            ("boot/x/k/initrd", None),
            ("net_install/boot.img", Some(Wanted::PiImage { signature: false })),
            ("boot.sig", Some(Wanted::PiImage { signature: true })),
        ] {
            assert_eq!(parse(path, PEER), expected, "{path}");
        }
    }

    #[test]
    fn a_raspberry_pi_puts_its_number_or_its_address_in_front() {
        for (path, folder, file) in [
            ("config.txt", "", "config.txt"),
            ("9ffefdef/config.txt", "9ffefdef", "config.txt"),
            ("dc-a6-32-01-36-c2/start4.elf", "dc-a6-32-01-36-c2", "start4.elf"),
            ("9ffefdef/overlays/overlay_map.dtb", "9ffefdef", "overlays/overlay_map.dtb"),
            ("overlays/overlay_map.dtb", "", "overlays/overlay_map.dtb"),
        ] {
            let wanted = Wanted::Pi { folder: folder.to_owned(), file: file.to_owned() };
            assert_eq!(parse(path, PEER), Some(wanted), "{path}");
        }
        let long = "a".repeat(600);
        for path in ["9ffefdef/../etc/passwd", "..", "", "a/b/c/d", "a b", &long] {
            assert_eq!(parse(path, PEER), None, "{path}");
        }
    }

    #[test]
    fn fuzzed_paths_name_a_file_of_ours_or_nothing() {
        let samples: [&[u8]; 7] = [
            b"uki/52-54-00-00-00-01/uefi-x64.efi",
            b"boot/7/0011aabb/initrd",
            b"pxelinux.cfg/01-52-54-00-00-00-01",
            b"pxelinux.cfg/11223344-5566-7788-99aa-bbccddeeff00",
            b"pxelinux.cfg/0A4D0009",
            b"1a2b3c4d/config.txt",
            b"EFI/debian/grub.cfg-01-52-54-00-00-00-01",
        ];
        kiln_fuzz::check("made-path", &samples, |bytes| {
            let path = String::from_utf8_lossy(bytes);
            if let Some(Wanted::Pi { file, .. }) = parse(&path, IpAddr::from([10, 0, 0, 1])) {
                assert!(file.split('/').all(|part| !part.is_empty() && !part.starts_with('.')));
            }
        });
    }
}
