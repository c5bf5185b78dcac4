use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use kiln_types::{Arch, Mac};

use super::firmware::{FirmwareImages, program};
use super::{BRIDGE, Console, FirmwareKind, Lab, LabError, MachineKind};

/// A virtual machine as it is to be.
#[derive(Clone, Debug)]
pub struct MachineConfig {
    /// Names its files.
    pub name: String,
    /// Architecture and firmware.
    pub kind: MachineKind,
    /// Hardware address of its network card.
    pub mac: Mac,
    /// Memory in megabytes.
    pub memory_mb: u32,
    /// Model of that card.
    pub card: Card,
    /// Bridge that its network card is on.
    pub bridge: String,
    /// What it boots from instead of the network.
    pub drive: Option<Drive>,
    /// UEFI variables with keys in them; the firmware then starts only what these keys have signed.
    pub secure_boot: Option<PathBuf>,
    /// Firmware of UEFI in the place of the installed one.
    pub uefi: Option<FirmwareImages>,
    /// A file that is all of its firmware, such as U-Boot, in the place of what its kind has.
    pub bios: Option<PathBuf>,
    /// Further arguments for qemu, such as devices.
    pub more: Vec<String>,
}

/// A model of network card that qemu has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Card {
    /// A card of virtual machines.
    #[default]
    Virtio,
    /// Intel's 82540EM, of 2002.
    E1000,
    /// Intel's 82574L, the same family on PCI Express.
    E1000e,
    /// Realtek's 8139, of 100 Mbit/s.
    Rtl8139,
}

impl Card {
    /// Returns qemu's name of it.
    pub const fn device(self) -> &'static str {
        match self {
            Self::Virtio => "virtio-net-pci",
            Self::E1000 => "e1000",
            Self::E1000e => "e1000e",
            Self::Rtl8139 => "rtl8139",
        }
    }
}

/// A drive with a file in it, which the machine cannot change.
#[derive(Clone, Debug)]
pub enum Drive {
    /// A disk.
    Disk(PathBuf),
    /// A CD.
    Cd(PathBuf),
}

impl MachineConfig {
    /// Describes a machine that boots from the network, with memory for the demonstration's image.
    pub fn new(name: impl Into<String>, kind: MachineKind, mac: Mac) -> Self {
        Self {
            name: name.into(),
            kind,
            mac,
            memory_mb: 640,
            card: Card::default(),
            bridge: BRIDGE.to_owned(),
            drive: None,
            secure_boot: None,
            uefi: None,
            bios: None,
            more: Vec::new(),
        }
    }
}

/// A running virtual machine, emulated by qemu without hardware help, so that it runs wherever Kiln does.
///
/// It is killed when this value is dropped, and also when the thread that started it ends.
#[derive(Debug)]
pub struct Machine {
    name: String,
    child: Child,
    console: Console,
    messages: Console,
}

impl Machine {
    /// Powers a machine on; it boots from the network.
    ///
    /// # Errors
    ///
    /// When qemu or the firmware is missing, or qemu cannot be run.
    pub fn start(lab: &mut Lab, config: &MachineConfig) -> Result<Self, LabError> {
        let setpriv = program("setpriv", "util-linux")?;
        let qemu = config.kind.qemu()?;
        let images = match (&config.secure_boot, &config.uefi, &config.bios) {
            (Some(variables), _, _) => Some(config.kind.secure_images(variables)?),
            (None, Some(images), _) => Some(images.clone()),
            (None, None, Some(_)) => None,
            (None, None, None) => config.kind.images()?,
        };
        let images = match images {
            Some(images) => Some(own_variables(lab.directory(), &config.name, images)?),
            None => None,
        };
        let port = lab.add_port(&config.bridge)?;
        let run = |source| LabError::Run { program: "qemu", source };
        let mut child = Command::new(setpriv)
            .args(["--pdeathsig", "KILL", "--"])
            .arg(qemu)
            .args(arguments(config, &port, images.as_ref()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(run)?;
        let consoles = child
            .stdout
            .take()
            .zip(child.stderr.take())
            .map(|(output, errors)| Ok((Console::follow(output)?, Console::follow(errors)?)));
        match consoles.unwrap_or_else(|| Err(std::io::ErrorKind::BrokenPipe.into())) {
            Ok((console, messages)) => {
                Ok(Self { name: config.name.clone(), child, console, messages })
            }
            Err(source) => {
                end(&mut child);
                Err(run(source))
            }
        }
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its serial console.
    pub const fn console(&self) -> &Console {
        &self.console
    }

    /// Returns what qemu itself has complained about.
    pub fn messages(&self) -> String {
        self.messages.tail(10)
    }

    /// Returns how qemu ended, if it has: the machine powered off or rebooted, or qemu refused its arguments.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Kills and reaps. Both fail only when the child is gone already.
fn end(child: &mut Child) {
    drop(child.kill());
    drop(child.wait());
}

/// Copies the firmware's variables, which a machine writes to.
fn own_variables(
    directory: &Path,
    name: &str,
    images: FirmwareImages,
) -> Result<FirmwareImages, LabError> {
    let path = directory.join(format!("{name}.vars"));
    // The contents alone: the template is read-only, the copy is not.
    let copy = || -> std::io::Result<()> {
        let mut template = fs::File::open(&images.variables)?;
        std::io::copy(&mut template, &mut fs::File::create(&path)?).map(drop)
    };
    copy().map_err(|source| LabError::Write { path: path.clone(), source })?;
    Ok(FirmwareImages { code: images.code, variables: path })
}

/// Returns qemu's arguments.
fn arguments(config: &MachineConfig, port: &str, images: Option<&FirmwareImages>) -> Vec<OsString> {
    let mut list: Vec<OsString> = Vec::new();
    let mut add = |items: &[&str]| list.extend(items.iter().map(OsString::from));
    add(&["-name", &config.name, "-accel", "tcg", "-m", &config.memory_mb.to_string()]);
    match config.kind.arch() {
        // Only code of the firmware's own mode may write to variables that Secure Boot trusts.
        Arch::X86_64 if config.secure_boot.is_some() => {
            add(&["-M", "q35,smm=on", "-global", "driver=cfi.pflash01,property=secure,value=on"])
        }
        Arch::X86_64 => add(&["-M", "q35"]),
        Arch::Arm64 => add(&["-M", "virt", "-cpu", arm64_cpu(images)]),
    }
    // `-nodefaults`: no disk drives for the firmware to try first.
    add(&["-nodefaults", "-nographic", "-serial", "stdio", "-monitor", "none", "-no-reboot"]);
    // EDK2 has no network without a source of random numbers.
    add(&["-device", "virtio-rng-pci"]);
    add(&["-netdev", &format!("tap,id=net0,ifname={port},script=no,downscript=no")]);
    // UEFI brings its own driver for virtio, and the option ROM, which is iPXE, would come in its way. For other cards
    // the ROM is the driver, as it is on real ones.
    let own = (images.is_some() || config.bios.is_some()) && config.card == Card::Virtio;
    let rom = if own { ",romfile=" } else { "" };
    // From a drive or from the network, and never from the other when the one fails.
    let first = if config.drive.is_some() { "" } else { ",bootindex=0" };
    let card = config.card.device();
    add(&["-device", &format!("{card},netdev=net0,mac={}{first}{rom}", config.mac)]);
    if let Some(drive) = &config.drive {
        let (path, device) = match drive {
            Drive::Disk(path) => (path, "virtio-blk-pci"),
            Drive::Cd(path) => (path, "ide-cd"),
        };
        let path = escaped(path);
        add(&["-drive", &format!("if=none,id=drive0,format=raw,readonly=on,file={path}")]);
        add(&["-device", &format!("{device},drive=drive0,bootindex=0")]);
    }
    if config.kind.firmware() == FirmwareKind::Http {
        for version in ["IPv4", "IPv6"] {
            add(&["-fw_cfg", &format!("name=opt/org.tianocore/{version}PXESupport,string=n")]);
        }
    }
    if let Some(bios) = &config.bios {
        add(&["-bios", &bios.display().to_string()]);
    }
    if let Some(images) = images {
        for (unit, path, mode) in [(0, &images.code, ",readonly=on"), (1, &images.variables, "")] {
            let path = escaped(path);
            add(&["-drive", &format!("if=pflash,format=raw,unit={unit}{mode},file={path}")]);
        }
    }
    list.extend(config.more.iter().map(OsString::from));
    list
}

/// The firmware of Debian 13, the first that has a file of this name, has no network unless the processor itself makes
/// random numbers, which of qemu's models only the newest do. Its pointer authentication in full would take half of the
/// time.
fn arm64_cpu(images: Option<&FirmwareImages>) -> &'static str {
    let new = images.is_some_and(|images| images.code.ends_with("AAVMF_CODE.no-secboot.fd"));
    if new { "max,pauth-impdef=on" } else { "cortex-a72" }
}

/// A comma in a value of qemu's options is written twice.
fn escaped(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(arch: Arch, firmware: FirmwareKind) -> String {
        line_with(arch, firmware, |_| ())
    }

    fn line_with(
        arch: Arch,
        firmware: FirmwareKind,
        change: impl FnOnce(&mut MachineConfig),
    ) -> String {
        let mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
        let mut config = MachineConfig::new("n1", MachineKind::new(arch, firmware).unwrap(), mac);
        change(&mut config);
        let images = (firmware != FirmwareKind::Bios)
            .then(|| FirmwareImages { code: "/code.fd".into(), variables: "/a,b.vars".into() });
        let arguments = arguments(&config, "kt0", images.as_ref());
        arguments.iter().map(|text| text.to_str().unwrap()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_bios_keeps_the_option_rom_of_the_card() {
        let line = line(Arch::X86_64, FirmwareKind::Bios);
        assert!(line.contains("mac=52:54:00:77:00:01,bootindex=0") && !line.contains("romfile"));
        assert!(!line.contains("pflash"));
    }

    #[test]
    fn uefi_has_its_own_variables_and_no_option_rom() {
        let line = line(Arch::Arm64, FirmwareKind::Uefi);
        assert!(line.contains("-M virt -cpu cortex-a72") && line.contains("romfile="));
        assert!(line.contains("unit=0,readonly=on,file=/code.fd"));
        assert!(line.contains("unit=1,file=/a,,b.vars"));
        assert!(!line.contains("fw_cfg"));
    }

    #[test]
    fn a_card_that_uefi_has_no_driver_for_keeps_its_rom() {
        for (card, device) in
            [(Card::E1000e, "-device e1000e,"), (Card::Rtl8139, "-device rtl8139,")]
        {
            let line = line_with(Arch::X86_64, FirmwareKind::Uefi, |config| config.card = card);
            assert!(line.contains(device) && !line.contains("romfile"), "{line}");
        }
    }

    #[test]
    fn firmware_that_wants_random_numbers_has_a_processor_with_them() {
        let code = |name: &str| FirmwareImages { code: name.into(), variables: "/vars".into() };
        assert_eq!(arm64_cpu(Some(&code("/a/AAVMF_CODE.fd"))), "cortex-a72");
        assert!(arm64_cpu(Some(&code("/a/AAVMF_CODE.no-secboot.fd"))).starts_with("max,"));
        assert_eq!(arm64_cpu(None), "cortex-a72");
    }

    #[test]
    fn a_drive_comes_in_the_place_of_the_network() {
        let line = line_with(Arch::X86_64, FirmwareKind::Uefi, |config| {
            config.drive = Some(Drive::Cd("/a,b.iso".into()));
            config.secure_boot = Some("/keys.vars".into());
        });
        assert!(
            line.contains("readonly=on,file=/a,,b.iso -device ide-cd,drive=drive0,bootindex=0")
        );
        assert_eq!(line.matches("bootindex").count(), 1);
        assert!(line.contains("-M q35,smm=on "));
    }

    #[test]
    fn a_firmware_of_its_own_needs_no_variables_and_no_option_rom() {
        let mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
        let kind = MachineKind::new(Arch::Arm64, FirmwareKind::Uefi).unwrap();
        let mut config = MachineConfig::new("n1", kind, mac);
        config.bios = Some("/u-boot.bin".into());
        let arguments = arguments(&config, "kt0", None);
        let line: Vec<_> = arguments.iter().map(|text| text.to_str().unwrap()).collect();
        let line = line.join(" ");
        assert!(line.contains(" -bios /u-boot.bin") && line.contains("romfile="), "{line}");
        assert!(!line.contains("pflash"), "{line}");
    }

    #[test]
    fn http_boot_is_uefi_without_pxe() {
        let line = line(Arch::X86_64, FirmwareKind::Http);
        assert!(line.contains("opt/org.tianocore/IPv4PXESupport,string=n"));
    }
}
