use std::fmt;
use std::net::IpAddr;

use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::{Deserialize, Serialize};

use crate::{Firmware, MachineId};

number! {
    /// Number of a boot, counted up in one server.
    BootId
}

/// A boot that begins: a [`Boot`] that has no number yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBoot {
    /// The machine.
    pub machine: MachineId,
    /// Name of the machine now.
    pub machine_name: String,
    /// Interface it boots from.
    pub mac: Mac,
    /// Kind of firmware, where it was told.
    pub firmware: Option<Firmware>,
    /// Image it is given.
    pub image: Option<ImageRef>,
    /// Digest of the manifest of the version.
    pub version: Option<Digest>,
    /// Architecture of the version.
    pub arch: Option<Arch>,
    /// Address it has.
    pub address: Option<IpAddr>,
    /// When the first packet was seen, in milliseconds since 1970.
    pub started: i64,
}

impl NewBoot {
    /// Returns a boot of which nothing is known but who begins it, and when.
    pub fn new(machine: MachineId, name: impl Into<String>, mac: Mac, started: i64) -> Self {
        Self {
            machine,
            machine_name: name.into(),
            mac,
            firmware: None,
            image: None,
            version: None,
            arch: None,
            address: None,
            started,
        }
    }

    /// Returns the boot as it begins, under its number.
    pub fn numbered(self, id: BootId) -> Boot {
        let Self { machine, machine_name, mac, firmware, image, version, arch, address, started } =
            self;
        Boot {
            id,
            machine,
            machine_name,
            mac,
            firmware,
            image,
            version,
            arch,
            address,
            started,
            outcome: Outcome::Booting,
            ended: None,
            kernel_start: None,
        }
    }
}

/// One attempt of one machine to run one version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Boot {
    /// Its number.
    pub id: BootId,
    /// The machine.
    pub machine: MachineId,
    /// Name of the machine when it booted.
    pub machine_name: String,
    /// Interface it booted from.
    pub mac: Mac,
    /// Kind of firmware, where it was told.
    pub firmware: Option<Firmware>,
    /// Image it was given.
    pub image: Option<ImageRef>,
    /// Digest of the manifest of the version.
    pub version: Option<Digest>,
    /// Architecture of the version.
    pub arch: Option<Arch>,
    /// Address it had.
    #[schema(value_type = Option<String>)]
    pub address: Option<IpAddr>,
    /// When the first packet was seen, in milliseconds since 1970.
    pub started: i64,
    /// How far it came, or how it ended.
    pub outcome: Outcome,
    /// When it ended, in milliseconds since 1970.
    pub ended: Option<i64>,
    /// When its kernel started by the clock of the server, in milliseconds since 1970. Known once the system reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_start: Option<i64>,
}

/// How far a boot came, or how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Under way.
    Booting,
    /// Everything the image starts is up.
    Healthy,
    /// The machine said that something failed.
    Failed,
    /// Another boot of the same machine began before this one was healthy, or the server was started anew.
    Abandoned,
}

/// One line of the timeline of a boot.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BootEvent {
    /// When it was, by the clock of the server, in milliseconds since 1970. What the machine reports is put where it
    /// belongs by the time since its kernel started.
    pub at: i64,
    /// What happened.
    pub phase: Phase,
    /// More about it: a file name, a service, the reason of a failure.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// Bytes moved, for a transfer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Milliseconds it took, for a transfer; milliseconds since the kernel started, for what the machine reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub millis: Option<u64>,
    /// Milliseconds that what the machine reports lasted; it ended at `millis`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub took: Option<u64>,
    /// Blocks of a transfer by TFTP that were sent more than once, where there were any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resent: Option<u64>,
}

impl BootEvent {
    /// Returns an event of which nothing more is known.
    pub fn new(at: i64, phase: Phase, detail: impl Into<String>) -> Self {
        Self {
            at,
            phase,
            detail: detail.into(),
            bytes: None,
            millis: None,
            took: None,
            resent: None,
        }
    }
}

/// The phases of a boot, in the order in which they come.
///
/// What the server sees for itself comes before [`Init`](Self::Init), what the machine reports from there on. A word
/// that a newer Kiln wrote is read as [`Other`](Self::Other).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case", from = "String")]
pub enum Phase {
    /// Something was asked for that is not there; the detail says what. The boot is no further by it.
    Absent,
    /// A transfer broke off; the detail says which and why. The boot is no further by it.
    Broken,
    /// The firmware or the loader asked for an address.
    Dhcp,
    /// The loader was fetched.
    Loader,
    /// The script was fetched.
    Script,
    /// The system before was told to start this one, without the firmware.
    Kexec,
    /// The kernel was fetched.
    Kernel,
    /// One segment of the initrd was fetched.
    Segment,
    /// Something that may keep the machine from coming up; the detail says what.
    Warning,
    /// kiln-init runs as process 1.
    Init,
    /// Something that this Kiln has no word for.
    Other,
    /// The modules that the image names and the hardware asks for are loaded.
    Modules,
    /// The network card is there and has a link.
    Link,
    /// The network is up in the booted system.
    Network,
    /// Volumes, or the state partition, are ready.
    Volumes,
    /// The program of a container begins: the detail is `onboot NAME` or `service NAME`.
    Start,
    /// One `onboot` container ended well.
    Onboot,
    /// The check of a service that was never up is not well; the detail says which and why.
    Waiting,
    /// One service was started.
    Service,
    /// The program of a service that had ended begins again.
    Restart,
    /// Everything the image starts is up.
    Healthy,
    /// Something failed; the detail says what.
    Failed,
}

impl Phase {
    const ALL: [Self; 22] = [
        Self::Absent,
        Self::Broken,
        Self::Dhcp,
        Self::Loader,
        Self::Script,
        Self::Kexec,
        Self::Kernel,
        Self::Segment,
        Self::Warning,
        Self::Init,
        Self::Other,
        Self::Modules,
        Self::Link,
        Self::Network,
        Self::Volumes,
        Self::Start,
        Self::Onboot,
        Self::Waiting,
        Self::Service,
        Self::Restart,
        Self::Healthy,
        Self::Failed,
    ];

    /// Returns the word that listings show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Broken => "broken",
            Self::Dhcp => "dhcp",
            Self::Loader => "loader",
            Self::Script => "script",
            Self::Kexec => "kexec",
            Self::Kernel => "kernel",
            Self::Segment => "segment",
            Self::Warning => "warning",
            Self::Init => "init",
            Self::Other => "other",
            Self::Modules => "modules",
            Self::Link => "link",
            Self::Network => "network",
            Self::Volumes => "volumes",
            Self::Start => "start",
            Self::Onboot => "onboot",
            Self::Waiting => "waiting",
            Self::Service => "service",
            Self::Restart => "restart",
            Self::Healthy => "healthy",
            Self::Failed => "failed",
        }
    }
}

impl From<String> for Phase {
    fn from(word: String) -> Self {
        Self::ALL.into_iter().find(|phase| phase.as_str() == word).unwrap_or(Self::Other)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
