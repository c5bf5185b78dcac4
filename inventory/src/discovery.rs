//! Machines that nobody has added: what is known of them, and what rules and lists make of them.
//!
//! ```text
//!  packets ─▶ Glimpse ─▶ Discovered (one entry for one box) ─▶ settle(entry, rules, expected, known)
//!                                                                ├─▶ a machine
//!                                                                ├─▶ ignored, or held for a person
//!                                                                └─▶ it waits
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use kiln_types::facts::Facts;
use kiln_types::{Arch, Mac};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    Asker, BootId, Duid, Firmware, Identifier, NewMachine, Sighting, Traits, other_order,
    telling_text, telling_uuid,
};

pub use expected::Expected;
pub use rule::{Action, DiscoveryRule};
pub use settle::{Becomes, Settled, World, settle};
pub use template::{NameTemplate, ParseTemplateError};

mod expected;
mod rule;
mod settle;
mod template;
#[cfg(test)]
mod tests;

/// The most interfaces of one box. More would be a UUID that many boxes share.
pub(crate) const MOST_MACS: usize = 16;

/// Where something was seen, as far as the packet says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The subnet that it is in.
    pub subnet: Option<String>,
    /// The relay that its packets came by.
    pub relay: Option<IpAddr>,
    /// The port of the switch.
    pub circuit_id: Option<Identifier>,
    /// The address that it got or has.
    pub address: Option<IpAddr>,
    /// What it calls itself.
    pub hostname: Option<String>,
    /// What its firmware or loader says to be.
    pub vendor_class: Option<String>,
    /// What it calls itself by DHCPv6.
    pub duid: Option<Duid>,
}

/// A machine that nobody has added, seen once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glimpse {
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// How often since the last time that it was told.
    pub times: u64,
    /// Who asked.
    pub sighting: Sighting,
    /// Where.
    pub place: Place,
}

/// What becomes of an entry.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum DiscoveryState {
    /// Somebody has to say.
    #[default]
    Waiting,
    /// A rule leaves it to a person.
    Held,
    /// It is none of ours: it gets no answer when it wants to boot.
    Ignored,
}

/// What a machine said of itself while it ran the discovery image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SeenFacts {
    /// The boot in which it did.
    #[schema(value_type = i64)]
    pub boot: BootId,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What it said.
    pub facts: Facts,
}

/// One box that nobody has added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Discovered {
    /// Its network interfaces, as far as they were seen.
    pub macs: BTreeSet<Mac>,
    /// What becomes of it.
    #[serde(default)]
    pub state: DiscoveryState,
    /// The rule that said so; without one it was a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Why it was not approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Kind of firmware.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub firmware: Option<Firmware>,
    /// SMBIOS UUID, unless it is void or shared by a product line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Serial number, unless nobody has filled it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Asset tag, unless nobody has filled it in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_tag: Option<String>,
    /// What it calls itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The subnet that it is in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet: Option<String>,
    /// The relay that its packets came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub relay: Option<IpAddr>,
    /// The port of the switch that it is at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_id: Option<Identifier>,
    /// The address that it had last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// What its firmware or loader said to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor_class: Option<String>,
    /// What it called itself by DHCPv6.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub duid: Option<Duid>,
    /// When it was seen first, in milliseconds since 1970.
    pub first: i64,
    /// When it was seen last.
    pub last: i64,
    /// How often.
    pub times: u64,
    /// What it said of itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<SeenFacts>,
}

impl Discovered {
    /// Makes an entry of what was seen first.
    pub fn new(seen: &Glimpse) -> Self {
        let mut entry = Self { first: seen.at, ..Self::default() };
        entry.take(seen);
        entry
    }

    /// Takes in what was seen, and returns whether that tells more of what the box is.
    pub fn take(&mut self, seen: &Glimpse) -> bool {
        let Glimpse { at, times, sighting, place } = seen;
        let before = self.known_by();
        self.macs.insert(sighting.mac);
        self.last = self.last.max(*at);
        self.times = self.times.saturating_add(*times);
        let told = sighting.uuid.as_deref().and_then(telling_uuid);
        self.uuid = self.uuid.take().or(told);
        // What the firmware itself says counts more than what iPXE makes of it.
        let firmware_says = sighting.asker == Asker::Firmware;
        if firmware_says || self.firmware.is_none() {
            self.firmware = sighting.firmware.or(self.firmware);
        }
        fn newer<T: Clone>(known: &mut Option<T>, told: &Option<T>) {
            if told.is_some() {
                known.clone_from(told);
            }
        }
        newer(&mut self.hostname, &place.hostname);
        newer(&mut self.subnet, &place.subnet);
        newer(&mut self.relay, &place.relay);
        newer(&mut self.circuit_id, &place.circuit_id);
        newer(&mut self.address, &place.address);
        // Loader and system call themselves something else in each boot, and a rule is to see one machine.
        if firmware_says || self.vendor_class.is_none() {
            newer(&mut self.vendor_class, &place.vendor_class);
        }
        if firmware_says || self.duid.is_none() {
            newer(&mut self.duid, &place.duid);
        }
        self.known_by() != before
    }

    /// Takes in what it said of itself, and returns whether that tells more than was known.
    pub fn describe(&mut self, told: SeenFacts) -> bool {
        let system = &told.facts.system;
        let before = self.known_by();
        self.uuid = telling_uuid(&system.uuid).or_else(|| self.uuid.take());
        self.serial = telling_text(&system.serial).or_else(|| self.serial.take());
        self.asset_tag = telling_text(&system.asset_tag).or_else(|| self.asset_tag.take());
        let other = self.facts.as_ref().is_none_or(|known| known.facts != told.facts);
        self.facts = Some(told);
        other || self.known_by() != before
    }

    /// What rules and lists go by, but for facts and addresses. A change of it is worth a second look.
    #[allow(clippy::type_complexity, reason = "compared with itself only")]
    fn known_by(&self) -> impl PartialEq + use<> {
        (
            (self.macs.clone(), self.firmware, self.uuid.clone(), self.serial.clone()),
            (self.asset_tag.clone(), self.subnet.clone(), self.circuit_id.clone()),
            (self.vendor_class.clone(), self.duid.clone()),
        )
    }

    /// Takes in another entry of the same box.
    pub fn join(&mut self, other: Self) {
        self.macs.extend(other.macs);
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
        self.times = self.times.saturating_add(other.times);
        self.uuid = self.uuid.take().or(other.uuid);
        self.serial = self.serial.take().or(other.serial);
        self.asset_tag = self.asset_tag.take().or(other.asset_tag);
        self.facts = self.facts.take().or(other.facts);
        self.hostname = self.hostname.take().or(other.hostname);
        self.vendor_class = self.vendor_class.take().or(other.vendor_class);
        self.duid = self.duid.take().or(other.duid);
        if other.state == DiscoveryState::Ignored && other.rule.is_none() {
            (self.state, self.rule) = (other.state, None);
        }
    }

    /// Returns whether a person has said what becomes of it, so that it stays whatever else comes.
    pub fn is_marked(&self) -> bool {
        self.state == DiscoveryState::Ignored && self.rule.is_none()
    }

    /// Returns the architecture, where the firmware tells it.
    pub fn arch(&self) -> Option<Arch> {
        self.firmware.and_then(Firmware::arch)
    }

    /// Returns by what it can be recognised.
    pub fn traits(&self) -> Traits {
        let mut spec = NewMachine::new("", self.macs.iter().copied());
        spec.uuid.clone_from(&self.uuid);
        spec.serial.clone_from(&self.serial);
        spec.asset_tag.clone_from(&self.asset_tag);
        let traits = Traits::known(&spec);
        match &self.facts {
            Some(told) => traits.with_facts(&told.facts),
            None => traits,
        }
    }

    /// Returns whether another entry has its UUID or serial number, so that one of the two is not what it says.
    pub fn is_twin_of(&self, other: &Self) -> bool {
        let same = |a: &Option<String>, b: &Option<String>| a.is_some() && a == b;
        let turned = |a: &Option<String>, b: &Option<String>| {
            let turned = a.as_deref().and_then(other_order);
            turned.is_some() && turned == *b
        };
        same(&self.uuid, &other.uuid)
            || turned(&self.uuid, &other.uuid)
            || same(&self.serial, &other.serial)
    }

    /// Returns what a rule can ask for, but for facts: see [`is_attribute`].
    pub fn attributes(&self, vendor: &str) -> BTreeMap<String, String> {
        let mac = self.macs.first().map(ToString::to_string);
        let oui = mac.as_ref().and_then(|mac| mac.get(..8).map(str::to_owned));
        let text = |value: Option<&dyn ToString>| value.map(ToString::to_string);
        let all = [
            ("mac", mac.clone()),
            ("oui", oui),
            ("vendor", Some(vendor.to_owned()).filter(|vendor| !vendor.is_empty())),
            ("arch", self.arch().map(|arch| arch.to_string())),
            ("firmware", self.firmware.map(|firmware| firmware.to_string())),
            ("uuid", self.uuid.clone()),
            ("serial", self.serial.clone()),
            ("asset-tag", self.asset_tag.clone()),
            ("hostname", self.hostname.clone()),
            ("subnet", self.subnet.clone()),
            ("relay", text(self.relay.as_ref().map(|relay| relay as _))),
            ("circuit-id", text(self.circuit_id.as_ref().map(|id| id as _))),
            ("vendor-class", self.vendor_class.clone()),
            ("duid", text(self.duid.as_ref().map(|duid| duid as _))),
        ];
        all.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))).collect()
    }

    /// Returns what the facts say at a path such as `system.vendor` or `disks.0.model`; of a list, how long it is.
    pub fn fact(&self, path: &str) -> Option<String> {
        let facts = serde_json::to_value(&self.facts.as_ref()?.facts).ok()?;
        let found = path.split('.').try_fold(&facts, |value, part| match value {
            Value::Array(list) => list.get(part.parse::<usize>().ok()?),
            value => value.get(part),
        });
        Some(match found? {
            Value::Null => return None,
            Value::String(text) => text.clone(),
            Value::Array(list) => list.len().to_string(),
            other => other.to_string(),
        })
    }
}

/// The names of what rules can ask for, beside `facts.PATH`.
pub const ATTRIBUTES: [&str; 14] = [
    "mac",
    "oui",
    "vendor",
    "arch",
    "firmware",
    "uuid",
    "serial",
    "asset-tag",
    "hostname",
    "subnet",
    "relay",
    "circuit-id",
    "vendor-class",
    "duid",
];

/// Returns whether a rule can ask for something of this name.
pub fn is_attribute(name: &str) -> bool {
    ATTRIBUTES.contains(&name)
        || name
            .strip_prefix("facts.")
            .is_some_and(|path| path.split('.').all(|key| !key.is_empty()))
}
