use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_types::{Arch, ImageRef};

use crate::loader::loader_for;
use crate::{
    Asker, Bake, BootFrom, BootPlan, Decision, Firmware, ImageVersion, Loader, LoaderChoice,
    Machine, Plan, Reason, Sighting, Snapshot, UnknownMachines,
};

/// Settles what the machine behind a sighting gets, and says why.
///
/// Depends on nothing but its arguments. A machine boots only when its architecture, as the firmware tells it,
/// agrees with the inventory and with the version.
pub fn decide(snapshot: &Snapshot, sighting: &Sighting) -> Decision {
    let machine = snapshot.machine_by_mac(sighting.mac).cloned();
    let mut reasons = vec![match &machine {
        Some(machine) => {
            Reason::FoundByMac { mac: sighting.mac, machine: machine.spec.name.clone() }
        }
        None => Reason::UnknownMachine { mac: sighting.mac },
    }];
    let plan = match (&machine, sighting.asker) {
        (_, Asker::System) => {
            reasons.push(Reason::NotBooting);
            Plan::Address
        }
        (None, _) => unknown(snapshot.unknown, sighting, &mut reasons),
        (Some(machine), _) => {
            known(snapshot, sighting, machine, &mut reasons).unwrap_or_else(|stop| {
                let (plan, reason) = match stop {
                    Stop::Hold(reason) => (Plan::Hold, reason),
                    Stop::Refuse(reason) => (Plan::Refuse, reason),
                };
                reasons.push(reason);
                plan
            })
        }
    };
    let loader = loader(snapshot, machine.as_deref(), sighting, &plan, &mut reasons);
    Decision { machine, plan, loader, reasons }
}

/// Settles the loader, and says so where it is not iPXE.
fn loader(
    snapshot: &Snapshot,
    machine: Option<&Machine>,
    sighting: &Sighting,
    plan: &Plan,
    reasons: &mut Vec<Reason>,
) -> Loader {
    let choice = machine.map_or(LoaderChoice::Auto, |machine| machine.spec.loader);
    let wished = loader_for(choice, sighting);
    let absent = sighting.arch().filter(|&arch| snapshot.absent.contains(&(wished, arch)));
    let loader = match wished {
        // One file has everything in it or nothing; iPXE can wait and show why.
        Loader::Uki if !matches!(plan, Plan::Boot(_)) => Loader::Ipxe,
        _ if absent.is_some() => Loader::Ipxe,
        loader => loader,
    };
    let boots = matches!(plan, Plan::Boot(_)) && sighting.asker == Asker::Firmware;
    if let (true, Some(machine), Some(firmware)) = (boots, machine, sighting.firmware) {
        let by_choice = firmware.is_uefi();
        if loader != Loader::Ipxe {
            reasons.push(Reason::LoadedBy { loader, by_choice });
        }
        if let Some(arch) = absent {
            let (machine, wanted) = (machine.spec.name.clone(), choice);
            reasons.push(Reason::LoaderAbsent { machine, wanted, arch });
        }
        if !by_choice && matches!(choice, LoaderChoice::Uki | LoaderChoice::Grub) {
            let (machine, wanted) = (machine.spec.name.clone(), choice);
            reasons.push(Reason::LoaderUnfit { machine, wanted, firmware });
        }
    }
    loader
}

fn unknown(policy: UnknownMachines, sighting: &Sighting, reasons: &mut Vec<Reason>) -> Plan {
    match policy {
        UnknownMachines::Ignore => {
            reasons.push(Reason::UnknownIgnored);
            Plan::Ignore
        }
        UnknownMachines::Hold => match no_loader(sighting) {
            Some(reason) => {
                reasons.push(reason);
                Plan::Refuse
            }
            None => {
                reasons.push(Reason::UnknownHeld);
                Plan::Hold
            }
        },
    }
}

/// Why a known machine does not boot, and whether waiting can help.
enum Stop {
    Hold(Reason),
    Refuse(Reason),
}

fn known(
    snapshot: &Snapshot,
    sighting: &Sighting,
    machine: &Machine,
    reasons: &mut Vec<Reason>,
) -> Result<Plan, Stop> {
    let spec = &machine.spec;
    if spec.boot == BootFrom::Disk {
        reasons.push(Reason::BootsFromDisk { machine: spec.name.clone() });
        return Ok(Plan::LocalDisk);
    }
    if let Some(reason) = no_loader(sighting) {
        return Err(Stop::Refuse(reason));
    }
    if let Some(Firmware::Other(number)) = sighting.firmware {
        return Err(Stop::Refuse(Reason::UnsupportedFirmware { number }));
    }
    if let (Some(wanted), Some(firmware), Some(seen)) =
        (spec.arch, sighting.firmware, sighting.arch())
        && wanted != seen
    {
        let machine = spec.name.clone();
        return Err(Stop::Refuse(Reason::WrongArch { machine, wanted, firmware, seen }));
    }
    let Some(image) = &spec.image else {
        return Err(Stop::Hold(Reason::NoImage { machine: spec.name.clone() }));
    };
    let built = snapshot.images.get(image).filter(|built| !built.is_empty()).ok_or_else(|| {
        let arch = sighting.arch().or(spec.arch);
        Stop::Hold(bake(snapshot, image, arch).unwrap_or_else(|| not_built(snapshot, image)))
    })?;
    let arch = arch_of(sighting, machine, image, built, reasons)?;
    let version = built.get(&arch).ok_or_else(|| match bake(snapshot, image, Some(arch)) {
        Some(reason) => Stop::Hold(reason),
        None => Stop::Refuse(Reason::NotBuiltForArch { image: image.clone(), arch }),
    })?;
    // Where nothing is told on arm64, it is UEFI: what else there is says so.
    let uefi = sighting.firmware.map_or(arch == Arch::Arm64, Firmware::is_uefi);
    if uefi && !version.efi_stub {
        return Err(Stop::Refuse(Reason::NoEfiStub { image: image.clone(), arch }));
    }
    reasons.push(Reason::Selected { image: image.clone(), arch, version: version.version });
    Ok(Plan::Boot(BootPlan {
        image: image.clone(),
        version: version.version,
        arch,
        kernel: version.kernel.clone(),
        segments: version.segments.clone(),
        cmdline: join(&version.cmdline, &spec.cmdline),
    }))
}

/// Returns why no loader can be given to the firmware that asks. A loader that runs already needs none.
fn no_loader(sighting: &Sighting) -> Option<Reason> {
    match (sighting.asker, sighting.firmware) {
        (Asker::Firmware, None | Some(Firmware::Kexec)) => Some(Reason::FirmwareNotTold),
        (Asker::Firmware, Some(Firmware::Other(number))) => {
            Some(Reason::UnsupportedFirmware { number })
        }
        _ => None,
    }
}

/// Returns what the server does about a version that is missing. Builds move `latest` only. Where nothing tells the
/// architecture, the first one that is built stands for all.
fn bake(snapshot: &Snapshot, image: &ImageRef, arch: Option<Arch>) -> Option<Reason> {
    if image.channel() != ImageRef::LATEST {
        return None;
    }
    let bakes = snapshot.bakes.get(image.name())?;
    let arch = arch.or_else(|| bakes.keys().next().copied())?;
    let image = image.clone();
    Some(match bakes.get(&arch)? {
        Bake::Waiting => Reason::WaitsToBeBuilt { image, arch },
        Bake::Building => Reason::BeingBuilt { image, arch },
        Bake::Failed { error } => Reason::BuildFailed { image, arch, error: error.clone() },
    })
}

fn not_built(snapshot: &Snapshot, image: &ImageRef) -> Reason {
    let channels: Vec<String> = snapshot
        .images
        .iter()
        .filter(|(other, built)| other.name() == image.name() && !built.is_empty())
        .map(|(other, _)| other.channel().to_owned())
        .collect();
    if channels.is_empty() {
        Reason::NotBuilt { image: image.clone() }
    } else {
        Reason::NoChannel { image: image.clone(), channels }
    }
}

/// Finds the architecture: what the firmware tells, else what the inventory says, else the only one there is.
fn arch_of(
    sighting: &Sighting,
    machine: &Machine,
    image: &ImageRef,
    built: &BTreeMap<Arch, Arc<ImageVersion>>,
    reasons: &mut Vec<Reason>,
) -> Result<Arch, Stop> {
    if let Some(arch) = sighting.arch() {
        return Ok(arch);
    }
    let name = || machine.spec.name.clone();
    if let Some(arch) = machine.spec.arch {
        reasons.push(Reason::ArchOfMachine { machine: name(), arch });
        return Ok(arch);
    }
    let mut archs = built.keys();
    match (archs.next(), archs.next()) {
        (Some(&arch), None) => {
            reasons.push(Reason::OnlyArchBuilt { image: image.clone(), arch });
            Ok(arch)
        }
        _ => Err(Stop::Refuse(Reason::ArchNotTold { machine: name(), image: image.clone() })),
    }
}

/// Appends the machine's kernel arguments to the image's: where two of them disagree, the kernel takes the last.
fn join(image: &str, machine: &str) -> String {
    [image.trim(), machine.trim()]
        .into_iter()
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests;
