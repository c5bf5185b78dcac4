//! What a machine would get, and why: the same functions that DHCP, TFTP and HTTP answer with, in one place.

use kiln_inventory::{Asker, Decision, Firmware, Plan, Sighting, Snapshot, decide};
use kiln_ipxe::{BootFile, Endpoints, boot_file};
use kiln_types::{Digest, Mac};
use serde::{Deserialize, Serialize};

/// The two steps of a network boot as they would go now.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Explanation {
    /// Interface that would ask.
    pub mac: Mac,
    /// Name of the machine, where the inventory knows it.
    pub machine: Option<String>,
    /// What the firmware would get, then what iPXE would get.
    pub steps: Vec<Step>,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Step {
    /// Who would ask.
    pub asker: String,
    /// What it would get: `boot`, `address`, `hold`, `refuse` or `ignore`.
    pub plan: String,
    /// Why.
    pub reasons: Vec<String>,
    /// Boot file in the DHCP answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_file: Option<String>,
    /// Image and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Files that would be fetched, the kernel first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<StepFile>,
    /// Kernel arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

/// One file that would be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFile {
    /// What it is, for people.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// What each program of a machine says its firmware is. They differ after HTTP Boot, of which iPXE says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// What the firmware says.
    pub by_firmware: Option<Firmware>,
    /// What iPXE says.
    pub by_ipxe: Option<Firmware>,
}

impl Told {
    /// Returns what was told where both say the same.
    pub const fn alike(firmware: Option<Firmware>) -> Self {
        Self { by_firmware: firmware, by_ipxe: firmware }
    }

    /// Joins what is remembered of an interface: its last sighting, and the firmware of its last boot, which is
    /// what the firmware itself said.
    pub fn remembered(seen: Option<&Sighting>, last_boot: Option<Firmware>) -> Self {
        let said = seen.and_then(|sighting| sighting.firmware);
        match seen.map(|sighting| sighting.asker) {
            Some(Asker::Ipxe) => Self { by_firmware: last_boot.or(said), by_ipxe: said },
            _ => Self::alike(said.or(last_boot)),
        }
    }
}

/// Explains both steps for one kind of firmware.
pub fn explain(snapshot: &Snapshot, mac: Mac, told: Told, at: &Endpoints) -> Explanation {
    let machine = snapshot.machine_by_mac(mac).map(|machine| machine.spec.name.clone());
    let steps = [(Asker::Firmware, told.by_firmware), (Asker::Ipxe, told.by_ipxe)]
        .into_iter()
        .map(|(asker, firmware)| {
            let sighting = Sighting { mac, asker, firmware, uuid: None };
            step(&sighting, &decide(snapshot, &sighting), at)
        })
        .collect();
    Explanation { mac, machine, steps }
}

fn step(sighting: &Sighting, decision: &Decision, at: &Endpoints) -> Step {
    let asker = match (sighting.asker, sighting.firmware) {
        (Asker::Firmware, Some(firmware)) => format!("firmware ({firmware})"),
        (Asker::Firmware, None) => "firmware".to_owned(),
        (Asker::Ipxe, _) => "iPXE".to_owned(),
        (Asker::System, _) => "system".to_owned(),
    };
    let plan = match &decision.plan {
        Plan::Boot(_) => "boot",
        Plan::Address => "address",
        Plan::Hold => "hold",
        Plan::Refuse => "refuse",
        Plan::Ignore => "ignore",
    };
    let boot_file = match boot_file(decision, sighting, at) {
        BootFile::None => None,
        BootFile::Tftp { server, path } => Some(format!("tftp://{server}/{path}")),
        BootFile::Url(url) => Some(url),
    };
    let boot = match &decision.plan {
        // The firmware gets a loader; what is booted then is iPXE's step.
        Plan::Boot(boot) if sighting.asker == Asker::Ipxe => Some(boot),
        _ => None,
    };
    Step {
        asker,
        plan: plan.to_owned(),
        reasons: decision.reasons.iter().map(ToString::to_string).collect(),
        boot_file,
        version: boot.map(|b| format!("{} {} {}", b.image, b.arch, b.version)),
        files: boot.map_or_else(Vec::new, |b| {
            [&b.kernel]
                .into_iter()
                .chain(&b.segments)
                .map(|file| StepFile {
                    name: file.name.clone(),
                    digest: file.digest,
                    size: file.size,
                })
                .collect()
        }),
        cmdline: boot.map(|b| b.cmdline.clone()),
    }
}

/// Reads a kind of firmware as its `Display` writes it.
pub fn parse_firmware(text: &str) -> Option<Firmware> {
    const NAMED: [Firmware; 5] = [
        Firmware::Bios,
        Firmware::UefiX64,
        Firmware::UefiX64Http,
        Firmware::UefiArm64,
        Firmware::UefiArm64Http,
    ];
    NAMED.into_iter().find(|firmware| firmware.to_string() == text).or_else(|| {
        text.strip_prefix("other-").and_then(|number| number.parse().ok()).map(Firmware::Other)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_firmware_said_is_not_lost_when_ipxe_was_seen_last() {
        let mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
        let (pxe, http) = (Some(Firmware::UefiX64), Some(Firmware::UefiX64Http));
        let seen = |asker, firmware| Sighting { mac, asker, firmware, uuid: None };
        let ipxe = seen(Asker::Ipxe, pxe);
        let both = Told { by_firmware: http, by_ipxe: pxe };
        assert_eq!(Told::remembered(Some(&ipxe), http), both);
        assert_eq!(Told::remembered(Some(&ipxe), None), Told::alike(pxe));
        // Firmware that was set to another way of booting since the last boot.
        assert_eq!(Told::remembered(Some(&seen(Asker::Firmware, pxe)), http), Told::alike(pxe));
        assert_eq!(Told::remembered(None, http), Told::alike(http));
        assert_eq!(Told::remembered(Some(&seen(Asker::System, None)), http), Told::alike(http));
    }

    #[test]
    fn every_kind_of_firmware_reads_back() {
        for number in [0, 7, 11, 16, 19, 1000] {
            let firmware = Firmware::from_option_93(number);
            assert_eq!(parse_firmware(&firmware.to_string()), Some(firmware));
        }
        assert_eq!(parse_firmware("bios2"), None);
    }
}
