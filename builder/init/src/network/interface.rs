//! The network cards of the machine, as sysfs shows them.

use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

const CARDS: &str = "/sys/class/net";

/// A network card of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
    /// What drives it; empty for one that is not hardware.
    pub(crate) driver: String,
}

/// Returns the cards that speak Ethernet, by name.
pub(crate) fn cards() -> Vec<Card> {
    let Ok(entries) = fs::read_dir(CARDS) else { return Vec::new() };
    let mut cards: Vec<Card> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name().into_string().ok()?;
            // ARPHRD_ETHER; loopback has another number.
            if property(&name, "type").as_deref() != Some("1") {
                return None;
            }
            let mac = mac_of(&name)?;
            let driver = fs::read_link(Path::new(CARDS).join(&name).join("device/driver"));
            let driver = driver.ok().and_then(|path| path.file_name()?.to_str().map(str::to_owned));
            Some(Card { name, mac, driver: driver.unwrap_or_default() })
        })
        .collect();
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards
}

/// Returns the address of a card.
pub(crate) fn mac_of(card: &str) -> Option<[u8; 6]> {
    parse_mac(&property(card, "address")?)
}

/// Says whether a cable with somebody at its other end is plugged in.
pub(crate) fn has_carrier(name: &str) -> bool {
    property(name, "carrier").as_deref() == Some("1")
}

fn property(card: &str, property: &str) -> Option<String> {
    let text = fs::read_to_string(Path::new(CARDS).join(card).join(property)).ok()?;
    Some(text.trim().to_owned())
}

/// Reads six hexadecimal octets with `:` or `-` between them.
pub(crate) fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split([':', '-']);
    for octet in &mut mac {
        let part = parts.next().filter(|part| part.len() == 2)?;
        *octet = u8::from_str_radix(part, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// What the loader put on the kernel's command line about the boot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct BootLine {
    /// `BOOTIF=01-52-54-…`, as PXELINUX and iPXE write it.
    pub(crate) mac: Option<[u8; 6]>,
    /// First part of `ip=ADDRESS:…`: what firmware was given.
    pub(crate) address: Option<Ipv4Addr>,
}

/// Reads the kernel's command line.
pub(crate) fn boot_line(text: &str) -> BootLine {
    let mut line = BootLine::default();
    for word in text.split_ascii_whitespace() {
        if let Some(mac) = word.strip_prefix("BOOTIF=") {
            // Before the address stands the kind of hardware, which is 1 for Ethernet.
            line.mac = parse_mac(mac).or_else(|| parse_mac(mac.strip_prefix("01")?.get(1..)?));
        } else if let Some(ip) = word.strip_prefix("ip=") {
            line.address = ip.split(':').next().and_then(|address| address.parse().ok());
        }
    }
    line
}

/// An IPv6 address of an interface.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) address: Ipv6Addr,
    pub(crate) prefix: u8,
    pub(crate) link_local: bool,
    /// Nobody else has it, as far as can be known.
    pub(crate) usable: bool,
}

/// Returns the IPv6 addresses of an interface.
pub(crate) fn ipv6_addresses(index: u32) -> Vec<Held> {
    let text = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    text.lines().filter_map(|line| held(line, index)).collect()
}

/// A line is address, index, prefix, scope, flags and name, all but the last hexadecimal.
fn held(line: &str, index: u32) -> Option<Held> {
    /// `IFA_F_TENTATIVE` and `IFA_F_DADFAILED`.
    const UNSURE: u32 = 0x40 | 0x08;
    const GLOBAL: u32 = 0;
    const LINK: u32 = 0x20;
    let mut words = line.split_ascii_whitespace();
    let address = u128::from_str_radix(words.next()?, 16).ok()?;
    let mut number = || u32::from_str_radix(words.next()?, 16).ok();
    let (of, prefix, scope, flags) = (number()?, number()?, number()?, number()?);
    (of == index && matches!(scope, GLOBAL | LINK)).then(|| Held {
        address: address.into(),
        prefix: u8::try_from(prefix).unwrap_or(128),
        link_local: scope == LINK,
        usable: flags & UNSURE == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_tells_over_which_card_and_with_which_address_the_machine_booted() {
        let mac = Some([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        let address = Some(Ipv4Addr::new(10, 0, 0, 5));
        let line = boot_line(
            "quiet BOOTIF=01-52-54-00-ab-cd-ef ip=10.0.0.5:10.0.0.1:10.0.0.1:255.255.255.0",
        );
        assert_eq!(line, BootLine { mac, address });
        assert_eq!(boot_line("BOOTIF=52:54:00:ab:cd:ef ip=dhcp"), BootLine { mac, address: None });
        assert_eq!(boot_line("BOOTIF=01- BOOTIF=20-52 ip="), BootLine::default());
    }

    #[test]
    fn the_kernels_list_of_ipv6_addresses_is_read() {
        let line = "fe80000000000000505400fffe123456 02 40 20 80     eth0";
        let address = held(line, 2).unwrap();
        assert!(address.link_local && address.usable && address.prefix == 64);
        assert_eq!(held(line, 3), None);
        let line = "20010db8000000000000000000000005 0a 80 00 c0 eth1";
        let address = held(line, 10).unwrap();
        assert_eq!(address.address.to_string(), "2001:db8::5");
        assert!(!address.usable && !address.link_local);
        assert_eq!(held("nonsense", 1), None);
    }

    #[test]
    fn an_address_of_a_card_is_read() {
        let expected = Some([0x52, 0x54, 0, 0xab, 0xcd, 0xef]);
        assert_eq!(parse_mac("52:54:00:AB:cd:ef"), expected);
        assert_eq!(parse_mac("52-54-00-ab-cd-ef"), expected);
        for wrong in ["", "52:54", "52:54:00:ab:cd:ef:00", "52:54:00:ab:cd:eg", "5:54:00:ab:cd:ef"]
        {
            assert_eq!(parse_mac(wrong), None, "{wrong}");
        }
    }
}
