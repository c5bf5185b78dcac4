use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_types::{Arch, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use crate::{
    BootFrom, Flag, Identifier, Labels, LoaderChoice, OptionValue, Setting, StateDisk, numbered,
};

number! {
    /// Our own name for one physical box. It stays when network cards or the name of the machine change.
    MachineId
}

impl MachineId {
    /// Returns what stands for a machine that nobody has added while it runs the discovery image. No machine of the
    /// inventory has a number below 1.
    pub fn of_unknown(mac: Mac) -> Self {
        let number =
            mac.octets().iter().fold(0_i64, |number, octet| number << 8 | i64::from(*octet));
        Self(-number - 1)
    }

    /// Returns whether it stands for a machine that nobody has added.
    pub const fn is_unknown(self) -> bool {
        self.0 < 0
    }
}

/// One physical box, as the inventory knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Machine {
    /// Our own id.
    pub id: MachineId,
    /// 1 at first, and one more with every change of it.
    #[serde(default)]
    pub revision: i64,
    /// What it is to be, which is all that an operator says.
    #[serde(flatten)]
    pub spec: NewMachine,
}

/// A machine as an operator describes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMachine {
    /// Unique name, also its host name: a DNS label.
    pub name: String,
    /// Hardware addresses of its network interfaces. At least one.
    pub macs: BTreeSet<Mac>,
    /// SMBIOS UUID in the order that people read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// Serial number, as its firmware tells it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Number that its owner gave it, as its firmware tells it.
    #[serde(default, rename = "asset-tag", skip_serializing_if = "Option::is_none")]
    pub asset_tag: Option<String>,
    /// States that an operator put it in.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub flags: BTreeSet<Flag>,
    /// Architecture, when the operator wants a machine of any other kind refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Image it runs. Without one the machine is known but boots nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// Image it runs in maintenance.
    #[serde(default, rename = "maintenance-image", skip_serializing_if = "Option::is_none")]
    pub maintenance_image: Option<ImageRef>,
    /// Address reserved for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv4)]
    pub address: Option<Ipv4Addr>,
    /// Address of IPv6 reserved for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Ipv6)]
    pub address6: Option<Ipv6Addr>,
    /// What its system calls itself in DHCP (option 61), besides its interfaces: its address is reserved for that too.
    #[serde(default, rename = "client-id", skip_serializing_if = "Option::is_none")]
    pub client_id: Option<Identifier>,
    /// Port of the switch that it is at, as the relay tells it (option 82, sub-option 1): its address is reserved for
    /// whatever is plugged in there.
    #[serde(default, rename = "circuit-id", skip_serializing_if = "Option::is_none")]
    pub circuit_id: Option<Identifier>,
    /// DHCP options by number, instead of those of its subnet.
    #[serde(
        default,
        rename = "dhcp-options",
        deserialize_with = "numbered::read",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub dhcp_options: BTreeMap<u8, OptionValue>,
    /// Kernel arguments appended to those of the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// Disk on which a state partition may be made; without one nothing is ever written to its disks.
    #[serde(default, rename = "state-disk", skip_serializing_if = "Option::is_none")]
    pub state_disk: Option<StateDisk>,
    /// Which loader it gets, where its firmware can run that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loader: Option<LoaderChoice>,
    /// Where it boots from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootFrom>,
    /// What templates for this machine are filled with; what is under `secrets` is given to the machine itself only.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "is_empty")]
    #[schema(value_type = BTreeMap<String, String>)]
    pub labels: Labels,
    /// Settings that do not count where its groups say them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<Setting>,
}

impl NewMachine {
    /// Describes a machine by its name and its interfaces. It boots nothing yet.
    pub fn new(name: impl Into<String>, macs: impl IntoIterator<Item = Mac>) -> Self {
        Self {
            name: name.into(),
            macs: macs.into_iter().collect(),
            uuid: None,
            serial: None,
            asset_tag: None,
            flags: BTreeSet::new(),
            arch: None,
            image: None,
            maintenance_image: None,
            address: None,
            address6: None,
            client_id: None,
            circuit_id: None,
            dhcp_options: BTreeMap::new(),
            cmdline: String::new(),
            state_disk: None,
            loader: None,
            boot: None,
            metadata: serde_json::Map::new(),
            labels: Labels::new(),
            unset: BTreeSet::new(),
        }
    }
}

fn is_empty(labels: &Labels) -> bool {
    labels.is_empty()
}

/// A change that a lock forbids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Locked;

impl NewMachine {
    /// Returns whether an operator put it in this state.
    pub fn is(&self, flag: Flag) -> bool {
        self.flags.contains(&flag)
    }

    /// Looks whether it may become another. While it is locked, it may be unlocked, cordoned and put in maintenance, and
    /// nothing else; what is to be changed besides takes a second step.
    ///
    /// # Errors
    ///
    /// When it is locked and anything else differs.
    pub fn may_become(&self, other: &Self) -> Result<(), Locked> {
        if !self.is(Flag::Locked) {
            return Ok(());
        }
        let mut same = other.clone();
        same.flags.clone_from(&self.flags);
        let retired = self.is(Flag::Retired) == other.is(Flag::Retired);
        if same == *self && retired { Ok(()) } else { Err(Locked) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_machine_is_unlocked_before_anything_else_is_changed() {
        let mut locked = NewMachine::new("n1", [Mac::new([2, 0, 0, 0, 0, 1])]);
        locked.flags.insert(Flag::Locked);
        let with = |change: &dyn Fn(&mut NewMachine)| {
            let mut other = locked.clone();
            change(&mut other);
            locked.may_become(&other)
        };
        let switch = |m: &mut NewMachine, flag| {
            if !m.flags.remove(&flag) {
                m.flags.insert(flag);
            }
        };
        let rename = |m: &mut NewMachine| m.name.push('x');
        assert_eq!(with(&|_| {}), Ok(()));
        assert_eq!(with(&|m| switch(m, Flag::Locked)), Ok(()));
        assert_eq!(with(&|m| switch(m, Flag::Cordoned)), Ok(()));
        assert_eq!(with(&|m| switch(m, Flag::Maintenance)), Ok(()));
        assert_eq!(with(&|m| switch(m, Flag::Retired)), Err(Locked));
        assert_eq!(with(&rename), Err(Locked));
        assert_eq!(with(&|m| m.labels = [("a".into(), "b".into())].into()), Err(Locked));
        let both: [&dyn Fn(&mut NewMachine); 2] = [&rename, &|m| switch(m, Flag::Retired)];
        for second in both {
            let change = |m: &mut NewMachine| {
                switch(m, Flag::Locked);
                second(m);
            };
            assert_eq!(with(&change), Err(Locked), "one step after the other");
        }
        let mut open = locked.clone();
        open.flags.clear();
        let mut other = locked.clone();
        other.name.push('x');
        assert_eq!(open.may_become(&other), Ok(()));
    }
}
