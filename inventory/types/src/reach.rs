//! How far away an address is: what a server must look at before it connects to where somebody else sends it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Who can reach an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Whoever is on the Internet, as far as the address tells.
    Everybody,
    /// Those of one site: 10/8, 172.16/12 and 192.168/16 (RFC 1918), 100.64/10 between a carrier and its customers
    /// (RFC 6598), fc00::/7 (RFC 4193), and fec0::/10, which was for that before (RFC 3879).
    Private,
    /// This host alone: 127/8 (RFC 1122 §3.2.1.3) and ::1 (RFC 4291 §2.5.3).
    Host,
    /// Those on the same wire, as the metadata services of clouds are: 169.254/16 (RFC 3927), fe80::/10
    /// (RFC 4291 §2.5.6).
    Link,
    /// No host has such an address: 0/8 (RFC 1122 §3.2.1.3), multicast and what is reserved, 224/3 (RFC 1112 §4), `::`
    /// (RFC 4291 §2.5.2) and ff00::/8 (§2.7).
    Nobody,
}

impl Reach {
    /// Finds out who can reach an address. One of IPv6 that stands for one of IPv4 is where that is: see [`plain_ip`].
    pub fn of(address: IpAddr) -> Self {
        match plain_ip(address) {
            IpAddr::V4(address) => Self::of4(address),
            IpAddr::V6(address) => Self::of6(address),
        }
    }

    fn of4(address: Ipv4Addr) -> Self {
        match address.octets() {
            [127, ..] => Self::Host,
            [169, 254, ..] => Self::Link,
            [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => Self::Private,
            [0 | 224..=255, ..] => Self::Nobody,
            _ => Self::Everybody,
        }
    }

    fn of6(address: Ipv6Addr) -> Self {
        let [first, ..] = address.segments();
        match first {
            _ if address.is_loopback() => Self::Host,
            0xfe80..=0xfebf => Self::Link,
            0xfc00..=0xfdff | 0xfec0..=0xfeff => Self::Private,
            0xff00..=0xffff => Self::Nobody,
            _ if address.is_unspecified() => Self::Nobody,
            _ => Self::Everybody,
        }
    }
}

/// Takes an address of IPv4 out of the forms that it has in IPv6: mapped, ::ffff:a.b.c.d (RFC 4291 §2.5.5.2); by NAT64,
/// 64:ff9b::a.b.c.d (RFC 6052 §2.1) and what else begins with 64:ff9b (RFC 8215); by 6to4, 2002:aabb:ccdd::/48
/// (RFC 3056 §2); and the old one with nothing before it, ::a.b.c.d (RFC 4291 §2.5.5.1), which `::` and `::1` are not.
/// Another address is returned as it is.
pub fn plain_ip(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(six) => embedded(six).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let four = |high: u16, low: u16| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low));
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0x64, 0xff9b, ..) => Some(four(g, h)),
        (0x2002, ..) => Some(four(b, c)),
        (0, 0, 0, 0, 0, 0) if (g, h) != (0, 0) && (g, h) != (0, 1) => Some(four(g, h)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_reached_by_those_that_its_network_is_for() {
        for (reach, addresses) in [
            (
                Reach::Everybody,
                "1.0.0.0 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 \
                 128.0.0.0 169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.167.255.255 \
                 192.169.0.0 223.255.255.255 2001:db8::1 fbff::1 fe00::1 fe7f::1 ::1:0:0 ::2:0:0:1 \
                 ::fffe:7f00:1 1::7f00:1 64:ff9a::7f00:1 ::ffff:8.8.8.8 64:ff9b::8.8.8.8 \
                 2002:808:808::7f00:1 ::8.8.8.8",
            ),
            (
                Reach::Private,
                "10.0.0.0 10.255.255.255 100.64.0.0 100.127.255.255 172.16.0.0 172.31.255.255 \
                 192.168.0.0 192.168.255.255 fc00::1 fdff::1 fec0::1 feff::1 ::ffff:10.0.0.1 \
                 64:ff9b::10.0.0.1 2002:a00:1:: ::10.0.0.1",
            ),
            (
                Reach::Host,
                "127.0.0.0 127.255.255.255 ::1 ::ffff:127.0.0.1 64:ff9b::7f00:1 64:ff9b:1::7f00:1 \
                 2002:7f00:1:: ::127.0.0.1",
            ),
            (
                Reach::Link,
                "169.254.0.0 169.254.255.255 fe80::1 febf::1 ::ffff:169.254.169.254 \
                 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1 ::169.254.169.254",
            ),
            (
                Reach::Nobody,
                "0.0.0.0 0.255.255.255 224.0.0.0 240.0.0.1 255.255.255.255 :: ::2 ::ffff:0:0 \
                 ::ffff:0:1 64:ff9b::1 2002::1 ff00:: ff02::1 ffff::1",
            ),
        ] {
            for address in addresses.split_whitespace() {
                assert_eq!(Reach::of(address.parse().unwrap()), reach, "{address}");
            }
        }
    }

    #[test]
    fn an_address_of_ipv4_is_found_in_its_forms_of_ipv6_and_in_no_other() {
        for (address, plain) in [
            ("::ffff:1.2.3.4", "1.2.3.4"),
            ("64:ff9b::1.2.3.4", "1.2.3.4"),
            ("64:ff9b:1::1.2.3.4", "1.2.3.4"),
            ("2002:102:304:5::6", "1.2.3.4"),
            ("::1.2.3.4", "1.2.3.4"),
            ("::2", "0.0.0.2"),
            ("1.2.3.4", "1.2.3.4"),
            ("::", "::"),
            ("::1", "::1"),
            ("::ffff:0:1.2.3.4", "::ffff:0:102:304"),
            ("2001:db8::1.2.3.4", "2001:db8::102:304"),
        ] {
            let plain: IpAddr = plain.parse().unwrap();
            assert_eq!(plain_ip(address.parse().unwrap()), plain, "{address}");
        }
    }
}
