//! Disks and drives.

use std::path::Path;

use kiln_types::facts::{DiskFacts, line};

use super::tree::Tree;

/// Devices looked at; loop devices and the like are among them.
const MOST: usize = 1024;

pub(super) fn disks(tree: &Tree) -> Vec<DiskFacts> {
    let names = tree.names("sys/block", MOST);
    // What is made of other devices, or of memory, has none of its own.
    names
        .into_iter()
        .filter(|name| tree.exists(&format!("sys/block/{name}/device")))
        .map(|name| disk(tree, name))
        .collect()
}

fn disk(tree: &Tree, name: String) -> DiskFacts {
    let at = |file: &str| format!("sys/block/{name}/{file}");
    let real = tree.real(&at("device")).unwrap_or_default();
    DiskFacts {
        // In units of 512 bytes, whatever the disk's own are.
        size: tree.number(&at("size")).unwrap_or_default().saturating_mul(512),
        model: tree.first_text(&[at("device/model"), at("device/name")]),
        serial: serial(tree, &name),
        wwn: tree.first_text(&[at("device/wwid"), at("wwid")]),
        transport: transport(&real, &name).to_owned(),
        rotational: tree.number(&at("queue/rotational")) == Some(1),
        removable: tree.number(&at("removable")) == Some(1),
        name,
    }
}

fn serial(tree: &Tree, name: &str) -> String {
    let at = |file: &str| format!("sys/block/{name}/{file}");
    let text = tree.first_text(&[at("serial"), at("device/serial")]);
    if !text.is_empty() {
        return text;
    }
    // SCSI keeps it in a page of "vital product data": four bytes of head, the last two of which are its length.
    let page = tree.bytes(&at("device/vpd_pg80"), 260).unwrap_or_default();
    let length = match page.get(2..4) {
        Some(&[high, low]) => usize::from(u16::from_be_bytes([high, low])),
        _ => 0,
    };
    let rest = page.get(4..).unwrap_or_default();
    line(&String::from_utf8_lossy(rest.get(..length).unwrap_or(rest)))
}

/// Says by what the disk is attached, from the devices above it.
fn transport(real: &Path, name: &str) -> &'static str {
    if name.starts_with("nvme") {
        return "nvme";
    }
    if name.starts_with("mmcblk") {
        return "mmc";
    }
    let mut parts: Vec<String> =
        real.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    // The nearest one says it: a USB disk is below a PCI device too.
    parts.reverse();
    let numbered = |part: &str, word: &str| {
        part.strip_prefix(word).is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
    };
    for part in &parts {
        for (word, transport) in [
            ("session", "iscsi"),
            ("end_device-", "sas"),
            ("rport-", "fc"),
            ("usb", "usb"),
            ("ata", "sata"),
            ("virtio", "virtio"),
        ] {
            if numbered(part, word) {
                return transport;
            }
        }
    }
    ""
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn disks_are_read_by_the_way_they_are_attached() {
        let fake = Fake::new("disks");
        let ahci = "sys/devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0";
        fake.file(&format!("{ahci}/model"), "KILN DISK       \n");
        fake.file(&format!("{ahci}/wwid"), "naa.5000c500a1b2c3d4\n");
        fake.file(&format!("{ahci}/vpd_pg80"), "\0\u{0}\0\u{8}  KD-0001trailing");
        for (file, text) in [("size", "4096\n"), ("queue/rotational", "1\n"), ("removable", "0\n")]
        {
            fake.file(&format!("sys/block/sda/{file}"), text);
        }
        fake.link(ahci, "sys/block/sda/device");
        fake.file("sys/devices/pci0000:00/0000:00:04.0/virtio3/x", "");
        fake.link("sys/devices/pci0000:00/0000:00:04.0/virtio3", "sys/block/vda/device");
        fake.file("sys/block/vda/serial", "state\u{1b}[2J");
        fake.file("sys/block/loop0/size", "8");
        let found = disks(&fake.tree());
        assert_eq!(found.len(), 2, "a loop device is no disk: {found:?}");
        let sda = DiskFacts {
            name: "sda".to_owned(),
            size: 4096 * 512,
            model: "KILN DISK".to_owned(),
            serial: "KD-000".to_owned(),
            wwn: "naa.5000c500a1b2c3d4".to_owned(),
            transport: "sata".to_owned(),
            rotational: true,
            removable: false,
        };
        assert_eq!(found[0], sda);
        assert_eq!((found[1].serial.as_str(), found[1].transport.as_str()), ("state[2J", "virtio"));
    }

    #[test]
    fn the_nearest_bus_says_how_a_disk_is_attached() {
        for (path, name, expected) in [
            ("/sys/devices/pci0/usb1/1-2/host4/target4:0:0/4:0:0:0", "sdb", "usb"),
            ("/sys/devices/pci0/virtio2/host0/target0:0:0/0:0:0:0", "sda", "virtio"),
            ("/sys/devices/pci0/host0/port-0:0/end_device-0:0/target0/0:0:0:0", "sda", "sas"),
            ("/sys/devices/platform/host3/session1/target3:0:0", "sdc", "iscsi"),
            ("/sys/devices/pci0/nvme/nvme0", "nvme0n1", "nvme"),
            ("/sys/devices/platform/mmc0/mmc0:0001", "mmcblk0", "mmc"),
            ("/sys/devices/catalog", "sdx", ""),
        ] {
            assert_eq!(transport(Path::new(path), name), expected, "{path}");
        }
    }
}
