//! Network cards.

use kiln_types::facts::NicFacts;

use super::tree::{Tree, name_of};
use crate::sys::permanent_address;

/// Interfaces looked at; those of containers are among them.
const MOST: usize = 1024;
/// From the card up to its bus: a virtio card is one below its PCI device.
const DEEPEST: usize = 4;

pub(super) fn nics(tree: &Tree) -> Vec<NicFacts> {
    let names = tree.names("sys/class/net", MOST);
    // What is made of other interfaces, or of nothing, has no device.
    names
        .into_iter()
        .filter(|name| tree.exists(&format!("sys/class/net/{name}/device")))
        .map(|name| nic(tree, name))
        .collect()
}

fn nic(tree: &Tree, name: String) -> NicFacts {
    let at = |file: &str| format!("sys/class/net/{name}/{file}");
    let (pci, bus) = pci(tree, &at("device")).unwrap_or_default();
    NicFacts {
        mac: tree.text(&at("address")),
        permanent_mac: permanent_address(&name).unwrap_or_default(),
        driver: tree.link(&at("device/driver")),
        // Without a cable it is unknown, or -1.
        speed: tree.number(&at("speed")).and_then(|speed| u32::try_from(speed).ok()),
        carrier: tree.number(&at("carrier")) == Some(1),
        down: is_down(&tree.text(&at("flags"))),
        pci,
        bus,
        switch: None,
        name,
    }
}

/// Looks for `IFF_UP` of linux/if.h in the flags of an interface, which are written in hexadecimal.
fn is_down(flags: &str) -> bool {
    let flags = flags.strip_prefix("0x").and_then(|digits| u32::from_str_radix(digits, 16).ok());
    flags.is_some_and(|flags| flags & 1 == 0)
}

/// Returns what the PCI device is under a card, and where it is on its bus.
fn pci(tree: &Tree, device: &str) -> Option<(String, String)> {
    let real = tree.real(device)?;
    for directory in real.ancestors().take(DEEPEST) {
        let here = Tree::new(directory);
        if here.link("subsystem") == "pci" {
            let number = |file| here.text(file).trim_start_matches("0x").to_owned();
            let pci = format!("{}:{}", number("vendor"), number("device"));
            return Some((pci, name_of(directory)));
        }
    }
    None
}

/// Returns the numbers of the interfaces that have somebody at the other end, with their names.
pub(super) fn linked(tree: &Tree) -> Vec<(i32, String)> {
    let nics = nics(tree).into_iter().filter(|nic| nic.carrier);
    nics.filter_map(|nic| {
        let index = tree.number(&format!("sys/class/net/{}/ifindex", nic.name))?;
        Some((i32::try_from(index).ok()?, nic.name))
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn a_card_has_its_driver_and_the_pci_device_below_it() {
        let fake = Fake::new("nics");
        let pci = "sys/devices/pci0000:00/0000:00:03.0";
        fake.file(&format!("{pci}/vendor"), "0x1af4\n");
        fake.file(&format!("{pci}/device"), "0x1000\n");
        fake.file("sys/bus/pci/x", "");
        fake.link("sys/bus/pci", &format!("{pci}/subsystem"));
        fake.file("sys/bus/virtio/drivers/virtio_net/x", "");
        fake.link("sys/bus/virtio/drivers/virtio_net", &format!("{pci}/virtio0/driver"));
        let net = "sys/class/net/kilntest0";
        for (file, text) in [
            ("address", "52:54:00:77:00:01\n"),
            ("carrier", "1\n"),
            ("speed", "-1\n"),
            ("ifindex", "7\n"),
        ] {
            fake.file(&format!("{net}/{file}"), text);
        }
        fake.link(&format!("{pci}/virtio0"), &format!("{net}/device"));
        fake.file("sys/class/net/lo/address", "00:00:00:00:00:00");
        let found = nics(&fake.tree());
        let [nic] = &found[..] else { panic!("{found:?}") };
        assert_eq!((nic.name.as_str(), nic.mac.as_str()), ("kilntest0", "52:54:00:77:00:01"));
        assert_eq!((nic.driver.as_str(), nic.pci.as_str()), ("virtio_net", "1af4:1000"));
        assert_eq!((nic.bus.as_str(), nic.speed, nic.carrier), ("0000:00:03.0", None, true));
        assert_eq!(linked(&fake.tree()), [(7, "kilntest0".to_owned())]);
    }

    #[test]
    fn a_card_that_is_switched_off_is_down_and_one_without_a_cable_is_not() {
        assert!(is_down("0x1002\n".trim()) && !is_down("0x1003"));
        assert!(!is_down("") && !is_down("1002"));
    }
}
