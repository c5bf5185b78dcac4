use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_types::{Arch, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use crate::{BootFrom, Identifier, LoaderChoice, OptionValue, StateDisk};

number! {
    /// Our own name for one physical box. It stays when network cards or the name of the machine change.
    MachineId
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
    /// Architecture, when the operator wants a machine of any other kind refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Image it runs. Without one the machine is known but boots nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
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
    #[serde(default, rename = "dhcp-options", skip_serializing_if = "BTreeMap::is_empty")]
    pub dhcp_options: BTreeMap<u8, OptionValue>,
    /// Kernel arguments appended to those of the image.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// Disk on which a state partition may be made; without one nothing is ever written to its disks.
    #[serde(default, rename = "state-disk", skip_serializing_if = "Option::is_none")]
    pub state_disk: Option<StateDisk>,
    /// Which loader it gets, where its firmware can run that.
    #[serde(default, skip_serializing_if = "LoaderChoice::is_auto")]
    pub loader: LoaderChoice,
    /// Where it boots from.
    #[serde(default, skip_serializing_if = "BootFrom::is_net")]
    pub boot: BootFrom,
    /// What templates for this machine are filled with; what is under `secrets` is given to the machine itself only.
    #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: serde_json::Map<String, serde_json::Value>,
    /// Free labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl NewMachine {
    /// Describes a machine by its name and its interfaces. It boots nothing yet.
    pub fn new(name: impl Into<String>, macs: impl IntoIterator<Item = Mac>) -> Self {
        Self {
            name: name.into(),
            macs: macs.into_iter().collect(),
            uuid: None,
            arch: None,
            image: None,
            address: None,
            address6: None,
            client_id: None,
            circuit_id: None,
            dhcp_options: BTreeMap::new(),
            cmdline: String::new(),
            state_disk: None,
            loader: LoaderChoice::Auto,
            boot: BootFrom::Net,
            metadata: serde_json::Map::new(),
            labels: BTreeMap::new(),
        }
    }
}
