//! What a machine says about itself: one set of types for kiln-init, which writes them, and the server, which reads
//! them.
//!
//! Everything may be missing, and unknown keys are passed over, so that either side may be newer. What was read from
//! somebody else goes through [`Facts::bounded`] before it is kept.

use serde::{Deserialize, Serialize};

/// The most of each list.
const DISKS: usize = 256;
const NICS: usize = 128;
const MEMORY_MODULES: usize = 256;
const FLAGS: usize = 64;
/// The most characters of one text.
const TEXT: usize = 256;

/// What a machine is made of.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct Facts {
    /// The box, as its firmware names it.
    pub system: SystemFacts,
    /// What started it.
    pub firmware: FirmwareFacts,
    /// Its processors.
    pub cpu: CpuFacts,
    /// Its memory.
    pub memory: MemoryFacts,
    /// Disks and drives.
    pub disks: Vec<DiskFacts>,
    /// Network cards.
    pub nics: Vec<NicFacts>,
    /// Release of the kernel that runs.
    pub kernel: String,
    /// What it runs on when it is no box of its own: `qemu`, `vmware`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub virtualization: String,
}

/// The box, by SMBIOS or the device tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct SystemFacts {
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// The product.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub product: String,
    /// Version of the product.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Serial number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// UUID in the order that people read it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uuid: String,
    /// Number to order it by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub sku: String,
    /// Asset tag of the chassis.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub asset_tag: String,
    /// Mainboard: maker and product.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub board: String,
}

/// The firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct FirmwareFacts {
    /// `uefi`, `bios`, or `device-tree` where there is neither.
    pub kind: String,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// Version.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Date of the version, as it writes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub date: String,
    /// `enabled`, `disabled`, or `setup` where no keys are enrolled; nothing where it is not known.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub secure_boot: String,
    /// Version of the TPM, or `yes`; nothing where there is none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tpm: String,
}

/// The processors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct CpuFacts {
    /// Name of the model.
    pub model: String,
    /// Architecture as the kernel names it.
    pub arch: String,
    /// Packages.
    pub sockets: u32,
    /// Cores of all packages.
    pub cores: u32,
    /// Threads of all cores.
    pub threads: u32,
    /// What they can do that matters to programs.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub flags: Vec<String>,
}

/// The memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MemoryFacts {
    /// Bytes that the kernel has.
    pub total: u64,
    /// The modules in their slots, where the firmware says.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub modules: Vec<MemoryModule>,
}

/// One memory module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct MemoryModule {
    /// Where it is.
    pub slot: String,
    /// Bytes.
    pub size: u64,
    /// `DDR4`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// Transfers a second, in millions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// Who made it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub vendor: String,
    /// Number to order it by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub part: String,
    /// Serial number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
}

/// One disk or drive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct DiskFacts {
    /// Name in `/dev`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Model.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub model: String,
    /// Serial number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serial: String,
    /// World-wide name, as the kernel writes it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub wwn: String,
    /// `sata`, `nvme`, `virtio`, `usb`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub transport: String,
    /// Whether it turns.
    pub rotational: bool,
    /// Whether its medium can be taken out.
    pub removable: bool,
}

/// One network card.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct NicFacts {
    /// Name of the interface.
    pub name: String,
    /// Hardware address it uses.
    pub mac: String,
    /// Hardware address it was made with.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub permanent_mac: String,
    /// Driver.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Megabits a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speed: Option<u32>,
    /// Whether something is at the other end of its cable.
    pub carrier: bool,
    /// Whether the interface is switched off in the system, so that nobody knows what is at the other end.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub down: bool,
    /// `VENDOR:DEVICE` of the PCI card.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pci: String,
    /// Where it is on the bus.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub bus: String,
    /// The port of the switch it is plugged into.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub switch: Option<SwitchPort>,
}

/// What a switch says of a port, by LLDP.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default)]
pub struct SwitchPort {
    /// Identity of the switch, mostly a hardware address.
    pub chassis: String,
    /// Identity of the port.
    pub port: String,
    /// What the port is called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Name of the switch.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub system: String,
    /// Number of the VLAN of what is not tagged.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vlan: Option<u16>,
}

impl Facts {
    /// Cuts what is longer than any machine has, and takes out control characters.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        self.disks.truncate(DISKS);
        self.nics.truncate(NICS);
        self.memory.modules.truncate(MEMORY_MODULES);
        self.cpu.flags.truncate(FLAGS);
        let Self { system, firmware, cpu, memory, disks, nics, kernel, virtualization } = &mut self;
        let mut texts = vec![kernel, virtualization, &mut cpu.model, &mut cpu.arch];
        texts.extend(&mut cpu.flags);
        let SystemFacts { vendor, product, version, serial, uuid, sku, asset_tag, board } = system;
        texts.extend([vendor, product, version, serial, uuid, sku, asset_tag, board]);
        let FirmwareFacts { kind, vendor, version, date, secure_boot, tpm } = firmware;
        texts.extend([kind, vendor, version, date, secure_boot, tpm]);
        for module in &mut memory.modules {
            let MemoryModule { slot, kind, vendor, part, serial, .. } = module;
            texts.extend([slot, kind, vendor, part, serial]);
        }
        for disk in disks {
            let DiskFacts { name, model, serial, wwn, transport, .. } = disk;
            texts.extend([name, model, serial, wwn, transport]);
        }
        for nic in nics {
            let NicFacts { name, mac, permanent_mac, driver, pci, bus, switch, .. } = nic;
            texts.extend([name, mac, permanent_mac, driver, pci, bus]);
            if let Some(SwitchPort { chassis, port, description, system, .. }) = switch {
                texts.extend([chassis, port, description, system]);
            }
        }
        for text in texts {
            *text = line(text);
        }
        self
    }
}

/// Returns a text as one line of bounded length.
pub fn line(text: &str) -> String {
    let plain = text.chars().filter(|c| !is_hidden(*c));
    let cut: String = plain.take(TEXT).collect();
    cut.trim().to_owned()
}

/// Returns whether a character cannot be seen, stands for what cannot be read, or changes how others are shown.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fffd}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_texts_are_bounded_and_control_characters_go() {
        let hostile = "a\u{1b}]0;x\u{7}\r\n".repeat(1000);
        let nic = NicFacts {
            name: hostile.clone(),
            switch: Some(SwitchPort { system: hostile.clone(), ..SwitchPort::default() }),
            ..NicFacts::default()
        };
        let facts = Facts {
            kernel: hostile.clone(),
            system: SystemFacts { serial: hostile.clone(), ..SystemFacts::default() },
            disks: vec![DiskFacts { model: hostile.clone(), ..DiskFacts::default() }; 5000],
            nics: vec![nic; 5000],
            cpu: CpuFacts { flags: vec![hostile; 5000], ..CpuFacts::default() },
            ..Facts::default()
        };
        let bounded = facts.bounded();
        assert_eq!(
            (bounded.disks.len(), bounded.nics.len(), bounded.cpu.flags.len()),
            (256, 128, 64)
        );
        let switch = bounded.nics[0].switch.as_ref().unwrap();
        for text in
            [&bounded.kernel, &bounded.system.serial, &bounded.disks[9].model, &switch.system]
        {
            assert_eq!(text.chars().count(), TEXT);
            assert!(text.starts_with("a]0;xa]0;x"), "{text}");
        }
    }
}
