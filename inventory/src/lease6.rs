use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use kiln_types::Mac;
use serde::{Deserialize, Serialize};

/// Longest identifier: a type of two bytes and at most 128 more (RFC 8415 §11.1).
const LONGEST: usize = 130;

/// What a DHCPv6 client or server calls itself (RFC 8415 §11). Shown in hexadecimal digits.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Duid(Vec<u8>);

impl Duid {
    /// Takes the bytes as they are on the wire, unless they are too few or too many to be an identifier.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        (3..=LONGEST).contains(&bytes.len()).then(|| Self(bytes.to_vec()))
    }

    /// Returns the bytes as they are on the wire.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the hardware address that is part of it, where it was made of one of an Ethernet interface
    /// (DUID-LLT and DUID-LL, RFC 8415 §11.2 and §11.4).
    pub fn mac(&self) -> Option<Mac> {
        let ([0, 1, 0, 1, _, _, _, _, octets @ ..] | [0, 3, 0, 1, octets @ ..]) = self.as_bytes()
        else {
            return None;
        };
        <[u8; 6]>::try_from(octets).ok().map(Mac::new).filter(|mac| mac.is_unicast())
    }
}

impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an identifier of DHCPv6.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a DUID; write it as 6 to 260 hexadecimal digits")]
pub struct ParseDuidError(String);

impl FromStr for Duid {
    type Err = ParseDuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseDuidError(text.chars().take(40).collect());
        let digits: Option<Vec<u8>> = text
            .chars()
            .map(|digit| digit.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.filter(|digits| digits.len() % 2 == 0).ok_or_else(error)?;
        let byte = |pair: &[u8]| pair.iter().fold(0, |byte, digit| byte << 4 | digit);
        let bytes: Vec<u8> = digits.chunks_exact(2).map(byte).collect();
        Self::new(&bytes).ok_or_else(error)
    }
}

/// One address of IPv6, given to one association of one client until a time.
///
/// Firmware, loader and system of one machine are three clients: each calls itself something else. What they have in
/// common is the hardware address, where the packet tells it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Lease6 {
    /// The address.
    #[schema(value_type = String, format = Ipv6)]
    pub address: Ipv6Addr,
    /// Who has it.
    #[schema(value_type = String)]
    pub duid: Duid,
    /// Which of its associations, most often one for each interface.
    pub iaid: u32,
    /// Hardware address of the interface, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mac: Option<Mac>,
    /// When it ends, in seconds since 1970. A past time keeps the memory of who had the address.
    pub expires: i64,
}

impl Serialize for Duid {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_read_back_as_it_is_written() {
        let duid = Duid::new(&[0, 4, 0xab, 0xff]).unwrap();
        assert_eq!(duid.to_string(), "0004abff");
        assert_eq!("0004abff".parse(), Ok(duid));
        for bad in ["", "0004a", "00", "xx00", "0004é"] {
            assert!(bad.parse::<Duid>().is_err(), "{bad}");
        }
        assert!(Duid::new(&[0; 131]).is_none() && Duid::new(&[0; 130]).is_some());
    }

    #[test]
    fn only_identifiers_made_of_a_hardware_address_tell_it() {
        let mac = |bytes: &[u8]| Duid::new(bytes).unwrap().mac();
        let expected = Some(Mac::new([2, 0, 0, 0, 0, 9]));
        assert_eq!(mac(&[0, 1, 0, 1, 1, 2, 3, 4, 2, 0, 0, 0, 0, 9]), expected);
        assert_eq!(mac(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 9]), expected);
        // InfiniBand, a UUID, too short, too long, a group address.
        assert_eq!(mac(&[0, 3, 0, 32, 2, 0, 0, 0, 0, 9]), None);
        assert_eq!(mac(&[0, 4, 0, 1, 2, 0, 0, 0, 0, 9]), None);
        assert_eq!(mac(&[0, 3, 0, 1, 2, 0, 0, 0, 0]), None);
        assert_eq!(mac(&[0, 3, 0, 1, 2, 0, 0, 0, 0, 9, 9]), None);
        assert_eq!(mac(&[0, 3, 0, 1, 3, 0, 0, 0, 0, 9]), None);
    }
}
