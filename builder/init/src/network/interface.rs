//! Finds the network card over which the machine booted.

use std::fs;
use std::path::Path;

const CARDS: &str = "/sys/class/net";

/// A network card of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Card {
    pub(crate) name: String,
    pub(crate) mac: [u8; 6],
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
            let mac = parse_mac(&property(&name, "address")?)?;
            Some(Card { name, mac })
        })
        .collect();
    cards.sort_by(|a, b| a.name.cmp(&b.name));
    cards
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

#[cfg(test)]
mod tests {
    use super::*;

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
