use std::net::Ipv6Addr;

use kiln_types::Mac;

/// How long what is not a prefix is good: three times the longest pause between two advertisements (RFC 4861 §6.2.1).
const LIFETIME: u16 = 1800;
const HOP_LIMIT: u8 = 64;

const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;

/// What is announced on one interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Our hardware address there.
    pub mac: Option<Mac>,
    /// The flag M: addresses come by DHCPv6.
    pub managed: bool,
    /// The flag O: the rest comes by DHCPv6.
    pub other: bool,
    /// Whether we pass on what goes elsewhere.
    pub default_router: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// Networks of the link.
    pub prefixes: Vec<Prefix>,
    /// Name servers (RFC 8106).
    pub dns: Vec<Ipv6Addr>,
    /// Domains to look names up in (RFC 8106).
    pub domains: Vec<String>,
}

/// One network of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prefix {
    /// Its first address.
    pub network: Ipv6Addr,
    /// Length of its prefix.
    pub length: u8,
    /// The flag A: machines may make addresses of it themselves.
    pub autonomous: bool,
    /// Seconds for which it is good.
    pub lifetime: u32,
}

impl Announcement {
    /// Returns the message; the kernel adds its checksum. A last one takes the router away that the others have told.
    pub(super) fn encode(&self, last: bool) -> Vec<u8> {
        let flags = u8::from(self.managed) << 7 | u8::from(self.other) << 6;
        let lifetime = if self.default_router && !last { LIFETIME } else { 0 };
        let mut bytes = vec![ADVERTISEMENT, 0, 0, 0, HOP_LIMIT, flags];
        bytes.extend(lifetime.to_be_bytes());
        bytes.extend([0; 8]);
        if let Some(mac) = self.mac {
            bytes.extend([1, 1]);
            bytes.extend(mac.octets());
        }
        if let Some(mtu) = self.mtu {
            bytes.extend([5, 1, 0, 0]);
            bytes.extend(mtu.to_be_bytes());
        }
        for prefix in &self.prefixes {
            bytes.extend([3, 4, prefix.length, 0x80 | u8::from(prefix.autonomous) << 6]);
            bytes.extend(prefix.lifetime.to_be_bytes());
            bytes.extend(prefix.lifetime.to_be_bytes());
            bytes.extend([0; 4]);
            bytes.extend(prefix.network.octets());
        }
        let servers: Vec<u8> = self.dns.iter().flat_map(|server| server.octets()).collect();
        option(&mut bytes, 25, &servers);
        let mut names = Vec::new();
        for domain in &self.domains {
            for label in domain.split('.') {
                names.push(u8::try_from(label.len()).unwrap_or(0));
                names.extend(label.bytes());
            }
            names.push(0);
        }
        option(&mut bytes, 31, &names);
        bytes
    }
}

/// Adds an option that has a lifetime before its value, and zeros behind it up to eight bytes.
fn option(bytes: &mut Vec<u8>, code: u8, value: &[u8]) {
    let units = 1 + value.len().div_ceil(8);
    let Some(units) = u8::try_from(units).ok().filter(|_| !value.is_empty()) else { return };
    bytes.extend([code, units, 0, 0]);
    bytes.extend(u32::from(LIFETIME).to_be_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len() + value.len().next_multiple_of(8) - value.len(), 0);
}

/// Returns whether a message is a solicitation from the link (RFC 4861 §6.1.1). No router passes on what comes from
/// such a source, so that it stands for the hop limit too.
pub(super) fn is_solicitation(message: &[u8], source: Ipv6Addr) -> bool {
    let nobody = source.is_unspecified();
    let [SOLICITATION, 0, _, _, _, _, _, _, options @ ..] = message else { return false };
    if !nobody && !source.is_unicast_link_local() {
        return false;
    }
    let mut rest = options;
    while let [code, units, ..] = rest {
        // Who has no address yet does not say where it is.
        let refused = *units == 0 || (nobody && *code == 1);
        match rest.get(usize::from(*units) * 8..).filter(|_| !refused) {
            Some(after) => rest = after,
            None => return false,
        }
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement() -> Announcement {
        Announcement {
            mac: Some(Mac::new([2, 0, 0, 0, 0, 9])),
            managed: true,
            other: true,
            default_router: false,
            mtu: Some(1400),
            prefixes: vec![Prefix {
                network: "fd77::".parse().unwrap(),
                length: 64,
                autonomous: false,
                lifetime: 3600,
            }],
            dns: vec!["fd77::1".parse().unwrap()],
            domains: vec!["lab.example".to_owned()],
        }
    }

    #[test]
    fn an_advertisement_says_where_addresses_come_from_and_is_no_default_router() {
        let bytes = announcement().encode(false);
        assert_eq!(bytes[..16], [134, 0, 0, 0, 64, 0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..24], [1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(bytes[24..32], [5, 1, 0, 0, 0, 0, 5, 120]);
        assert_eq!(bytes[32..48], [3, 4, 64, 0x80, 0, 0, 14, 16, 0, 0, 14, 16, 0, 0, 0, 0]);
        assert_eq!(bytes[48..50], [0xfd, 0x77]);
        assert_eq!(bytes[64..72], [25, 3, 0, 0, 0, 0, 7, 8]);
        assert_eq!(bytes[88..96], [31, 3, 0, 0, 0, 0, 7, 8]);
        assert_eq!(&bytes[96..], b"\x03lab\x07example\0\0\0\0");
    }

    #[test]
    fn who_passes_packets_on_says_so_until_it_ends() {
        let router = Announcement { default_router: true, ..announcement() };
        assert_eq!(router.encode(false)[6..8], [7, 8]);
        assert_eq!(router.encode(true)[6..8], [0, 0]);
        let mut open = announcement();
        (open.managed, open.prefixes[0].autonomous) = (false, true);
        let bytes = open.encode(false);
        assert_eq!((bytes[5], bytes[35]), (0x40, 0xc0));
    }

    #[test]
    fn what_is_not_said_has_no_option() {
        let bare = Announcement {
            mac: None,
            mtu: None,
            prefixes: vec![],
            dns: vec![],
            domains: vec![],
            ..announcement()
        };
        assert_eq!(bare.encode(false).len(), 16);
    }

    #[test]
    fn only_solicitations_from_the_link_are_answered() {
        let local = "fe80::1".parse().unwrap();
        let bare = [133, 0, 0, 0, 0, 0, 0, 0];
        let with = [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 9];
        assert!(is_solicitation(&bare, local) && is_solicitation(&with, local));
        assert!(is_solicitation(&bare, Ipv6Addr::UNSPECIFIED));
        assert!(!is_solicitation(&with, Ipv6Addr::UNSPECIFIED));
        assert!(!is_solicitation(&with, "fd77::5".parse().unwrap()));
        for length in (0..8).chain(9..16) {
            assert!(!is_solicitation(&with[..length], local), "{length}");
        }
        assert!(!is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], local));
        assert!(!is_solicitation(&[133, 0, 0, 0, 0, 0, 0, 0, 1, 255], local));
        assert!(!is_solicitation(&[134, 0, 0, 0, 0, 0, 0, 0], local));
        assert!(!is_solicitation(&[133, 1, 0, 0, 0, 0, 0, 0], local));
    }

    #[test]
    fn fuzzed_messages_are_solicitations_or_not() {
        let whole = [133, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 0, 0, 0, 0, 1];
        kiln_fuzz::check("router-solicitation", &[&whole, &whole[..8]], |bytes| {
            for source in ["::", "fe80::1", "fd00::1"] {
                is_solicitation(bytes, source.parse().unwrap());
            }
        });
    }
}
