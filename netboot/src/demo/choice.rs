//! Which machines the demonstration has.

use std::collections::BTreeSet;
use std::env;
use std::path::PathBuf;

use anyhow::Context;
use kiln_inventory::NewMachine;
use kiln_types::{Arch, ImageRef, Mac};

use crate::lab::{FirmwareKind, LabError, MachineKind};

/// One machine of the demonstration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub(super) name: String,
    pub(super) kind: MachineKind,
    pub(super) mac: Mac,
}

impl Chosen {
    /// Describes it to the inventory.
    pub(super) fn spec(&self, image: &ImageRef) -> NewMachine {
        NewMachine {
            arch: Some(self.kind.arch()),
            image: Some(image.clone()),
            ..NewMachine::new(&self.name, [self.mac])
        }
    }
}

/// Returns the machines for the options: every kind that both allow, or the usual three.
pub(super) fn machines(
    architectures: &[Arch],
    firmware: &[FirmwareKind],
) -> Result<Vec<Chosen>, LabError> {
    let usual_firmware = [FirmwareKind::Bios, FirmwareKind::Uefi];
    let firmware = if firmware.is_empty() { &usual_firmware[..] } else { firmware };
    let architectures = if architectures.is_empty() { &Arch::ALL[..] } else { architectures };
    let mut kinds = Vec::new();
    let mut impossible = None;
    for &arch in architectures {
        for &one in firmware {
            match MachineKind::new(arch, one) {
                Ok(kind) if kinds.contains(&kind) => {}
                Ok(kind) => kinds.push(kind),
                Err(error) => impossible = Some(error),
            }
        }
    }
    if let (true, Some(error)) = (kinds.is_empty(), impossible) {
        return Err(error);
    }
    Ok((1..=u8::MAX)
        .zip(kinds)
        .map(|(number, kind)| Chosen {
            name: format!("n{number}"),
            kind,
            mac: Mac::new([0x52, 0x54, 0, 0x77, 0, number]),
        })
        .collect())
}

/// Returns the architectures of the machines, each once.
pub(super) fn architectures(chosen: &[Chosen]) -> Vec<Arch> {
    chosen.iter().map(|one| one.kind.arch()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Returns where the demonstration keeps what it downloads and builds.
pub(super) fn default_store() -> anyhow::Result<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = folder("XDG_CACHE_HOME")
        .or_else(|| folder("HOME").map(|home| home.join(".cache")))
        .context("there is no home folder to keep downloads in; name one with --store DIR")?;
    Ok(cache.join("kiln/store"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(architectures: &[Arch], firmware: &[FirmwareKind]) -> Vec<String> {
        let chosen = machines(architectures, firmware).unwrap();
        chosen.iter().map(|one| format!("{} {}", one.name, one.kind)).collect()
    }

    #[test]
    fn without_options_there_are_three_machines() {
        assert_eq!(kinds(&[], &[]), ["n1 x86_64 bios", "n2 x86_64 uefi", "n3 arm64 uefi"]);
    }

    #[test]
    fn options_choose_among_what_exists() {
        assert_eq!(kinds(&[Arch::Arm64], &[]), ["n1 arm64 uefi"]);
        assert_eq!(kinds(&[], &[FirmwareKind::Http]), ["n1 x86_64 http", "n2 arm64 http"]);
        assert_eq!(kinds(&[], &[FirmwareKind::Bios]), ["n1 x86_64 bios"]);
        assert!(machines(&[Arch::Arm64], &[FirmwareKind::Bios]).is_err());
    }
}
