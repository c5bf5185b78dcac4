//! The network of the machine, as kiln-init sets it up.

mod plan;
mod text;
mod words;

use kiln_types::Mac;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::plan::{modules, plan};
pub use self::text::{Cidr, DomainName, HostAddress, LinkName};
use super::place::Placed;

/// One network interface, or all those that fit: exactly one of `match`, `vlan`, `bond` and `bridge`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct LinkSpec {
    /// Which network cards it is about: `boot` for the one over which the machine booted, a pattern of names, or a map
    /// with `name`, `mac` and `driver`, of which all must fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#match: Option<LinkMatch>,
    /// Name of the VLAN, bond or bridge that is made; cards keep the kernel's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<Placed<LinkName>>,
    /// A network within the packets of another interface.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<VlanSpec>,
    /// Several cards as one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bond: Option<BondSpec>,
    /// A switch of several cards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bridge: Option<BridgeSpec>,
    /// Whether a DHCP server is asked for an IPv4 address; `true`, unless `addresses` has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp4: Option<bool>,
    /// Whether a DHCPv6 server is asked: `true`, `false`, or `auto` for when a router says so; `auto`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp6: Option<Dhcp6>,
    /// Whether IPv6 routers are believed; `true`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ra: Option<bool>,
    /// Addresses with the length of their network's prefix, as `10.0.0.5/24`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<Placed<Cidr>>,
    /// Router for everything; one, or one of IPv4 and one of IPv6.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<Placed<Gateways>>,
    /// Ways to other networks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Placed<RouteSpec>>,
    /// Name servers, besides those that servers and routers tell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dns: Vec<HostAddress>,
    /// Domains in which names are looked for.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub search: Vec<DomainName>,
    /// Length of the largest packet; what the DHCP server says, or the card's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<Placed<u32>>,
    /// Whether the boot waits for its address, for a minute at most; only for the interface of the boot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
}

/// A network within the packets of another interface (IEEE 802.1Q).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VlanSpec {
    /// Its number, 1 to 4094.
    pub id: Placed<u16>,
    /// Name of the interface that carries it, or `boot`.
    pub on: Placed<LinkName>,
}

/// Several cards as one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BondSpec {
    /// How packets are spread over them; `active-backup`.
    #[serde(default)]
    pub mode: BondMode,
    /// The cards, as in `match`.
    pub interfaces: Vec<LinkMatch>,
    /// Milliseconds between two looks whether a cable is there; 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub miimon: Option<u32>,
}

/// A switch of several cards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BridgeSpec {
    /// The cards, as in `match`.
    pub interfaces: Vec<LinkMatch>,
}

/// How packets are spread over the cards of a bond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BondMode {
    /// One after the other.
    BalanceRr,
    /// Over one, and over another when its cable is gone.
    #[default]
    ActiveBackup,
    /// By address.
    BalanceXor,
    /// Over all.
    Broadcast,
    /// As agreed with the switch (LACP).
    #[serde(rename = "802.3ad")]
    Lacp,
    /// By load, outwards.
    BalanceTlb,
    /// By load, both ways.
    BalanceAlb,
}

/// A way to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RouteSpec {
    /// The network, as `10.0.0.0/8`.
    pub to: Cidr,
    /// The router; without one the network is on the link itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub via: Option<HostAddress>,
}

/// Which network cards are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkMatch {
    /// The one over which the machine booted.
    Boot,
    /// Those that fit all that is said.
    Cards(CardMatch),
}

/// What a network card is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CardMatch {
    /// Pattern of the kernel's name, such as `eth*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Hardware address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub mac: Option<Mac>,
    /// Pattern of the driver's name, such as `virtio*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub driver: Option<String>,
}

/// When a DHCPv6 server is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dhcp6 {
    /// When a router says so.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Routers for everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gateways(pub Vec<HostAddress>);
