use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_types::{Arch, ImageRef};

use crate::loader::loader_for;
use crate::netconsole::{self, Wish};
use crate::{
    Asker, Bake, BootFrom, BootPlan, Decision, Effective, Firmware, Flag, ImageVersion, Loader,
    LoaderChoice, Machine, Origin, Plan, Reason, Said, Setting, Sighting, Snapshot,
    UnknownMachines,
};

/// Settles what the machine behind a sighting gets, and says why.
///
/// Depends on nothing but its arguments. A machine boots only when its architecture, as the firmware tells it,
/// agrees with the inventory and with the version.
pub fn decide(snapshot: &Snapshot, sighting: &Sighting) -> Decision {
    let known = snapshot.known(sighting.mac);
    let stranger = if known.is_none() { snapshot.stranger(sighting) } else { None };
    let found = known.or_else(|| stranger.as_ref().map(|(machine, settings)| (machine, settings)));
    let mut reasons = vec![match known {
        Some((machine, _)) => {
            Reason::FoundByMac { mac: sighting.mac, machine: machine.spec.name.clone() }
        }
        None => Reason::UnknownMachine { mac: sighting.mac },
    }];
    let plan = match (found, sighting.asker) {
        // Whatever of it asks.
        (Some((machine, _)), _) if machine.spec.is(Flag::Retired) => {
            reasons.push(Reason::Retired { machine: machine.spec.name.clone() });
            if sighting.asker == Asker::System { Plan::Ignore } else { Plan::Refuse }
        }
        (_, Asker::System) => {
            reasons.push(Reason::NotBooting);
            Plan::Address
        }
        (Some((machine, settings)), _) => {
            if let (None, Some(image)) = (known, &settings.image) {
                let image = image.value.clone();
                reasons.push(Reason::BootsDiscovery { image });
            }
            let known = Known { snapshot, sighting, machine, settings };
            known.plan(&mut reasons).unwrap_or_else(|stop| {
                let (plan, reason) = match stop {
                    Stop::Hold(reason) => (Plan::Hold, reason),
                    Stop::Refuse(reason) => (Plan::Refuse, reason),
                };
                reasons.push(reason);
                plan
            })
        }
        (None, _) => {
            let alike = sighting.uuid.as_deref().and_then(|uuid| snapshot.machine_by_uuid(uuid));
            reasons.extend(alike.map(|machine| {
                let machine = machine.spec.name.clone();
                Reason::LooksLike { mac: sighting.mac, machine }
            }));
            if snapshot.ignored.contains(&sighting.mac) {
                reasons.push(Reason::DiscoveryIgnored { mac: sighting.mac });
                Plan::Ignore
            } else {
                unknown(snapshot.unknown, sighting, &mut reasons)
            }
        }
    };
    let loader = loader(snapshot, found, sighting, &plan, &mut reasons);
    let (machine, settings) = found.map(|(m, s)| (m.clone(), s.clone())).unzip();
    Decision { machine, settings, plan, loader, reasons }
}

/// Settles the loader, and says so where it is not iPXE.
fn loader(
    snapshot: &Snapshot,
    found: Option<(&Arc<Machine>, &Arc<Effective>)>,
    sighting: &Sighting,
    plan: &Plan,
    reasons: &mut Vec<Reason>,
) -> Loader {
    let choice = found.map_or(LoaderChoice::Auto, |(_, settings)| settings.loader.value);
    let wished = loader_for(choice, sighting);
    let absent = sighting.arch().filter(|&arch| snapshot.absent.contains(&(wished, arch)));
    let loader = match wished {
        // One file has everything in it or nothing; iPXE can wait and show why.
        Loader::Uki if !matches!(plan, Plan::Boot(_)) => Loader::Ipxe,
        _ if absent.is_some() => Loader::Ipxe,
        loader => loader,
    };
    let boots = matches!(plan, Plan::Boot(_)) && sighting.asker == Asker::Firmware;
    if let (true, Some((machine, settings)), Some(firmware)) = (boots, found, sighting.firmware) {
        let by_choice = firmware.is_uefi();
        if loader != Loader::Ipxe {
            let by = by_choice.then(|| settings.loader.by.clone());
            reasons.push(Reason::LoadedBy { loader, by });
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
        // Without an image there is nothing to boot.
        UnknownMachines::Hold | UnknownMachines::Boot => match no_loader(sighting) {
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

/// A machine of the inventory that wants to boot.
#[derive(Clone, Copy)]
struct Known<'a> {
    snapshot: &'a Snapshot,
    sighting: &'a Sighting,
    machine: &'a Machine,
    settings: &'a Effective,
}

/// A version that may be booted, and how it was found.
struct Chosen<'a> {
    image: &'a ImageRef,
    arch: Arch,
    version: &'a Arc<ImageVersion>,
}

impl<'a> Known<'a> {
    fn name(&self) -> String {
        self.machine.spec.name.clone()
    }

    fn plan(&self, reasons: &mut Vec<Reason>) -> Result<Plan, Stop> {
        let maintenance = self.machine.spec.is(Flag::Maintenance);
        let from = &self.settings.boot;
        if from.value == BootFrom::Disk && !maintenance {
            by_group(Setting::Boot, from, reasons);
            reasons.push(Reason::BootsFromDisk { machine: self.name() });
            return Ok(Plan::LocalDisk);
        }
        if let Some(reason) = no_loader(self.sighting) {
            return Err(Stop::Refuse(reason));
        }
        if let Some(Firmware::Other(number)) = self.sighting.firmware {
            return Err(Stop::Refuse(Reason::UnsupportedFirmware { number }));
        }
        if let (Some(wanted), Some(firmware), Some(seen)) =
            (&self.settings.arch, self.sighting.firmware, self.sighting.arch())
            && wanted.value != seen
        {
            by_group(Setting::Arch, wanted, reasons);
            let (machine, wanted) = (self.name(), wanted.value);
            return Err(Stop::Refuse(Reason::WrongArch { machine, wanted, firmware, seen }));
        }
        let Chosen { image, arch, version } = match maintenance {
            true => self.for_maintenance(reasons)?,
            false if self.machine.spec.is(Flag::Cordoned) => self.kept(reasons)?,
            false => self.newest(reasons)?,
        };
        // Where nothing is told on arm64, it is UEFI: what else there is says so.
        let uefi = self.sighting.firmware.map_or(arch == Arch::Arm64, Firmware::is_uefi);
        if uefi && !version.efi_stub {
            return Err(Stop::Refuse(Reason::NoEfiStub { image: image.clone(), arch }));
        }
        for part in &self.settings.cmdline {
            by_group(Setting::Cmdline, part, reasons);
        }
        reasons.push(Reason::Selected { image: image.clone(), arch, version: version.version });
        let arguments = join(&version.cmdline, &self.settings.cmdline);
        let (cmdline, wish) = netconsole::settle(&arguments, self.snapshot.netconsole);
        reasons.extend(match wish {
            Wish::Nothing => None,
            Wish::To(port) => Some(Reason::KernelHeard { port }),
            Wish::Unheard => Some(Reason::KernelUnheard),
        });
        Ok(Plan::Boot(BootPlan {
            image: image.clone(),
            version: version.version,
            arch,
            kernel: version.kernel.clone(),
            segments: version.segments.clone(),
            cmdline,
        }))
    }

    /// Finds what the settings name.
    fn newest(&self, reasons: &mut Vec<Reason>) -> Result<Chosen<'a>, Stop> {
        let image = self.settings.image.as_ref();
        let image = image.ok_or_else(|| Stop::Hold(Reason::NoImage { machine: self.name() }))?;
        by_group(Setting::Image, image, reasons);
        self.version_of(&image.value, reasons)
    }

    /// Finds what it runs instead of its work.
    fn for_maintenance(&self, reasons: &mut Vec<Reason>) -> Result<Chosen<'a>, Stop> {
        let image = self.settings.maintenance_image.as_ref();
        let held = || Stop::Hold(Reason::HeldForMaintenance { machine: self.name() });
        let image = image.ok_or_else(held)?;
        reasons.push(Reason::InMaintenance { machine: self.name(), image: image.value.clone() });
        by_group(Setting::MaintenanceImage, image, reasons);
        self.version_of(&image.value, reasons)
    }

    /// Finds what it last ran well, whatever its settings name by now.
    fn kept(&self, reasons: &mut Vec<Reason>) -> Result<Chosen<'a>, Stop> {
        let kept = self.snapshot.kept.get(&self.machine.id);
        let never = || Stop::Hold(Reason::CordonedNeverRan { machine: self.name() });
        let kept = kept.ok_or_else(never)?;
        let (image, arch) = (&kept.image, kept.arch);
        let gone =
            || Stop::Hold(Reason::CordonedGone { machine: self.name(), image: image.clone() });
        let version = kept.version.as_ref().ok_or_else(gone)?;
        if let (Some(seen), Some(firmware)) = (self.sighting.arch(), self.sighting.firmware)
            && seen != arch
        {
            let machine = self.name();
            return Err(Stop::Refuse(Reason::WrongArch { machine, wanted: arch, firmware, seen }));
        }
        reasons.push(Reason::Cordoned { machine: self.name() });
        Ok(Chosen { image, arch, version })
    }

    fn version_of(
        &self,
        image: &'a ImageRef,
        reasons: &mut Vec<Reason>,
    ) -> Result<Chosen<'a>, Stop> {
        let snapshot = self.snapshot;
        let wanted = self.settings.arch.as_ref().map(|said| said.value);
        let built = snapshot.images.get(image).filter(|built| !built.is_empty());
        let built = built.ok_or_else(|| {
            let arch = self.sighting.arch().or(wanted);
            Stop::Hold(bake(snapshot, image, arch).unwrap_or_else(|| not_built(snapshot, image)))
        })?;
        let arch = self.arch(image, built, reasons)?;
        let version = built.get(&arch).ok_or_else(|| match bake(snapshot, image, Some(arch)) {
            Some(reason) => Stop::Hold(reason),
            None => Stop::Refuse(Reason::NotBuiltForArch { image: image.clone(), arch }),
        })?;
        Ok(Chosen { image, arch, version })
    }

    /// Finds the architecture: what the firmware tells, else what the inventory says, else the only one there is.
    fn arch(
        &self,
        image: &ImageRef,
        built: &BTreeMap<Arch, Arc<ImageVersion>>,
        reasons: &mut Vec<Reason>,
    ) -> Result<Arch, Stop> {
        if let Some(arch) = self.sighting.arch() {
            return Ok(arch);
        }
        if let Some(said) = &self.settings.arch {
            by_group(Setting::Arch, said, reasons);
            reasons.push(Reason::ArchOfMachine { machine: self.name(), arch: said.value });
            return Ok(said.value);
        }
        let mut archs = built.keys();
        match (archs.next(), archs.next()) {
            (Some(&arch), None) => {
                reasons.push(Reason::OnlyArchBuilt { image: image.clone(), arch });
                Ok(arch)
            }
            _ => {
                let (machine, image) = (self.name(), image.clone());
                Err(Stop::Refuse(Reason::ArchNotTold { machine, image }))
            }
        }
    }
}

/// Says so where a group is the reason. What a machine says itself goes without saying.
fn by_group<T: ToString>(setting: Setting, said: &Said<T>, reasons: &mut Vec<Reason>) {
    if let Origin::Group(group) = &said.by {
        let (group, value) = (group.clone(), said.value.to_string());
        reasons.push(Reason::SetByGroup { group, setting, value });
    }
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

/// Appends what the settings say to the image's kernel arguments: where two disagree, the kernel takes the last.
fn join(image: &str, settings: &[Said<String>]) -> String {
    let image = Some(image.trim()).filter(|image| !image.is_empty());
    let parts = settings.iter().map(|part| part.value.as_str());
    image.into_iter().chain(parts).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
