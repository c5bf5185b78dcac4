//! Where the server may connect to on behalf of others: nowhere that only it can reach, unless its settings say so.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use kiln_types::{Reach, plain_ip};

/// A network that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

/// The text is no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a network; write it as 10.0.0.0/8 or fd00::/8")]
pub struct ParseNetworkError(String);

impl FromStr for Network {
    type Err = ParseNetworkError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseNetworkError(text.escape_debug().take(60).collect());
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= most).ok_or_else(wrong)?;
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl Network {
    fn holds(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(own), IpAddr::V4(other)) => same(
                u128::from(own.to_bits()) << 96,
                u128::from(other.to_bits()) << 96,
                self.prefix,
            ),
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                same(own.to_bits(), other.to_bits(), self.prefix)
            }
            _ => false,
        }
    }
}

fn same(a: u128, b: u128, prefix: u8) -> bool {
    (a ^ b).checked_shr(128 - u32::from(prefix)).unwrap_or(0) == 0
}

/// Says why nothing is sent to an address, unless it may be.
pub(crate) fn refused(
    address: IpAddr,
    own: &[IpAddr],
    allowed: &[Network],
) -> Option<&'static str> {
    let address = plain_ip(address);
    if allowed.iter().any(|network| network.holds(address)) {
        return None;
    }
    if own.contains(&address) {
        return Some("it is an address of this server");
    }
    match (Reach::of(address), address) {
        (Reach::Everybody, _) => None,
        (Reach::Private, _) => Some("it is an address of a private network"),
        (Reach::Host, _) => Some("it is an address of this host itself"),
        (Reach::Link, IpAddr::V4(_)) => {
            Some("it is a link-local address, as those of metadata services are")
        }
        (Reach::Link, IpAddr::V6(_)) => Some("it is a link-local address"),
        (Reach::Nobody, IpAddr::V4(four)) if four.octets()[0] != 0 => {
            Some("it is a multicast or reserved address")
        }
        (Reach::Nobody, IpAddr::V6(six)) if six.is_multicast() => Some("it is a multicast address"),
        (Reach::Nobody, _) => Some("it is no address of a host"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(address: &str, allowed: &[&str]) -> Option<&'static str> {
        let allowed: Vec<Network> = allowed.iter().map(|text| text.parse().unwrap()).collect();
        refused(address.parse().unwrap(), &["203.0.113.9".parse().unwrap()], &allowed)
    }

    #[test]
    fn what_only_this_server_can_reach_is_refused_in_every_form() {
        for address in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "240.0.0.1",
            "203.0.113.9",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "fd00:ec2::254",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "::127.0.0.1",
            "::ffff:203.0.113.9",
        ] {
            assert!(says(address, &[]).is_some(), "{address}");
        }
        for address in ["203.0.113.8", "8.8.8.8", "172.32.0.1", "2001:db8::1", "::ffff:8.8.8.8"] {
            assert_eq!(says(address, &[]), None, "{address}");
        }
    }

    #[test]
    fn it_is_said_why_an_address_is_refused() {
        for (address, why) in [
            ("0.1.2.3", "no address of a host"),
            ("::", "no address of a host"),
            ("::2", "no address of a host"),
            ("::ffff:0.0.0.0", "no address of a host"),
            ("127.0.0.1", "an address of this host itself"),
            ("::1", "an address of this host itself"),
            ("10.0.0.1", "an address of a private network"),
            ("fd00::1", "an address of a private network"),
            ("169.254.1.1", "a link-local address, as those of metadata services are"),
            ("fe80::1", "a link-local address"),
            ("224.0.0.1", "a multicast or reserved address"),
            ("::ffff:255.255.255.255", "a multicast or reserved address"),
            ("ff02::1", "a multicast address"),
            ("203.0.113.9", "an address of this server"),
        ] {
            assert_eq!(says(address, &[]), Some(&*format!("it is {why}")), "{address}");
        }
    }

    #[test]
    fn the_settings_may_allow_a_network() {
        assert_eq!(says("10.1.2.3", &["10.0.0.0/8"]), None);
        assert_eq!(says("::ffff:10.1.2.3", &["10.0.0.0/8"]), None);
        assert!(
            says("11.1.2.3", &["10.0.0.0/8"]).is_none()
                && says("192.168.1.1", &["10.0.0.0/8"]).is_some()
        );
        assert_eq!(says("fd00::1", &["fd00::/8"]), None);
        assert_eq!(says("127.0.0.1", &["0.0.0.0/0"]), None);
        assert!(
            says("::1", &["0.0.0.0/0"]).is_some(),
            "the other version of IP is another network"
        );
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "x/8", "fd00::/129", "10.0.0.0/-1"] {
            assert!(wrong.parse::<Network>().is_err(), "{wrong}");
        }
    }
}
