//! The box and its firmware.

use kiln_types::facts::{CpuFacts, FirmwareFacts, SystemFacts};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use super::smbios::{self, Tables};
use super::tree::Tree;

/// The largest tables of real machines are a tenth of this.
const LARGEST_TABLES: u64 = 256 << 10;
const TABLES: &str = "sys/firmware/dmi/tables";
const DEVICE_TREE: &str = "sys/firmware/devicetree/base";
const VARIABLES: &str = "sys/firmware/efi/efivars";
/// The vendor of variables that UEFI itself defines.
const GLOBAL: &str = "8be4df61-93ca-11d2-aa0d-00e098032b8c";

/// Reads what PC firmware says, or the device tree where there is no such firmware.
pub(super) fn tables(tree: &Tree) -> Tables {
    let entry = tree.bytes(&format!("{TABLES}/smbios_entry_point"), 64).unwrap_or_default();
    let mut tables = match tree.bytes(&format!("{TABLES}/DMI"), LARGEST_TABLES) {
        Some(table) => smbios::parse(&table, smbios::version(&entry)),
        None => by_class(tree),
    };
    if tables == Tables::default() {
        let at = |file: &str| tree.text(&format!("{DEVICE_TREE}/{file}"));
        tables.system.product = at("model");
        tables.system.serial = at("serial-number");
    }
    tables
}

/// The same by the kernel's own reading, where the tables themselves are not shown.
fn by_class(tree: &Tree) -> Tables {
    let at = |file: &str| tree.text(&format!("sys/class/dmi/id/{file}"));
    Tables {
        system: SystemFacts {
            vendor: at("sys_vendor"),
            product: at("product_name"),
            version: at("product_version"),
            serial: at("product_serial"),
            uuid: at("product_uuid"),
            sku: at("product_sku"),
            asset_tag: at("chassis_asset_tag"),
            board: format!("{} {}", at("board_vendor"), at("board_name")).trim().to_owned(),
        },
        firmware: FirmwareFacts {
            vendor: at("bios_vendor"),
            version: at("bios_version"),
            date: at("bios_date"),
            ..FirmwareFacts::default()
        },
        ..Tables::default()
    }
}

/// Completes what the tables say of the firmware.
pub(super) fn firmware(tree: &Tree, told: FirmwareFacts) -> FirmwareFacts {
    let kind = if tree.exists("sys/firmware/efi") {
        "uefi"
    } else if tree.exists(&format!("{DEVICE_TREE}/compatible")) {
        "device-tree"
    } else {
        "bios"
    };
    let secure_boot = if kind == "uefi" { secure_boot(tree) } else { "" };
    FirmwareFacts {
        kind: kind.to_owned(),
        secure_boot: secure_boot.to_owned(),
        tpm: tpm(tree),
        ..told
    }
}

/// Asks the firmware's variables. They are shown for that moment only: nothing on the machine has a use for them.
fn secure_boot(tree: &Tree) -> &'static str {
    let variable = |name: &str| tree.bytes(&format!("{VARIABLES}/{name}-{GLOBAL}"), 16);
    let (mut state, mut setup) = (variable("SecureBoot"), variable("SetupMode"));
    if state.is_none() {
        let place = tree.path(VARIABLES);
        let flags =
            MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let kind = Some("efivarfs");
        if mount(kind, &place, kind, flags, None::<&str>).is_ok() {
            (state, setup) = (variable("SecureBoot"), variable("SetupMode"));
            let _ = umount2(&place, MntFlags::MNT_DETACH);
        }
    }
    state_of(state.as_deref(), setup.as_deref())
}

/// A variable has four bytes of attributes, then its value.
fn state_of(secure_boot: Option<&[u8]>, setup_mode: Option<&[u8]>) -> &'static str {
    let value = |bytes: Option<&[u8]>| bytes.and_then(|bytes| bytes.get(4).copied());
    match (value(secure_boot), value(setup_mode)) {
        (Some(1), _) => "enabled",
        (Some(_), Some(1)) => "setup",
        (Some(_), _) => "disabled",
        (None, _) => "",
    }
}

fn tpm(tree: &Tree) -> String {
    let version = tree.text("sys/class/tpm/tpm0/tpm_version_major");
    if !version.is_empty() {
        return version;
    }
    let known = ["sys/class/tpm/tpm0", "sys/firmware/acpi/tables/TPM2"];
    if known.iter().any(|path| tree.exists(path)) { "yes".to_owned() } else { String::new() }
}

/// Says what the machine runs on when it is no box of its own.
pub(super) fn virtualization(tree: &Tree, system: &SystemFacts, cpu: &CpuFacts) -> String {
    let hypervisor = tree.text("sys/hypervisor/type");
    if !hypervisor.is_empty() {
        return hypervisor;
    }
    let compatible = tree.text(&format!("{DEVICE_TREE}/compatible"));
    // Whoever wrote the ACPI tables has six letters in each, from the tenth byte on.
    let table = tree.bytes("sys/firmware/acpi/tables/FACP", 16).unwrap_or_default();
    let acpi = String::from_utf8_lossy(table.get(10..).unwrap_or_default());
    let names = [&system.vendor, &system.product, &compatible, &cpu.model, acpi.as_ref()].join(" ");
    for (mark, name) in [
        ("QEMU", "qemu"),
        ("BOCHS", "qemu"),
        ("KVM", "kvm"),
        ("VMware", "vmware"),
        ("VirtualBox", "virtualbox"),
        ("Amazon EC2", "amazon"),
        ("Google Compute", "google"),
        ("Xen", "xen"),
        ("Microsoft Corporation Virtual", "microsoft"),
        ("VRTUAL", "microsoft"),
        ("linux,dummy-virt", "qemu"),
    ] {
        if names.contains(mark) {
            return name.to_owned();
        }
    }
    let guest = cpu.flags.iter().any(|flag| flag == "hypervisor");
    if guest { "yes".to_owned() } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Fake;
    use super::*;

    #[test]
    fn the_state_of_secure_boot_is_that_of_both_variables() {
        let (on, off): (&[u8], &[u8]) = (&[6, 0, 0, 0, 1], &[6, 0, 0, 0, 0]);
        for (state, setup, expected) in [
            (Some(on), Some(off), "enabled"),
            (Some(off), Some(off), "disabled"),
            (Some(off), None, "disabled"),
            (Some(off), Some(on), "setup"),
            (Some(&on[..3]), Some(on), ""),
            (None, None, ""),
        ] {
            assert_eq!(state_of(state, setup), expected);
        }
    }

    #[test]
    fn a_board_without_tables_is_named_by_its_device_tree() {
        let fake = Fake::new("firmware");
        fake.file("sys/firmware/devicetree/base/model", "Board 4\0");
        fake.file("sys/firmware/devicetree/base/serial-number", "10000000abcd\0");
        fake.file("sys/firmware/devicetree/base/compatible", "linux,dummy-virt\0more\0");
        let tables = tables(&fake.tree());
        assert_eq!(tables.system.product, "Board 4");
        assert_eq!(tables.system.serial, "10000000abcd");
        assert_eq!(firmware(&fake.tree(), tables.firmware).kind, "device-tree");
        assert_eq!(virtualization(&fake.tree(), &tables.system, &CpuFacts::default()), "qemu");
    }

    #[test]
    fn the_kernels_reading_stands_in_for_tables_that_are_not_shown() {
        let fake = Fake::new("class");
        fake.file("sys/class/dmi/id/sys_vendor", "ACME\n");
        fake.file("sys/class/dmi/id/bios_version", "1.2\n");
        fake.file("sys/class/tpm/tpm0/tpm_version_major", "2\n");
        let tables = tables(&fake.tree());
        assert_eq!(tables.system.vendor, "ACME");
        let firmware = firmware(&fake.tree(), tables.firmware);
        assert_eq!((firmware.kind.as_str(), firmware.version.as_str()), ("bios", "1.2"));
        assert_eq!(firmware.tpm, "2");
        fake.file("sys/firmware/acpi/tables/FACP", "FACP\u{14}\u{1}\0\0\u{3}\u{1}BOCHS BXPC");
        assert_eq!(virtualization(&fake.tree(), &tables.system, &CpuFacts::default()), "qemu");
    }
}
