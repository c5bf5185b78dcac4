//! What a machine would get, and why: the same functions that DHCP, TFTP and HTTP answer with, in one place.

use std::net::IpAddr;

use kiln_inventory::{
    Asker, BeatenRow, Decision, Firmware, Loader, Plan, SettingRow, Sighting, Snapshot, decide,
};
use kiln_ipxe::{Endpoints, boot_file};
use kiln_types::{Arch, Digest, Mac};
use serde::{Deserialize, Serialize};

use crate::discovery::LooksLike;

/// The two steps of a network boot as they would go now.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Explanation {
    /// Interface that would ask.
    pub mac: Mac,
    /// Name of the machine, where the inventory knows it.
    pub machine: Option<String>,
    /// Whether it has told its firmware by now; otherwise the one that was asked about counts, or a usual one.
    pub seen: bool,
    /// What the firmware would get, then what iPXE would get where that is its loader; the same by IPv6 behind, where
    /// that is served too.
    pub steps: Vec<Step>,
    /// The machines that it looks like where it is none, the likeliest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub looks_like: Vec<LooksLike>,
    /// Names of its groups, the strongest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The settings that hold for it, and who says each of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<SettingRow>,
    /// What is said of it and does not count, because something stronger says otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub beaten: Vec<BeatenRow>,
}

/// One step.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = ExplanationStep)]
pub struct Step {
    /// Who would ask.
    pub asker: String,
    /// What it would get: `boot`, `address`, `local-disk`, `hold`, `refuse` or `ignore`.
    pub plan: String,
    /// Why.
    pub reasons: Vec<String>,
    /// Boot file in the DHCP answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_file: Option<String>,
    /// Image and version.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Digest of the version alone.
    #[serde(skip)]
    pub digest: Option<Digest>,
    /// Files that would be fetched, the kernel first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<StepFile>,
    /// Kernel arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmdline: Option<String>,
}

/// One file that would be fetched.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct StepFile {
    /// What it is, for people.
    pub name: String,
    /// Digest of its bytes.
    pub digest: Digest,
    /// Length in bytes.
    pub size: u64,
}

/// What each program of a machine says its firmware is. They differ after HTTP Boot, of which iPXE says nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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

    /// Fills in what one of them has not told by what the other has: an iPXE in the ROM of a network card is the
    /// only one that is ever seen.
    pub fn or_each_other(self) -> Self {
        Self {
            by_firmware: self.by_firmware.or(self.by_ipxe),
            by_ipxe: self.by_ipxe.or(self.by_firmware),
        }
    }
}

/// Returns what a machine is taken for that has never been seen: UEFI with PXE, of the architecture it is set to or
/// the only one its image is built for.
fn assumed(snapshot: &Snapshot, mac: Mac) -> Firmware {
    let settings = snapshot.known(mac).map(|(_, settings)| settings);
    let only_built = || {
        let built = snapshot.images.get(&settings?.image.as_ref()?.value)?;
        built.keys().next().copied().filter(|_| built.len() == 1)
    };
    let said = settings.and_then(|settings| settings.arch.as_ref());
    match said.map(|said| said.value).or_else(only_built) {
        Some(Arch::Arm64) => Firmware::UefiArm64,
        Some(Arch::X86_64) | None => Firmware::UefiX64,
    }
}

/// Explains both steps for what the programs of a machine told of their firmware, by each way to reach us: where there
/// are both versions of IP, each step is there once more for the second.
pub fn explain(snapshot: &Snapshot, mac: Mac, told: Told, ways: &[&Endpoints]) -> Explanation {
    let seen = told.by_firmware.is_some() || told.by_ipxe.is_some();
    let told = if seen { told } else { Told::alike(Some(assumed(snapshot, mac))) }.or_each_other();
    let known = snapshot.known(mac);
    let machine = known.map(|(machine, _)| machine.spec.name.clone());
    let mut steps = Vec::new();
    for (number, at) in ways.iter().enumerate() {
        for (asker, firmware) in [(Asker::Firmware, told.by_firmware), (Asker::Ipxe, told.by_ipxe)]
        {
            // No BIOS boots by IPv6.
            if asker == Asker::Firmware && firmware == Some(Firmware::Bios) && at.address.is_ipv6()
            {
                continue;
            }
            let sighting = Sighting { mac, asker, firmware, uuid: None };
            let own = known.and_then(|(machine, _)| machine.spec.address).map(IpAddr::from);
            let decision = decide(snapshot, &sighting).between(own, at.address);
            let mut step = step(&sighting, &decision, at);
            if number > 0 {
                step.asker.push_str(" by IPv6");
            }
            steps.push(step);
            // Any other loader has all that it needs, and no iPXE follows.
            if decision.loader != Loader::Ipxe {
                break;
            }
        }
    }
    let groups = known
        .map_or_else(Vec::new, |(_, all)| all.groups.iter().map(|name| name.to_string()).collect());
    let settings = known.map_or_else(Vec::new, |(_, all)| all.rows());
    let beaten = known.map_or_else(Vec::new, |(machine, _)| snapshot.beaten(machine));
    Explanation { mac, machine, seen, steps, looks_like: Vec::new(), groups, settings, beaten }
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
        Plan::LocalDisk => "local-disk",
        Plan::Hold => "hold",
        Plan::Refuse => "refuse",
        Plan::Ignore => "ignore",
    };
    let boot_file = boot_file(decision, sighting, at).url();
    let boot = match &decision.plan {
        // Firmware that gets iPXE gets no more; what is booted then is iPXE's step.
        Plan::Boot(boot) if sighting.asker == Asker::Ipxe || decision.loader != Loader::Ipxe => {
            Some(boot)
        }
        _ => None,
    };
    Step {
        asker,
        plan: plan.to_owned(),
        reasons: decision.reasons.iter().map(ToString::to_string).collect(),
        boot_file,
        version: boot.map(|b| format!("{} {} {}", b.image, b.arch, b.version)),
        digest: boot.map(|b| b.version),
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

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const MAC: Mac = Mac::new([0x52, 0x54, 0, 0, 0, 1]);
    fn at() -> Endpoints {
        Endpoints::new(Ipv4Addr::new(10, 0, 0, 1), 8080)
    }

    fn askers(told: Told) -> Vec<String> {
        let explanation = explain(&Snapshot::default(), MAC, told, &[&at()]);
        explanation.steps.into_iter().map(|step| step.asker).collect()
    }

    #[test]
    fn what_the_firmware_said_is_kept_beside_what_ipxe_says() {
        let (pxe, http) = (Some(Firmware::UefiX64), Some(Firmware::UefiX64Http));
        let both = Told { by_firmware: http, by_ipxe: pxe };
        assert_eq!(both.or_each_other(), both);
        assert_eq!(Told { by_firmware: None, by_ipxe: pxe }.or_each_other(), Told::alike(pxe));
        assert_eq!(askers(both), ["firmware (uefi-x64-http)", "iPXE"]);
    }

    #[test]
    fn each_way_to_reach_us_is_explained() {
        let six = Endpoints::new("fd77::1".parse::<std::net::Ipv6Addr>().unwrap(), 8080);
        let askers = |told| {
            let explanation = explain(&Snapshot::default(), MAC, told, &[&at(), &six]);
            explanation.steps.into_iter().map(|step| step.asker).collect::<Vec<_>>()
        };
        let uefi = askers(Told::alike(Some(Firmware::UefiX64)));
        let expected =
            ["firmware (uefi-x64)", "iPXE", "firmware (uefi-x64) by IPv6", "iPXE by IPv6"];
        assert_eq!(uefi, expected);
        let bios = askers(Told::alike(Some(Firmware::Bios)));
        assert_eq!(bios, ["firmware (bios)", "iPXE", "iPXE by IPv6"]);
    }

    #[test]
    fn a_machine_that_was_never_seen_is_explained_by_a_usual_firmware() {
        let explanation = explain(&Snapshot::default(), MAC, Told::alike(None), &[&at()]);
        assert!(!explanation.seen);
        assert_eq!(askers(Told::alike(None)), ["firmware (uefi-x64)", "iPXE"]);
    }
}
