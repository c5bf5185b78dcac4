use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kiln_types::{ImageRef, Mac};
use serde::{Deserialize, Serialize};

use super::rule::{check_labels, check_name};
use super::{Discovered, MOST_MACS};
use crate::{Document, Identifier, NewMachine, other_order, telling_text, telling_uuid};

/// A machine that is to come: whatever appears with what is said here becomes it.
///
/// One of which only the name and a list are known takes the place of whatever a rule with that list approves next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Expected {
    /// Name of the machine.
    pub name: String,
    /// Its SMBIOS UUID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Its serial number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Its asset tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_tag: Option<String>,
    /// The port of the switch that it will be at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub circuit_id: Option<Identifier>,
    /// The list that it is in the order of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub list: Option<String>,
    /// Image that it is to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// Address reserved for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Its labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl Expected {
    /// Returns whether it is known by anything but its place in a list.
    pub const fn is_known(&self) -> bool {
        self.uuid.is_some()
            || self.serial.is_some()
            || self.asset_tag.is_some()
            || self.circuit_id.is_some()
    }

    /// Returns whether an entry is this machine: one of what it is known by is the same, and nothing else contradicts.
    pub fn is(&self, entry: &Discovered) -> bool {
        let uuid = |a: &str, b: &str| {
            let a = telling_uuid(a);
            a.is_some()
                && (a == telling_uuid(b) || a.as_deref().and_then(other_order) == telling_uuid(b))
        };
        let text =
            |a: &str, b: &str| telling_text(a).is_some_and(|a| a.eq_ignore_ascii_case(b.trim()));
        let both = |a: &Option<String>, b: &Option<String>, same: &dyn Fn(&str, &str) -> bool| {
            a.as_deref().zip(b.as_deref()).map(|(a, b)| same(a, b))
        };
        let port = self.circuit_id.as_ref().zip(entry.circuit_id.as_ref());
        let clues = [
            both(&self.uuid, &entry.uuid, &uuid),
            both(&self.serial, &entry.serial, &text),
            both(&self.asset_tag, &entry.asset_tag, &text),
            port.map(|(a, b)| a.bytes() == b.bytes()),
        ];
        clues.contains(&Some(true)) && !clues.contains(&Some(false))
    }

    /// Returns the machine that an entry becomes.
    pub(super) fn machine(&self, entry: &Discovered) -> NewMachine {
        let mut machine = describe(&self.name, entry);
        let own = |own: &Option<String>, seen: Option<String>| own.clone().or(seen);
        machine.uuid = own(&self.uuid, machine.uuid);
        machine.serial = own(&self.serial, machine.serial);
        machine.asset_tag = own(&self.asset_tag, machine.asset_tag);
        machine.circuit_id.clone_from(&self.circuit_id);
        machine.image.clone_from(&self.image);
        machine.address = self.address;
        machine.labels = self.labels.clone().into();
        machine
    }
}

/// Returns a machine of what is known of an entry. It boots nothing yet, and may write to no disk.
pub(super) fn describe(name: &str, entry: &Discovered) -> NewMachine {
    let macs: Vec<Mac> = entry.macs.iter().copied().take(MOST_MACS).collect();
    let mut machine = NewMachine::new(name, macs);
    machine.uuid.clone_from(&entry.uuid);
    machine.serial.clone_from(&entry.serial);
    machine.asset_tag.clone_from(&entry.asset_tag);
    machine
}

impl Document for Expected {
    const NOUN: &'static str = "expected";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let ends = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
        if !ends || name.len() > 63 || !name.bytes().all(|b| plain(b) || b == b'-') {
            let shown: String = name.escape_debug().take(80).collect();
            return Err(format!(
                "`{shown}` cannot be the name of a machine; use at most 63 lower-case letters, digits and `-`, with a \
                 letter or digit at both ends"
            ));
        }
        if !self.is_known() && self.list.is_none() {
            return Err(format!(
                "nothing says which machine `{name}` is; give its uuid, serial, asset-tag or circuit-id, or the list that it \
                 is in"
            ));
        }
        if let Some(uuid) = self.uuid.as_deref().filter(|uuid| telling_uuid(uuid).is_none()) {
            let shown: String = uuid.escape_debug().take(60).collect();
            return Err(format!(
                "`{shown}` is no UUID that names one machine; leave out that of `{name}`"
            ));
        }
        for (what, text) in [("serial number", &self.serial), ("asset tag", &self.asset_tag)] {
            if let Some(text) = text.as_deref().filter(|text| telling_text(text).is_none()) {
                let shown: String = text.escape_debug().take(60).collect();
                return Err(format!(
                    "`{shown}` is no {what} that names one machine; leave out that of `{name}`"
                ));
            }
        }
        if let Some(list) = &self.list {
            check_name("list", list)?;
        }
        check_labels(&format!("expected machine `{name}`"), &self.labels)
    }
}
