//! What the boot program of a Raspberry Pi reads: its settings and the kernel's arguments.
//!
//! It asks for its files one by one, each with its serial number or its hardware address in front, and takes a file
//! that is not there for one that it does not need. So a machine that is to wait or to boot from its disk finds none.

use kiln_builder::output::Plan as FilePlan;
use kiln_builder::output::fat::{self, FatError};
use kiln_inventory::{BootId, BootPlan};
use kiln_ipxe::BootTicket;

use super::menu::one_line;

/// What is made of a boot, by the name of the file.
pub(super) fn text(file: &str, plan: &BootPlan, ticket: &BootTicket) -> Option<String> {
    match file {
        "config.txt" => Some(config(ticket)),
        "cmdline.txt" => Some(format!("{}\n", one_line(&plan.cmdline))),
        _ => None,
    }
}

/// Returns its settings. Kernel and initrd are read below the same folder as everything else.
fn config(ticket: &BootTicket) -> String {
    let folder = format!("boot/{}/{}", ticket.boot, ticket.machine_key);
    settings(&format!("{folder}/kernel"), &format!("{folder}/initrd"))
}

/// U-Boot, as the settings name it.
pub(super) const U_BOOT: &str = "u-boot.bin";
/// The settings with which the board starts it. It finds the devicetree that the firmware has read.
pub(super) const U_BOOT_SETTINGS: &str =
    "arm_64bit=1\nenable_uart=1\nos_check=0\nkernel=u-boot.bin\n";

fn settings(kernel: &str, initrd: &str) -> String {
    format!(
        "arm_64bit=1\nenable_uart=1\nos_check=0\nkernel={kernel}\ninitramfs {initrd} followkernel\n"
    )
}

/// What all files of a boot are made of.
pub(super) struct Parts {
    /// What comes with the board, by path.
    pub(super) firmware: Vec<(String, Vec<u8>)>,
    pub(super) kernel: FilePlan,
    pub(super) initrd: FilePlan,
}

/// Returns `boot.img`: all files of a boot in a file system of their own, which the boot program fetches by HTTP.
pub(super) fn image(parts: Parts, plan: &BootPlan, boot: BootId) -> Result<FilePlan, FatError> {
    let bytes = |bytes: Vec<u8>| {
        let mut plan = FilePlan::default();
        plan.push_bytes(bytes);
        plan
    };
    let cmdline = format!("{}\n", one_line(&plan.cmdline)).into_bytes();
    let mut files = vec![
        ("config.txt".to_owned(), bytes(settings("kernel8.img", "initrd").into_bytes())),
        ("cmdline.txt".to_owned(), bytes(cmdline)),
        ("kernel8.img".to_owned(), parts.kernel),
        ("initrd".to_owned(), parts.initrd),
    ];
    files.extend(parts.firmware.into_iter().map(|(path, content)| (path, bytes(content))));
    let files: Vec<_> = files.iter().map(|(path, plan)| (path.as_str(), plan.clone())).collect();
    let size = fat::size_for(files.iter().map(|(_, plan)| plan.len()).sum());
    // Nothing but a number that no other boot has.
    let id = u32::try_from(boot.0 & 0x7fff_ffff).unwrap_or_default();
    fat::plan(&fat::Volume { label: "BOOT", id, size, hidden_sectors: 0 }, &files)
}

#[cfg(test)]
mod tests {
    use kiln_inventory::Artifact;
    use kiln_types::{Arch, Digest};

    use super::*;

    #[test]
    fn settings_and_arguments_are_those_of_the_boot() {
        let plan = BootPlan {
            image: "web".parse().unwrap(),
            version: Digest::from_bytes([1; 32]),
            arch: Arch::Arm64,
            kernel: Artifact {
                name: "kernel".to_owned(),
                digest: Digest::from_bytes([1; 32]),
                size: 1,
            },
            segments: Vec::new(),
            cmdline: "console=ttyS0\nquiet".to_owned(),
        };
        let ticket = BootTicket { boot: BootId(7), machine_key: "c0ffee".to_owned() };
        let text = |file| text(file, &plan, &ticket);
        assert_eq!(text("cmdline.txt").as_deref(), Some("console=ttyS0 quiet\n"));
        let config = text("config.txt").unwrap();
        assert!(config.contains("\nkernel=boot/7/c0ffee/kernel\n"), "{config}");
        assert!(config.contains("\ninitramfs boot/7/c0ffee/initrd followkernel\n"), "{config}");
        assert_eq!(text("start4.elf"), None);
    }
}
