//! What clients of a subnet are told and how they are treated, besides addresses.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use kiln_inventory::OptionValue;

/// Rules of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Whether we know every address of the network, so that who claims another one is told no.
    pub authoritative: bool,
    /// Whether we ask by ARP if someone uses an address before it is offered for the first time.
    pub probe: bool,
    /// Shortest and longest time that a client may ask for. Without them everyone gets the lease time of the subnet.
    pub min_lease: Option<Duration>,
    /// The longest one.
    pub max_lease: Option<Duration>,
    /// Name of the wire that subnets behind one relay share.
    pub shared: Option<String>,
    /// Time servers.
    pub ntp: Vec<Ipv4Addr>,
    /// Domains in which names are looked for.
    pub search: Vec<String>,
    /// Routes besides the default one.
    pub routes: Vec<Route>,
    /// Longest packet of the network.
    pub mtu: Option<u16>,
    /// Who is told a host name.
    pub hostnames: Hostnames,
    /// Any other options.
    pub options: BTreeMap<u8, OptionValue>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            authoritative: true,
            probe: true,
            min_lease: None,
            max_lease: None,
            shared: None,
            ntp: Vec::new(),
            search: Vec::new(),
            routes: Vec::new(),
            mtu: None,
            hostnames: Hostnames::default(),
            options: BTreeMap::new(),
        }
    }
}

impl Rules {
    /// Returns how long an address is given for at most.
    pub(super) fn longest_lease(&self, usual: Duration) -> Duration {
        self.max_lease.unwrap_or(usual).max(usual)
    }

    /// Returns how long an address is given for.
    pub fn lease_time(&self, usual: Duration, asked: Option<u32>) -> Duration {
        let Some(asked) = asked else { return usual };
        let longest = self.longest_lease(usual);
        let shortest = self.min_lease.unwrap_or(usual).min(usual);
        Duration::from_secs(asked.into()).clamp(shortest, longest)
    }
}

/// Who is told a host name (option 12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hostnames {
    /// Machines of the inventory, their name.
    #[default]
    Machines,
    /// Everyone: others are named by their address, such as `ip-10-0-0-5`.
    All,
    /// No one.
    None,
}

/// One route that clients are told (RFC 3442).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Where it leads.
    pub network: Ipv4Addr,
    /// Length of its prefix; zero is the default route.
    pub prefix: u8,
    /// By which router.
    pub via: Ipv4Addr,
}

/// The text is no route.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no route; write it as 10.99.0.0/16 via 10.0.0.254, or default via 10.0.0.254")]
pub struct ParseRouteError(String);

impl FromStr for Route {
    type Err = ParseRouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (network, via) = text.split_once(" via ")?;
            let via = via.trim().parse().ok()?;
            let (network, prefix) = match network.trim() {
                "default" => (Ipv4Addr::UNSPECIFIED, 0),
                network => {
                    let (network, prefix) = network.split_once('/')?;
                    (network.parse().ok()?, prefix.parse().ok().filter(|prefix| *prefix <= 32)?)
                }
            };
            let host = u32::MAX.checked_shr(u32::from(prefix)).unwrap_or(0);
            (network.to_bits() & host == 0).then_some(Self { network, prefix, via })
        };
        parse().ok_or_else(|| ParseRouteError(text.chars().take(60).collect()))
    }
}

/// Returns option 121. Who reads it reads no option 3 (RFC 3442), so that the default route is in it too.
pub(super) fn routes(routes: &[Route], router: Option<&Ipv4Addr>) -> Vec<u8> {
    let default = router.filter(|_| routes.iter().all(|route| route.prefix != 0));
    let default = default.map(|via| Route { network: Ipv4Addr::UNSPECIFIED, prefix: 0, via: *via });
    let mut out = Vec::new();
    for route in routes.iter().copied().chain(default) {
        out.push(route.prefix);
        out.extend(route.network.octets().iter().take(usize::from(route.prefix).div_ceil(8)));
        out.extend(route.via.octets());
    }
    out
}

/// Returns option 119: names as they are in DNS, without the compression that RFC 3397 allows.
pub(super) fn search(domains: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    for domain in domains {
        for label in domain.split('.').filter(|label| !label.is_empty()) {
            let length = label.len().min(63);
            out.push(u8::try_from(length).unwrap_or(0));
            out.extend(label.bytes().take(length));
        }
        out.push(0);
    }
    out
}

/// Returns whether a text is a domain name.
pub fn is_domain(text: &str) -> bool {
    let plain = |label: &str| {
        let bytes = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        (1..=63).contains(&label.len()) && bytes
    };
    text.len() <= 253 && text.strip_suffix('.').unwrap_or(text).split('.').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_as_long_as_their_prefix_and_the_default_route_is_among_them() {
        let parse = |text: &str| text.parse::<Route>();
        let list = [parse("10.99.128.0/17 via 10.0.0.9").unwrap()];
        let expected = [17, 10, 99, 128, 10, 0, 0, 9, 0, 10, 0, 0, 1];
        assert_eq!(routes(&list, Some(&[10, 0, 0, 1].into())), expected);
        let list =
            [parse("default via 10.0.0.7").unwrap(), parse("8.8.8.8/32 via 10.0.0.9").unwrap()];
        let expected = [0, 10, 0, 0, 7, 32, 8, 8, 8, 8, 10, 0, 0, 9];
        assert_eq!(routes(&list, Some(&[10, 0, 0, 1].into())), expected);
        for bad in ["10.0.0.1/8 via 10.0.0.9", "10.0.0.0/33 via 10.0.0.9", "10.0.0.0/8", "x via y"]
        {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn domains_are_written_as_in_dns() {
        assert_eq!(search(&["a.bc".into(), "d.".into()]), [1, b'a', 2, b'b', b'c', 0, 1, b'd', 0]);
        assert!(
            is_domain("lab.example") && is_domain("x.") && !is_domain("a..b") && !is_domain("")
        );
    }

    #[test]
    fn clients_get_the_time_they_ask_for_within_bounds() {
        let hours = |n: u64| Duration::from_secs(n * 3600);
        let time = |rules: &Rules, asked| rules.lease_time(hours(1), asked);
        let fixed = Rules::default();
        assert_eq!((time(&fixed, Some(7)), time(&fixed, Some(u32::MAX))), (hours(1), hours(1)));
        let open =
            Rules { min_lease: Some(hours(1) / 2), max_lease: Some(hours(5)), ..Rules::default() };
        assert_eq!(time(&open, None), hours(1));
        assert_eq!((time(&open, Some(7)), time(&open, Some(u32::MAX))), (hours(1) / 2, hours(5)));
        assert_eq!(time(&open, Some(7200)), hours(2));
    }
}
