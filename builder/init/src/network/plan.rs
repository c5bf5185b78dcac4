//! What the machine's network is to be, as the image or the server says it.
//!
//! The builder has checked what is in the image; here everything is looked at again, for a plan may also come from the
//! server. What makes no sense is left out and told, and never stops the boot.

use std::net::IpAddr;

use serde::Deserialize;

use super::interface::Card;
use super::route::parse_cidr;
use crate::modules::matches;

/// One interface, or all those that fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(super) kind: Kind,
    /// Name of what is made.
    pub(super) name: String,
    pub(super) settings: Settings,
}

/// Where an interface comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// The machine has it.
    Match(Match),
    Vlan(Vlan),
    Bond(Bond),
    Bridge(Vec<Match>),
}

/// Which cards are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(super) struct Match {
    /// The one over which the machine booted.
    pub(super) boot: bool,
    /// Pattern of a name.
    pub(super) name: Option<String>,
    pub(super) mac: Option<String>,
    /// Pattern of a driver's name.
    pub(super) driver: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Vlan {
    pub(super) id: u16,
    /// Name of the interface that carries it.
    pub(super) on: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Bond {
    pub(super) mode: BondMode,
    /// Milliseconds between two looks whether a link is there.
    pub(super) miimon: u32,
    pub(super) interfaces: Vec<Match>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum BondMode {
    BalanceRr,
    ActiveBackup,
    BalanceXor,
    Broadcast,
    #[serde(rename = "802.3ad")]
    Lacp,
    BalanceTlb,
    BalanceAlb,
}

/// What an interface gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    pub(super) dhcp4: bool,
    pub(super) dhcp6: Dhcp6,
    /// Whether routers are believed.
    pub(super) ra: bool,
    pub(super) addresses: Vec<(IpAddr, u8)>,
    /// Where to, and over which router.
    pub(super) routes: Vec<((IpAddr, u8), Option<IpAddr>)>,
    pub(super) dns: Vec<IpAddr>,
    pub(super) search: Vec<String>,
    pub(super) mtu: Option<u32>,
    /// Whether the boot waits for it; without, only for the one over which it booted.
    pub(super) required: Option<bool>,
}

/// When a DHCPv6 server is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Dhcp6 {
    /// When a router says so.
    Auto,
    Always,
    Never,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            dhcp4: true,
            dhcp6: Dhcp6::Auto,
            ra: true,
            addresses: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: None,
            required: None,
        }
    }
}

/// One entry as it is written.
#[derive(Debug, Clone, Deserialize)]
#[serde(default)]
struct Written {
    name: String,
    r#match: Option<Match>,
    vlan: Option<Vlan>,
    bond: Option<Bond>,
    bridge: Option<Vec<Match>>,
    dhcp4: bool,
    dhcp6: Dhcp6,
    ra: bool,
    addresses: Vec<String>,
    gateway: Vec<String>,
    routes: Vec<WrittenRoute>,
    dns: Vec<String>,
    search: Vec<String>,
    mtu: Option<u32>,
    required: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
struct WrittenRoute {
    to: String,
    #[serde(default)]
    via: Option<String>,
}

impl Default for Written {
    fn default() -> Self {
        Self {
            name: String::new(),
            r#match: None,
            vlan: None,
            bond: None,
            bridge: None,
            dhcp4: true,
            dhcp6: Dhcp6::Auto,
            ra: true,
            addresses: Vec::new(),
            gateway: Vec::new(),
            routes: Vec::new(),
            dns: Vec::new(),
            search: Vec::new(),
            mtu: None,
            required: None,
        }
    }
}

/// Returns what is done where nothing is said: DHCP and routers on the interface of the boot.
pub(super) fn usual() -> Vec<Entry> {
    let kind = Kind::Match(Match { boot: true, ..Match::default() });
    vec![Entry { kind, name: String::new(), settings: Settings::default() }]
}

/// Reads a plan. What is wrong with it goes to `complain`.
pub(super) fn read(plan: &serde_json::Value, complain: &mut dyn FnMut(String)) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (number, value) in plan.as_array().into_iter().flatten().enumerate() {
        match Written::deserialize(value) {
            Ok(written) => match written.check(complain) {
                Some(entry) => entries.push(entry),
                None => complain(format!("interface {number} of the plan says not what it is")),
            },
            Err(error) => complain(format!("interface {number} of the plan: {error}")),
        }
    }
    entries
}

impl Written {
    fn check(self, complain: &mut dyn FnMut(String)) -> Option<Entry> {
        let kind = self
            .r#match
            .map(Kind::Match)
            .or_else(|| self.vlan.map(Kind::Vlan))
            .or_else(|| self.bond.map(Kind::Bond))
            .or_else(|| self.bridge.map(Kind::Bridge))?;
        if self.name.is_empty() && !matches!(kind, Kind::Match(_)) {
            return None;
        }
        let mut wrong =
            |text: &str| complain(format!("`{text}` of the network's plan makes no sense"));
        let ip = |text: &String| text.parse::<IpAddr>().ok();
        let mut settings = Settings {
            dhcp4: self.dhcp4,
            dhcp6: self.dhcp6,
            ra: self.ra,
            search: self.search,
            mtu: self.mtu,
            required: self.required,
            ..Settings::default()
        };
        for text in &self.addresses {
            match parse_cidr(text) {
                Some(address) => settings.addresses.push(address),
                None => wrong(text),
            }
        }
        for text in &self.dns {
            match ip(text) {
                Some(server) => settings.dns.push(server),
                None => wrong(text),
            }
        }
        for text in &self.gateway {
            match ip(text) {
                Some(router) => settings.routes.push((everywhere(router), Some(router))),
                None => wrong(text),
            }
        }
        for route in &self.routes {
            let via = route.via.as_ref().map(|via| ip(via).ok_or(via)).transpose();
            match (parse_cidr(&route.to), via) {
                (Some(to), Ok(via)) if via.is_none_or(|via| via.is_ipv4() == to.0.is_ipv4()) => {
                    settings.routes.push((to, via));
                }
                _ => wrong(&route.to),
            }
        }
        Some(Entry { kind, name: self.name, settings })
    }
}

fn everywhere(like: IpAddr) -> (IpAddr, u8) {
    match like {
        IpAddr::V4(_) => (IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 0),
        IpAddr::V6(_) => (IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED), 0),
    }
}

impl Match {
    /// Says whether a card is meant. Everything that is said must fit.
    pub(super) fn fits(&self, card: &Card, boot: Option<&str>) -> bool {
        let mac = self.mac.as_deref().map(super::interface::parse_mac);
        (!self.boot || boot == Some(card.name.as_str()))
            && self.name.as_ref().is_none_or(|name| matches(name, &card.name))
            && mac.is_none_or(|mac| mac == Some(card.mac))
            && self.driver.as_ref().is_none_or(|driver| matches(driver, &card.driver))
            && (self.boot || self.name.is_some() || self.mac.is_some() || self.driver.is_some())
    }
}

impl Entry {
    /// Returns the ports of a bond or bridge.
    pub(super) fn ports(&self) -> &[Match] {
        match &self.kind {
            Kind::Bond(bond) => &bond.interfaces,
            Kind::Bridge(ports) => ports,
            Kind::Match(_) | Kind::Vlan(_) => &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn card(name: &str, mac: u8, driver: &str) -> Card {
        Card { name: name.to_owned(), mac: [2, 0, 0, 0, 0, mac], driver: driver.to_owned() }
    }

    #[test]
    fn a_plan_is_read_and_what_is_wrong_in_it_is_told_and_left_out() {
        let mut wrong = Vec::new();
        let plan = json!([
            {"match": {"boot": true}, "mtu": 9000},
            {"name": "web", "vlan": {"id": 20, "on": "eth1"}, "dhcp4": false, "ra": false,
             "addresses": ["10.0.0.5/24", "10.0.0.300/24", "2001:db8::5/64"], "gateway": ["10.0.0.1"],
             "routes": [{"to": "10.2.0.0/16", "via": "10.0.0.2"}, {"to": "10.3.0.0/16", "via": "::1"}]},
            {"name": "bond0", "bond": {"mode": "802.3ad", "miimon": 100, "interfaces": [{"driver": "ixgbe"}]}},
            {"name": "none"},
            {"vlan": {"id": 1, "on": "eth0"}},
            {"match": 7},
        ]);
        let entries = read(&plan, &mut |text| wrong.push(text));
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].settings, Settings { mtu: Some(9000), ..Settings::default() });
        assert_eq!(entries[1].settings.addresses.len(), 2);
        assert_eq!(entries[1].settings.routes.len(), 2);
        assert_eq!(entries[2].ports().len(), 1);
        assert_eq!(wrong.len(), 5, "{wrong:?}");
        assert_eq!(wrong[0], "`10.0.0.300/24` of the network's plan makes no sense");
        assert!(wrong[4].starts_with("interface 5 of the plan: "), "{wrong:?}");
    }

    #[test]
    fn a_card_is_meant_when_all_that_is_said_fits() {
        let eth0 = card("eth0", 1, "virtio_net");
        let says = |json| Match::deserialize(&json).unwrap().fits(&eth0, Some("eth0"));
        assert!(says(json!({"boot": true})));
        assert!(says(json!({"name": "eth*", "driver": "virtio*"})));
        assert!(says(json!({"mac": "02-00-00-00-00-01"})));
        assert!(!says(json!({"name": "eth1"})));
        assert!(!says(json!({"boot": true, "driver": "e1000"})));
        assert!(!says(json!({"mac": "nonsense"})));
        assert!(!says(json!({})), "nothing is not everything");
        let other = card("eth1", 2, "virtio_net");
        assert!(!Match { boot: true, ..Match::default() }.fits(&other, Some("eth0")));
    }
}
