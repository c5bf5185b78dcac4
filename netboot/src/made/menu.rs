//! What U-Boot and GRUB read: texts, made safe for the language of each.

use std::fmt::Write as _;
use std::net::SocketAddr;

use kiln_inventory::{BootPlan, Decision, Plan};
use kiln_ipxe::BootTicket;

/// How long a machine that waits stands still before it asks again, in seconds.
const WAIT: u32 = 10;

/// Returns the menu of U-Boot in PXELINUX's format. Its paths begin with a slash and its boot file has no folder, so
/// that they stay as they are. Without `FDT` it hands on the devicetree that it has.
pub(super) fn pxelinux(plan: &BootPlan, ticket: &BootTicket) -> String {
    let folder = folder(ticket);
    format!(
        "default kiln\nprompt 0\ntimeout 1\nlabel kiln\n  menu label {} {}\n  kernel {folder}/kernel\n  \
         initrd {folder}/initrd\n  append {}\n",
        plan.image,
        plan.version.short(),
        one_line(&plan.cmdline)
    )
}

/// Returns the script that U-Boot runs first, as text.
///
/// Addresses and the devicetree are those that its environment names: `kernel_addr_r`, `ramdisk_addr_r`, and
/// `fdt_addr` or else the one that U-Boot itself runs with. Files come by TFTP, or from this address by HTTP: there the
/// variable says the port to one kind of U-Boot, and the other kind (lwIP) takes a URL.
pub(super) fn uboot(
    decision: &Decision,
    ticket: Option<&BootTicket>,
    http: Option<SocketAddr>,
) -> String {
    let mut out = String::new();
    match (&decision.plan, ticket) {
        (Plan::Boot(plan), Some(ticket)) => {
            let folder = folder(ticket);
            let _ = writeln!(out, "echo 'Kiln: boots {} {}'", plan.image, plan.version.short());
            let _ = writeln!(out, "setenv bootargs '{}'", uboot_word(&plan.cmdline));
            out.push_str("setenv kiln_fdt ${fdtcontroladdr}\n");
            out.push_str("if test -n \"${fdt_addr}\"; then setenv kiln_fdt ${fdt_addr}; fi\n");
            let get = |to: &str, path: String| match http {
                None => format!("tftpboot ${{{to}}} {path}"),
                Some(at) => {
                    let ip = at.ip();
                    format!("wget ${{{to}}} {ip}:{path} || wget ${{{to}}} http://{at}{path}")
                }
            };
            if let Some(at) = http {
                let _ = writeln!(out, "setenv httpdstp {}", at.port());
            }
            let _ = writeln!(out, "if {}; then", get("kernel_addr_r", format!("{folder}/kernel")));
            let _ = writeln!(out, "if {}; then", get("ramdisk_addr_r", format!("{folder}/initrd")));
            out.push_str("booti ${kernel_addr_r} ${ramdisk_addr_r}:${filesize} ${kiln_fdt}\n");
            out.push_str("fi\nfi\necho 'Kiln: the image cannot be started'\n");
        }
        (Plan::Hold | Plan::Boot(_), _) => {
            for reason in &decision.reasons {
                let _ = writeln!(out, "echo '* {}'", uboot_word(&reason.to_string()));
            }
            let _ =
                writeln!(out, "echo 'Kiln: waits; asks again in {WAIT} s'\nsleep {WAIT}\nreset");
        }
        _ => {
            for reason in &decision.reasons {
                let _ = writeln!(out, "echo '* {}'", uboot_word(&reason.to_string()));
            }
        }
    }
    out
}

/// Returns the configuration of GRUB.
pub(super) fn grub(decision: &Decision, ticket: Option<&BootTicket>) -> String {
    let mut out = String::new();
    match (&decision.plan, ticket) {
        (Plan::Boot(plan), Some(ticket)) => {
            let folder = folder(ticket);
            let _ = writeln!(out, "echo 'Kiln: boots {} {}'", plan.image, plan.version.short());
            let arguments: Vec<String> = plan.cmdline.split_whitespace().map(grub_word).collect();
            let _ = writeln!(out, "linux {folder}/kernel {}", arguments.join(" "));
            let _ = writeln!(out, "initrd {folder}/initrd");
            out.push_str("boot\necho 'Kiln: the image cannot be started'\nsleep 10\nexit 1\n");
        }
        (Plan::Hold | Plan::Boot(_), _) => {
            said(&mut out, decision);
            let _ =
                writeln!(out, "echo 'Kiln: waits; asks again in {WAIT} s'\nsleep {WAIT}\nreboot");
        }
        _ => {
            said(&mut out, decision);
            out.push_str("sleep 5\nexit 1\n");
        }
    }
    out
}

fn said(out: &mut String, decision: &Decision) {
    for reason in &decision.reasons {
        let _ = writeln!(out, "echo {}", grub_word(&format!("* {reason}")));
    }
}

fn folder(ticket: &BootTicket) -> String {
    format!("/boot/{}/{}", ticket.boot, ticket.machine_key)
}

/// Returns a text without what would end its line.
pub(super) fn one_line(text: &str) -> String {
    text.split(|c: char| c.is_control()).collect::<Vec<_>>().join(" ")
}

/// Returns what may stand between single quotes in a script of U-Boot: it has no way to write a quote there, and takes
/// a variable apart wherever it stands in what is run later.
fn uboot_word(text: &str) -> String {
    one_line(text).chars().filter(|c| c.is_ascii() && !matches!(c, '\'' | '$' | '\\')).collect()
}

/// Returns a word of GRUB's script in single quotes, between which nothing but the quote has a meaning.
fn grub_word(text: &str) -> String {
    format!("'{}'", one_line(text).replace('\'', "'\\''"))
}

/// Wraps a script as U-Boot reads it: the header of its own image format, the lengths of the parts, the text
/// (`include/image.h` of U-Boot: legacy image, script for any processor).
pub(super) fn uimage_script(text: &str) -> Vec<u8> {
    let size = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    let mut data = Vec::with_capacity(text.len() + 8);
    data.extend(size(text.as_bytes()).to_be_bytes());
    data.extend([0; 4]);
    data.extend(text.as_bytes());
    let mut header = Vec::with_capacity(64 + data.len());
    for word in [0x2705_1956, 0, 0, size(&data), 0, 0, crc32(&data)] {
        header.extend(u32::to_be_bytes(word));
    }
    // Linux, arm64, a script, not compressed.
    header.extend([5, 22, 6, 0]);
    header.extend(*b"kiln\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0");
    let sum = crc32(&header).to_be_bytes();
    if let Some(place) = header.get_mut(4..8) {
        place.copy_from_slice(&sum);
    }
    header.extend(data);
    header
}

/// CRC-32 as IEEE 802.3 and zlib have it. Scripts are short, so a bit at a time will do.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[cfg(test)]
mod tests {
    use kiln_inventory::{Artifact, BootId, Loader, Reason};
    use kiln_types::{Arch, Digest};

    use super::*;

    fn plan(cmdline: &str) -> BootPlan {
        BootPlan {
            image: "web".parse().unwrap(),
            version: Digest::from_bytes([0xaa; 32]),
            arch: Arch::Arm64,
            kernel: Artifact {
                name: "kernel".to_owned(),
                digest: Digest::from_bytes([1; 32]),
                size: 1,
            },
            segments: Vec::new(),
            cmdline: cmdline.to_owned(),
        }
    }

    fn decision(plan: Plan) -> Decision {
        let reasons = vec![Reason::NoImage { machine: "n'1\n$x".to_owned() }];
        Decision { machine: None, settings: None, plan, loader: Loader::UBoot, reasons }
    }

    fn ticket() -> BootTicket {
        BootTicket { boot: BootId(7), machine_key: "c0ffee".to_owned() }
    }

    #[test]
    fn the_menu_names_kernel_and_one_initrd_and_no_devicetree() {
        assert_eq!(
            pxelinux(&plan("console=ttyAMA0\nquiet"), &ticket()),
            "default kiln
prompt 0
timeout 1
label kiln
  menu label web aaaaaaaaaaaa
  kernel /boot/7/c0ffee/kernel
  initrd /boot/7/c0ffee/initrd
  append console=ttyAMA0 quiet
"
        );
    }

    #[test]
    fn nothing_that_others_wrote_leaves_its_quotes() {
        let evil = "a'; reset; echo '${x}\n\\";
        let script = uboot(&decision(Plan::Boot(plan(evil))), Some(&ticket()), None);
        assert!(script.contains("setenv bootargs 'a; reset; echo {x} '\n"), "{script}");
        let script = uboot(&decision(Plan::Hold), None, None);
        assert!(script.starts_with("echo '* machine `n1 x` has no image"), "{script}");
        let config = grub(&decision(Plan::Boot(plan("a';reboot"))), Some(&ticket()));
        assert!(config.contains("linux /boot/7/c0ffee/kernel 'a'\\'';reboot'\n"), "{config}");
        for config in [grub(&decision(Plan::Hold), None), grub(&decision(Plan::Refuse), None)] {
            assert!(config.starts_with("echo '* machine `n'\\''1 $x` has no image"), "{config}");
        }
    }

    #[test]
    fn u_boot_that_came_by_http_goes_on_by_it() {
        let at = Some("10.0.0.1:8080".parse().unwrap());
        let script = uboot(&decision(Plan::Boot(plan("quiet"))), Some(&ticket()), at);
        let kernel = "setenv httpdstp 8080\n\
                      if wget ${kernel_addr_r} 10.0.0.1:/boot/7/c0ffee/kernel || \
                      wget ${kernel_addr_r} http://10.0.0.1:8080/boot/7/c0ffee/kernel; then\n";
        assert!(script.contains(kernel), "{script}");
        assert!(!script.contains("tftpboot"), "{script}");
        let script = uboot(&decision(Plan::Boot(plan("quiet"))), Some(&ticket()), None);
        let initrd = "if tftpboot ${ramdisk_addr_r} /boot/7/c0ffee/initrd; then\n";
        assert!(script.contains(initrd) && !script.contains("wget"), "{script}");
    }

    #[test]
    fn a_machine_that_waits_asks_again_and_one_that_is_refused_goes_on() {
        let end = |text: String| text.lines().last().unwrap_or_default().to_owned();
        assert_eq!(end(uboot(&decision(Plan::Hold), None, None)), "reset");
        assert!(end(uboot(&decision(Plan::Refuse), None, None)).starts_with("echo "));
        assert_eq!(end(grub(&decision(Plan::Hold), None)), "reboot");
        assert_eq!(end(grub(&decision(Plan::Refuse), None)), "exit 1");
    }

    #[test]
    fn a_script_is_wrapped_as_mkimage_does() {
        let image = uimage_script("echo hi\n");
        assert_eq!(image.len(), 64 + 8 + 8);
        assert_eq!(image[..4], [0x27, 0x05, 0x19, 0x56]);
        assert_eq!(image[12..16], [0, 0, 0, 16]);
        assert_eq!(image[28..32], [5, 22, 6, 0]);
        assert_eq!(&image[72..], b"echo hi\n");
        let mut header = image[..64].to_vec();
        let sum = header[4..8].to_vec();
        header[4..8].fill(0);
        assert_eq!(crc32(&header).to_be_bytes(), sum[..]);
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }
}
