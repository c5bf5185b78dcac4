//! Images that machines cannot start with the firmware they have.

use std::collections::BTreeMap;
use std::sync::Arc;

use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{
    Asker, Effective, Firmware, Group, Machine, Snapshot, Store, UnknownMachines,
};
use kiln_types::Arch;

use super::Finding;
use crate::settings::Settings;

/// What a machine wants, and what was seen of it.
struct Want {
    machine: String,
    image: String,
    firmware: Firmware,
    /// Whether the kernel of the version that it would get is a UEFI program; nothing when there is no version.
    stub: Option<bool>,
}

pub(super) async fn examine(settings: &Settings) -> Vec<Finding> {
    const CHECK: &str = "image";
    let database = settings.database();
    // Before the first start there are no machines.
    if database.file().is_some_and(|path| !path.exists()) || !settings.store_dir.exists() {
        return Vec::new();
    }
    let look = async {
        let inventory = Store::connect(&database).await?;
        let artifacts = Artifacts::open(&settings.store_dir)?;
        let mut wants = Vec::new();
        let groups = inventory.all::<Group>().await?;
        let groups: Vec<Group> = groups.into_iter().map(|group| group.document).collect();
        let machines = inventory.machines().await?.into_iter().map(Arc::new).collect();
        let unknown = UnknownMachines::default();
        let all = Snapshot::with_groups(machines, &groups, BTreeMap::new(), unknown);
        for machine in all.machines() {
            let Some(holds) = all.settings_of(machine.id) else { continue };
            wants.extend(want(&inventory, &artifacts, machine, holds).await?);
        }
        inventory.close().await;
        Ok::<_, anyhow::Error>(wants)
    };
    match look.await {
        Ok(wants) => judge(&wants),
        Err(error) => {
            let subject = database.to_string();
            let remedy = "run this as the user of the server; `kiln serve` says more";
            vec![Finding::wrong(CHECK, subject, format!("{error:#}"), remedy)]
        }
    }
}

async fn want(
    inventory: &Store,
    artifacts: &Artifacts,
    machine: &Machine,
    holds: &Effective,
) -> anyhow::Result<Option<Want>> {
    let Some(image) = holds.image.as_ref().map(|said| &said.value) else { return Ok(None) };
    let mut firmware = None;
    for mac in &machine.spec.macs {
        firmware = firmware.or(inventory.firmware_told_by(*mac, Asker::Firmware).await?);
    }
    let Some(firmware) = firmware else { return Ok(None) };
    let wanted = holds.arch.as_ref().map(|said| said.value);
    let arch = wanted.or_else(|| firmware.arch()).unwrap_or(Arch::X86_64);
    let stub = match artifacts.find(&image.to_string(), arch) {
        Ok(version) => Some(artifacts.manifest(&version.digest)?.kernel.efi_stub),
        Err(_) => None,
    };
    let (machine, image) = (machine.spec.name.clone(), format!("{image} ({arch})"));
    Ok(Some(Want { machine, image, firmware, stub }))
}

fn judge(wants: &[Want]) -> Vec<Finding> {
    const CHECK: &str = "image";
    let finding = |want: &Want| {
        let Want { machine, image, firmware, stub } = want;
        let subject = format!("machine {machine}");
        match stub {
            None => Some(Finding::doubtful(
                CHECK,
                subject,
                format!("its image {image} has no version"),
                "build it (`kiln build`, `kiln image build`), or give the machine another (`kiln machine set --image`)",
            )),
            Some(false) if firmware.is_uefi() => Some(Finding::wrong(
                CHECK,
                subject,
                format!("its firmware is {firmware}, and the kernel of {image} is no UEFI program"),
                "take a kernel with CONFIG_EFI_STUB; Debian's have it",
            )),
            Some(_) => None,
        }
    };
    let found: Vec<Finding> = wants.iter().filter_map(finding).collect();
    if found.is_empty() && !wants.is_empty() {
        let found = format!("{} machines can start what they want", wants.len());
        return vec![Finding::good(CHECK, "machines seen so far", found)];
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_kernel_that_uefi_cannot_start_is_wrong_in_a_machine_that_has_uefi_only() {
        let verdict = |firmware, stub| {
            let (machine, image) = ("n1".to_owned(), "web (x86_64)".to_owned());
            judge(&[Want { machine, image, firmware, stub }])[0].verdict
        };
        assert_eq!(verdict(Firmware::UefiX64, Some(false)), Verdict::Wrong);
        assert_eq!(verdict(Firmware::UefiX64, Some(true)), Verdict::Good);
        assert_eq!(verdict(Firmware::Bios, Some(false)), Verdict::Good);
        assert_eq!(verdict(Firmware::Bios, None), Verdict::Doubtful);
        assert_eq!(judge(&[]), []);
    }
}
