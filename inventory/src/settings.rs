//! What can be said of one machine, or of all machines of a group.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use kiln_types::{Arch, ImageRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::seal::grown_by_sealing;
use crate::{BootFrom, LoaderChoice, NewMachine, OptionValue, StateDisk, numbered};

/// Settings, each of which may be left to others: a machine says them of itself, a group of all its machines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    /// Architecture; machines of any other kind are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arch: Option<Arch>,
    /// Image that is run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageRef>,
    /// Image that is run in maintenance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_image: Option<ImageRef>,
    /// Kernel arguments, behind those of what is weaker.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cmdline: String,
    /// DHCP options by number.
    #[serde(deserialize_with = "numbered::read", skip_serializing_if = "BTreeMap::is_empty")]
    pub dhcp_options: BTreeMap<u8, OptionValue>,
    /// Disk on which a state partition may be made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_disk: Option<StateDisk>,
    /// Which loader is given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loader: Option<LoaderChoice>,
    /// Where it boots from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootFrom>,
    /// What templates are filled with.
    #[serde(skip_serializing_if = "Map::is_empty")]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
    /// Settings that do not count where something weaker says them.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub unset: BTreeSet<Setting>,
}

/// The name of one setting, to take away what a weaker group says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Setting {
    /// `arch`
    Arch,
    /// `image`
    Image,
    /// `maintenance-image`
    MaintenanceImage,
    /// `cmdline`
    Cmdline,
    /// `dhcp-options`
    DhcpOptions,
    /// `dhcp-options.42`
    DhcpOption(u8),
    /// `state-disk`
    StateDisk,
    /// `loader`
    Loader,
    /// `boot`
    Boot,
    /// `metadata`
    Metadata,
    /// `metadata.role`, `metadata.disk.size`
    MetadataAt(Vec<String>),
}

/// The text names no setting.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no setting; use arch, image, maintenance-image, cmdline, dhcp-options, dhcp-options.NUMBER, state-disk, \
     loader, boot, metadata or metadata.KEY"
)]
pub struct ParseSettingError(String);

kiln_types::text_schemas! {
    Setting: "Name of a setting: arch, image, cmdline, dhcp-options.42, metadata.role …", "image";
}

impl FromStr for Setting {
    type Err = ParseSettingError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || ParseSettingError(text.escape_debug().take(60).collect());
        Ok(match text {
            "arch" => Self::Arch,
            "image" => Self::Image,
            "maintenance-image" => Self::MaintenanceImage,
            "cmdline" => Self::Cmdline,
            "dhcp-options" => Self::DhcpOptions,
            "state-disk" => Self::StateDisk,
            "loader" => Self::Loader,
            "boot" => Self::Boot,
            "metadata" => Self::Metadata,
            _ => {
                if let Some(number) = text.strip_prefix("dhcp-options.") {
                    return Ok(Self::DhcpOption(number.parse().map_err(|_| wrong())?));
                }
                let path = text.strip_prefix("metadata.").ok_or_else(wrong)?;
                let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
                if path.len() > 512 || keys.len() > 16 || keys.iter().any(String::is_empty) {
                    return Err(wrong());
                }
                Self::MetadataAt(keys)
            }
        })
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Arch => "arch",
            Self::Image => "image",
            Self::MaintenanceImage => "maintenance-image",
            Self::Cmdline => "cmdline",
            Self::DhcpOptions => "dhcp-options",
            Self::DhcpOption(number) => return f.pad(&format!("dhcp-options.{number}")),
            Self::StateDisk => "state-disk",
            Self::Loader => "loader",
            Self::Boot => "boot",
            Self::Metadata => "metadata",
            Self::MetadataAt(keys) => return f.pad(&format!("metadata.{}", keys.join("."))),
        })
    }
}

impl TryFrom<String> for Setting {
    type Error = ParseSettingError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Setting> for String {
    fn from(setting: Setting) -> Self {
        setting.to_string()
    }
}

/// The settings of a machine or of a group, looked at alike. Equal layers on equal groups have equal results, which is
/// why it can be hashed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Layer<'a> {
    pub(crate) arch: Option<Arch>,
    pub(crate) image: Option<&'a ImageRef>,
    pub(crate) maintenance_image: Option<&'a ImageRef>,
    pub(crate) cmdline: &'a str,
    pub(crate) dhcp_options: &'a BTreeMap<u8, OptionValue>,
    pub(crate) state_disk: Option<&'a StateDisk>,
    pub(crate) loader: Option<LoaderChoice>,
    pub(crate) boot: Option<BootFrom>,
    pub(crate) metadata: &'a Map<String, Value>,
    pub(crate) unset: &'a BTreeSet<Setting>,
}

impl Settings {
    pub(crate) fn layer(&self) -> Layer<'_> {
        Layer {
            arch: self.arch,
            image: self.image.as_ref(),
            maintenance_image: self.maintenance_image.as_ref(),
            cmdline: &self.cmdline,
            dhcp_options: &self.dhcp_options,
            state_disk: self.state_disk.as_ref(),
            loader: self.loader,
            boot: self.boot,
            metadata: &self.metadata,
            unset: &self.unset,
        }
    }
}

impl NewMachine {
    pub(crate) fn layer(&self) -> Layer<'_> {
        Layer {
            arch: self.arch,
            image: self.image.as_ref(),
            maintenance_image: self.maintenance_image.as_ref(),
            cmdline: &self.cmdline,
            dhcp_options: &self.dhcp_options,
            state_disk: self.state_disk.as_ref(),
            loader: self.loader,
            boot: self.boot,
            metadata: &self.metadata,
            unset: &self.unset,
        }
    }

    /// Returns what can also be said by a group.
    pub fn settings(&self) -> Settings {
        Settings {
            arch: self.arch,
            image: self.image.clone(),
            maintenance_image: self.maintenance_image.clone(),
            cmdline: self.cmdline.clone(),
            dhcp_options: self.dhcp_options.clone(),
            state_disk: self.state_disk.clone(),
            loader: self.loader,
            boot: self.boot,
            metadata: self.metadata.clone(),
            unset: self.unset.clone(),
        }
    }

    /// Replaces what can also be said by a group.
    pub fn set_settings(&mut self, settings: Settings) {
        self.arch = settings.arch;
        self.image = settings.image;
        self.maintenance_image = settings.maintenance_image;
        self.cmdline = settings.cmdline;
        self.dhcp_options = settings.dhcp_options;
        self.state_disk = settings.state_disk;
        self.loader = settings.loader;
        self.boot = settings.boot;
        self.metadata = settings.metadata;
        self.unset = settings.unset;
    }
}

/// Says why kernel arguments cannot be passed on by every loader.
pub(crate) fn check_cmdline(cmdline: &str) -> Result<(), &'static str> {
    if cmdline.len() > 2048 {
        return Err("more than 2048 bytes");
    }
    if cmdline.bytes().any(|b| b.is_ascii_control()) {
        return Err("a control character");
    }
    if !cmdline.is_ascii() {
        return Err("a letter outside ASCII");
    }
    // iPXE expands it and has no way to say that it should not.
    if cmdline.contains("${") {
        return Err("`${`");
    }
    Ok(())
}

/// Says why metadata goes beyond a bound.
pub(crate) fn check_metadata(metadata: &Map<String, Value>) -> Result<(), &'static str> {
    if !metadata.values().all(|value| is_shallow(value, MAX_DEPTH)) {
        return Err("is nested more than 16 deep");
    }
    let length = serde_json::to_vec(metadata).map_or(usize::MAX, |json| json.len());
    // What could be written in the clear can be sent back as it is shown.
    let grown: usize = metadata.values().map(grown_by_sealing).sum();
    if length.saturating_sub(grown) > MAX_METADATA {
        return Err("is longer than 64 KiB; keep large texts in templates");
    }
    Ok(())
}

/// Bounds of the metadata of one machine.
const MAX_METADATA: usize = 64 << 10;
const MAX_DEPTH: usize = 15;

fn is_shallow(value: &Value, depth: usize) -> bool {
    let mut inside: Box<dyn Iterator<Item = &Value>> = match value {
        Value::Array(list) => Box::new(list.iter()),
        Value::Object(map) => Box::new(map.values()),
        _ => return true,
    };
    depth > 0 && inside.all(|value| is_shallow(value, depth - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_back_as_it_is_written() {
        for text in [
            "arch",
            "image",
            "maintenance-image",
            "cmdline",
            "dhcp-options",
            "dhcp-options.42",
            "state-disk",
            "loader",
            "boot",
            "metadata",
            "metadata.role",
            "metadata.disk.size",
        ] {
            assert_eq!(text.parse::<Setting>().unwrap().to_string(), text);
        }
        let deep = format!("metadata{}", ".a".repeat(17));
        for bad in ["", "name", "macs", "dhcp-options.256", "metadata.", "metadata.a..b", &deep] {
            assert!(bad.parse::<Setting>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_a_machine_says_is_taken_out_and_put_back_whole() {
        let json = r#"{"name":"n1","macs":["52:54:00:00:00:01"],"image":"web","cmdline":"quiet",
            "dhcp-options":{"42":"u8:1"},"loader":"uki","boot":"disk","metadata":{"a":1},
            "state-disk":"serial:A","unset":["arch"],"maintenance-image":"fix","arch":"arm64"}"#;
        let machine: NewMachine = serde_json::from_str(json).unwrap();
        let settings = machine.settings();
        assert_eq!(settings.layer(), machine.layer());
        let text = serde_json::to_string(&settings).unwrap();
        assert_eq!(serde_json::from_str::<Settings>(&text).unwrap(), settings);
        let mut bare = NewMachine::new("n1", machine.macs.clone());
        bare.set_settings(settings);
        assert_eq!(bare, machine);
    }
}
