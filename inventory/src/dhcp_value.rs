//! What operators write about DHCP: bytes of options, and names that clients and switches give.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest value. A reply has not much more room.
const MAX: usize = 1024;

/// The bytes of one DHCP option, written with their type: `ip:10.0.0.1,10.0.0.2`, `text:…`, `hex:0a0b`, `u8:1`, `u16:1`,
/// `u32:1`, `bool:true`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OptionValue {
    text: String,
    bytes: Vec<u8>,
}

/// The text is no value of an option.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no value of a DHCP option; write its type in front: ip:10.0.0.1,10.0.0.2, text:…, hex:0a0b, u8:1, u16:1, u32:1 or bool:true"
)]
pub struct ParseOptionError(String);

impl OptionValue {
    /// Returns the bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl FromStr for OptionValue {
    type Err = ParseOptionError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (kind, value) = text.split_once(':')?;
            let list = || value.split(',').map(str::trim);
            let bytes: Vec<u8> = match kind {
                "ip" => {
                    let addresses: Result<Vec<Ipv4Addr>, _> = list().map(str::parse).collect();
                    addresses.ok()?.iter().flat_map(Ipv4Addr::octets).collect()
                }
                "text" => value.as_bytes().to_vec(),
                "hex" => hex(value)?,
                "u8" => list().map(str::parse).collect::<Result<_, _>>().ok()?,
                "u16" => {
                    let numbers: Result<Vec<u16>, _> = list().map(str::parse).collect();
                    numbers.ok()?.iter().flat_map(|n| n.to_be_bytes()).collect()
                }
                "u32" => {
                    let numbers: Result<Vec<u32>, _> = list().map(str::parse).collect();
                    numbers.ok()?.iter().flat_map(|n| n.to_be_bytes()).collect()
                }
                "bool" => vec![u8::from(value.parse::<bool>().ok()?)],
                _ => return None,
            };
            (bytes.len() <= MAX).then(|| Self { text: text.to_owned(), bytes })
        };
        parse().ok_or_else(|| ParseOptionError(text.chars().take(60).collect()))
    }
}

impl TryFrom<String> for OptionValue {
    type Error = ParseOptionError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<OptionValue> for String {
    fn from(value: OptionValue) -> Self {
        value.text
    }
}

impl fmt::Display for OptionValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Returns whether operators may say what is in an option. The others belong to the exchange itself.
pub const fn may_set_option(code: u8) -> bool {
    !matches!(code, 0 | 50..=59 | 61 | 82 | 90 | 97 | 118 | 255)
}

/// A client identifier or the port of a switch: a text, or bytes that are written `hex:0152540012ab`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identifier {
    text: String,
    bytes: Vec<u8>,
}

/// The text is no identifier.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no identifier; write a text, or up to 255 bytes as hex:0152540012ab")]
pub struct ParseIdentifierError(String);

impl Identifier {
    /// Returns the bytes as they come in packets.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Takes the bytes of a packet, as text where people can read them. None where there are none or too many.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let readable = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
        let text = match std::str::from_utf8(bytes) {
            Ok(text) if readable && !text.starts_with("hex:") => text.to_owned(),
            _ => bytes.iter().fold("hex:".to_owned(), |text, byte| format!("{text}{byte:02x}")),
        };
        (1..=255).contains(&bytes.len()).then(|| Self { text, bytes: bytes.to_vec() })
    }
}

impl FromStr for Identifier {
    type Err = ParseIdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = match text.strip_prefix("hex:") {
            Some(digits) => hex(digits),
            None => Some(text.as_bytes().to_vec()),
        };
        let fits = bytes.filter(|bytes| (1..=255).contains(&bytes.len()));
        fits.map(|bytes| Self { text: text.to_owned(), bytes })
            .ok_or_else(|| ParseIdentifierError(text.chars().take(60).collect()))
    }
}

impl TryFrom<String> for Identifier {
    type Error = ParseIdentifierError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Identifier> for String {
    fn from(value: Identifier) -> Self {
        value.text
    }
}

impl fmt::Display for Identifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Reads `0a0b` or `0a:0b`.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b':').collect();
    let (pairs, rest) = digits.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

kiln_types::text_schemas! {
    OptionValue: "Value of a DHCP option: ip:, text:, hex:, u8:, u16:, u32: or bool: and the value", "ip:10.0.0.1";
    Identifier: "What a client or a port is called, as text or as hex: and digits", "rack1-port7";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_options_are_bytes_of_a_type() {
        let table: [(&str, &[u8]); 9] = [
            ("ip:10.0.0.1, 10.0.0.2", &[10, 0, 0, 1, 10, 0, 0, 2]),
            ("text:a:b", b"a:b"),
            ("text:", b""),
            ("hex:0a:0B", &[10, 11]),
            ("u8:7,8", &[7, 8]),
            ("u16:258", &[1, 2]),
            ("u32:16909060", &[1, 2, 3, 4]),
            ("bool:true", &[1]),
            ("bool:false", &[0]),
        ];
        for (text, bytes) in table {
            let value: OptionValue = text.parse().unwrap();
            assert_eq!((value.bytes(), value.to_string().as_str()), (bytes, text));
        }
        for bad in ["10.0.0.1", "ip:", "ip:10.0.0", "hex:abc", "hex:é0", "u8:256", "bool:1", "x:1"]
        {
            assert!(bad.parse::<OptionValue>().is_err(), "{bad}");
        }
        assert!(format!("text:{}", "x".repeat(1025)).parse::<OptionValue>().is_err());
    }

    #[test]
    fn identifiers_are_texts_or_bytes() {
        let bytes = |text: &str| text.parse::<Identifier>().map(|id| id.bytes().to_vec());
        assert_eq!(bytes("Gi1/0/7"), Ok(b"Gi1/0/7".to_vec()));
        assert_eq!(bytes("hex:01:52"), Ok(vec![1, 0x52]));
        for seen in [&b"Gi1/0/7"[..], &[0, 4, 7], b"hex:00", "\u{e9}".as_bytes()] {
            let id = Identifier::from_bytes(seen).unwrap();
            assert_eq!(bytes(&id.to_string()).as_deref(), Ok(seen));
        }
        assert_eq!((Identifier::from_bytes(&[]), Identifier::from_bytes(&[1; 256])), (None, None));
        for bad in ["", "hex:", "hex:0", "hex:zz"] {
            assert!(bytes(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fuzzed_values_and_identifiers_are_read_or_refused() {
        let samples: [&[u8]; 6] = [
            b"ip:10.0.0.9,10.0.0.10",
            b"hex:0102ff",
            b"text:a b",
            b"u16:7",
            b"port 7",
            b"1:52:54:00",
        ];
        kiln_fuzz::check("dhcp-value", &samples, |bytes| {
            let text = String::from_utf8_lossy(bytes);
            if let Ok(value) = text.parse::<OptionValue>() {
                assert_eq!(value.to_string().parse(), Ok(value));
            }
            if let Ok(identifier) = text.parse::<Identifier>() {
                assert_eq!(identifier.to_string().parse(), Ok(identifier));
            }
            if let Some(identifier) = Identifier::from_bytes(bytes) {
                assert_eq!(identifier.bytes(), bytes);
            }
        });
    }
}
