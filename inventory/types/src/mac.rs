use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// An Ethernet hardware address. Displayed as `52:54:00:12:34:56`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// Wraps six bytes in the order they have on the wire.
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Returns the six bytes in the order they have on the wire.
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Returns the hardware address that is part of an address of IPv6, where a host has made it that way (RFC 4291
    /// appendix A). Firmware and iPXE always do.
    pub fn from_eui64(address: Ipv6Addr) -> Option<Self> {
        let [.., a, b, c, 0xff, 0xfe, d, e, f] = address.octets() else { return None };
        Some(Self([a ^ 2, b, c, d, e, f])).filter(|mac| mac.is_unicast())
    }

    /// Returns whether the address names one network interface: neither zero nor a group address.
    pub const fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0 && !matches!(self.0, [0, 0, 0, 0, 0, 0])
    }

    /// Returns the form with dashes, which is safe in paths and file names: `52-54-00-12-34-56`.
    pub fn dashed(self) -> String {
        self.to_string().replace(':', "-")
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        f.pad(&format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}"))
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not an Ethernet hardware address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a MAC address; write it as 52:54:00:12:34:56")]
pub struct ParseMacError(String);

impl FromStr for Mac {
    type Err = ParseMacError;

    /// Reads the forms that people and tools write: `aa:bb:cc:dd:ee:ff`, `aa-bb-…`, `aabb.ccdd.eeff`,
    /// `aabbccddeeff` and the PXELINUX form `01-aa-bb-…` (its `01` is the hardware type of Ethernet).
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || ParseMacError(s.chars().take(40).collect());
        let separators = s.bytes().filter(|b| matches!(b, b':' | b'-' | b'.')).count();
        let body = match separators {
            6 => s.strip_prefix("01-").ok_or_else(error)?,
            0 | 2 | 5 => s,
            _ => return Err(error()),
        };
        let groups: Vec<&str> = body.split([':', '-', '.']).collect();
        if groups.iter().any(|group| group.len() != 12 / groups.len()) {
            return Err(error());
        }
        let digits: Vec<u8> = groups
            .concat()
            .chars()
            .map(|c| c.to_digit(16).and_then(|d| u8::try_from(d).ok()))
            .collect::<Option<_>>()
            .ok_or_else(error)?;
        let mut octets = [0; 6];
        if digits.len() != 12 {
            return Err(error());
        }
        for (octet, pair) in octets.iter_mut().zip(digits.chunks_exact(2)) {
            *octet = pair.iter().fold(0, |value, digit| value << 4 | digit);
        }
        Ok(Self(octets))
    }
}

impl Serialize for Mac {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Mac {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_ipv6_tells_the_hardware_address_it_was_made_of() {
        let told = |address: &str| Mac::from_eui64(address.parse().unwrap());
        let mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
        assert_eq!(told("fe80::5054:ff:fe77:1"), Some(mac));
        assert_eq!(told("fd77::5054:ff:fe77:1"), Some(mac));
        // Not made of one, of a group address, of zeros.
        for other in
            ["fd77::100", "fe80::3054:ff:1e77:1", "fe80::300:ff:fe77:1", "fe80::200:ff:fe00:0"]
        {
            assert_eq!(told(other), None, "{other}");
        }
    }

    #[test]
    fn every_usual_form_parses() {
        let mac = Mac::new([0x52, 0x54, 0, 0x12, 0xab, 0xcd]);
        for text in [
            "52:54:00:12:ab:cd",
            "52-54-00-12-AB-CD",
            "5254.0012.abcd",
            "52540012abcd",
            "01-52-54-00-12-ab-cd",
        ] {
            assert_eq!(text.parse(), Ok(mac), "{text}");
        }
        assert_eq!(mac.to_string(), "52:54:00:12:ab:cd");
        assert_eq!(mac.dashed(), "52-54-00-12-ab-cd");
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ":::::",
            "52:54:00:12:ab",
            "52:54:00:12:ab:cg",
            "02-52-54-00-12-ab-cd",
            "5:254:00:12:ab:cd",
            "٣٣:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn group_and_zero_addresses_name_no_interface() {
        assert!(Mac::new([0x52, 0, 0, 0, 0, 1]).is_unicast());
        assert!(!Mac::new([0; 6]).is_unicast());
        assert!(!Mac::new([0xff; 6]).is_unicast());
    }
}
