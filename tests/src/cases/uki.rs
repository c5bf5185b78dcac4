//! Files that UEFI boots by itself: unified kernel images, CDs and disks, signed and not.

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use kiln::lab::{ADDRESS, Drive, FirmwareKind, Lab, Machine, MachineConfig, MachineKind};
use kiln_builder::Store;
use kiln_builder::manifest::Manifest;
use kiln_builder::output::secure_boot::create_key;
use kiln_builder::output::sign::{KeyFile, sign};
use kiln_builder::output::{self, Bootable, EfiSettings, Format, Options, Plan, Signing, Stub};
use kiln_types::{Arch, Mac};
use tempfile::TempDir;

use crate::rig::{Case, Dnsmasq, Need, PlanServer, Scene, image, store, stub};

const DNSMASQ: Need = Need::Tool("dnsmasq", "dnsmasq-base");
const SBVERIFY: Need = Need::Tool("sbverify", "sbsigntool");
pub(super) const FW_VARS: Need = Need::Tool("virt-fw-vars", "python3-virt-firmware");
const XORRISO: Need = Need::Tool("xorriso", "xorriso");
const MTOOLS: Need = Need::Tool("mdir", "mtools");
const QEMU_IMG: Need = Need::Tool("qemu-img", "qemu-utils");
const FSCK: Need = Need::Tool("fsck.fat", "dosfstools");
const SGDISK: Need = Need::Tool("sgdisk", "gdisk");
const OPENSSL: Need = Need::Tool("openssl", "openssl");

const MAC: Mac = Mac::new([0x52, 0x54, 0, 0x77, 0, 1]);
/// Firmware, stub and kernel each have a copy of the image for a while.
const MEMORY_MB: u32 = 1024;
/// What kiln-init says when all services are up.
const HEALTHY: &str = "kiln-init: healthy";

pub(super) fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for arch in [Arch::Arm64, Arch::X86_64] {
        let kind = |firmware| MachineKind::new(arch, firmware).ok();
        let (Some(http), Some(disk)) = (kind(FirmwareKind::Http), kind(FirmwareKind::Uefi)) else {
            continue;
        };
        let needs = [Need::Root, Need::Machine(http), Need::KilnInit(arch), DNSMASQ];
        let mut add =
            |name: &str, needs: &[Need], run: Box<dyn FnOnce() -> anyhow::Result<()> + Send>| {
                cases.push(Case::new(format!("uki::{arch}_{name}"), needs, run));
            };
        add("boots_by_http", &needs, Box::new(move || http_boot(http)));
        let boot = |format| Box::new(move || drive_boot(disk, format));
        add("disk_boots", &needs[..3], boot(Format::RawEfi));
        if arch == Arch::X86_64 {
            add("cd_boots", &needs[..3], boot(Format::IsoEfi));
        }
        let keys = [Need::Root, Need::Machine(disk), Need::KilnInit(arch), FW_VARS];
        let signed = |altered| Box::new(move || secure_boot(disk, altered));
        add("signed_boots_with_secure_boot", &keys, signed(false));
        add("altered_is_refused_with_secure_boot", &keys, signed(true));
        let tools = [SBVERIFY, XORRISO, MTOOLS, QEMU_IMG, FSCK, SGDISK, OPENSSL];
        let needs = [&[Need::KilnInit(arch)], &tools[..]].concat();
        add("files_hold_before_other_tools", &needs, Box::new(move || other_tools(arch)));
    }
    cases
}

/// A version of the demonstration's image, and what turns it into files.
struct Built {
    store: Store,
    manifest: Manifest,
    stub: Stub,
    dir: TempDir,
}

impl Built {
    /// Needs the host's network.
    fn new(arch: Arch) -> anyhow::Result<Self> {
        let image = image(arch)?;
        let stub = stub(arch)?;
        let store = Store::open(store())?;
        let index = store.index()?;
        let entry = index.images.get(image.name()).and_then(|arches| arches.get(&arch));
        let version = entry.and_then(|entry| entry.versions.first()).context("it is not built")?;
        let manifest = store.manifest(&version.digest)?;
        Ok(Self { store, manifest, stub, dir: tempfile::tempdir()? })
    }

    fn bootable(&self) -> Bootable<'_> {
        let cmdline = &self.manifest.cmdline;
        Bootable { manifest: &self.manifest, store: &self.store, cmdline }
    }

    fn program(&self) -> anyhow::Result<Plan> {
        Ok(output::plan(Format::Uki, &self.bootable(), &Options::new(&self.stub))?)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Makes a key for Secure Boot.
    fn key(&self) -> anyhow::Result<KeyFile> {
        let key = create_key("Kiln test")?;
        std::fs::write(self.path("key.pem"), &key.key_pem)?;
        std::fs::write(self.path("cert.pem"), &key.certificate_pem)?;
        Ok(KeyFile::read(&self.path("key.pem"), &self.path("cert.pem"))?)
    }

    fn machine(&self, kind: MachineKind) -> MachineConfig {
        let mut config = MachineConfig::new("n1", kind, MAC);
        config.memory_mb = MEMORY_MB;
        config
    }
}

fn http_boot(kind: MachineKind) -> anyhow::Result<()> {
    let built = Built::new(kind.arch())?;
    let program = built.program()?;
    let mut lab = Lab::enter(built.dir.path())?;
    let _server = PlanServer::start((ADDRESS, 8080).into(), program, built.store.clone())?;
    let _dhcp = Dnsmasq::start(built.dir.path(), &format!("http://{ADDRESS}:8080/demo.efi"))?;
    let machine = Machine::start(&mut lab, &built.machine(kind))?;
    shows(&machine, HEALTHY)?;
    // The stub leaves no doubt which way the kernel came.
    let text = machine.console().text();
    ensure!(!text.contains("iPXE"), "a loader was in between:\n{text}");
    Ok(())
}

fn drive_boot(kind: MachineKind, format: Format) -> anyhow::Result<()> {
    let built = Built::new(kind.arch())?;
    let path =
        output::write(format, &built.bootable(), &Options::new(&built.stub), built.dir.path())?;
    let mut config = built.machine(kind);
    config.drive = Some(match format {
        Format::IsoEfi => Drive::Cd(path),
        _ => Drive::Disk(path),
    });
    let mut lab = Lab::enter(built.dir.path())?;
    shows(&Machine::start(&mut lab, &config)?, HEALTHY)
}

/// A signed CD image on a disk, which shows also that it boots from a stick.
fn secure_boot(kind: MachineKind, altered: bool) -> anyhow::Result<()> {
    let built = Built::new(kind.arch())?;
    let key = built.key()?;
    let options = Options { signer: Some(&key), ..Options::new(&built.stub) };
    let path = output::write(Format::IsoEfi, &built.bootable(), &options, built.dir.path())?;
    if altered {
        // The middle of the file is the middle of the initrd.
        let file = File::options().read(true).write(true).open(&path)?;
        let (mut byte, at) = ([0], file.metadata()?.len() / 2);
        file.read_exact_at(&mut byte, at)?;
        file.write_all_at(&[byte[0] ^ 1], at)?;
    }
    let variables = enrolled(kind.arch(), &built.path("cert.pem"), built.dir.path())?;

    let mut config = built.machine(kind);
    config.drive = Some(Drive::Disk(path));
    config.secure_boot = Some(variables);
    let mut lab = Lab::enter(built.dir.path())?;
    let machine = Machine::start(&mut lab, &config)?;
    if !altered {
        shows(&machine, HEALTHY)?;
        let text = machine.console().text();
        // The kernel says it, on arm64 its EFI stub.
        let said = ["secureboot: Secure boot enabled", "UEFI Secure Boot is enabled"];
        ensure!(said.iter().any(|it| text.contains(it)), "it was not checked:\n{text}");
        return Ok(());
    }
    shows(&machine, "Access Denied")?;
    let text = machine.console().text();
    ensure!(!text.contains("Linux version"), "a kernel was started:\n{text}");
    Ok(())
}

fn other_tools(arch: Arch) -> anyhow::Result<()> {
    let built = Built::new(arch)?;
    let (bootable, dir) = (built.bootable(), built.dir.path());
    let key = built.key()?;
    let certificate = built.path("cert.pem");
    let verify = |path: &Path| {
        run("sbverify", &["--cert".as_ref(), certificate.as_os_str(), path.as_os_str()])
    };

    // The stub alone, and all of it.
    let mut bare = Plan::default();
    bare.push_bytes(built.stub.bytes().to_vec());
    let mut file = File::create(built.path("stub.efi"))?;
    sign(&bare, &built.store, &key)?.write_sparse(&built.store, &mut file)?;
    let said = verify(&built.path("stub.efi"))?;
    ensure!(said.contains("Signature verification OK"), "sbverify said {said}");
    let options = Options { signer: Some(&key), ..Options::new(&built.stub) };
    let path = output::write(Format::Uki, &bootable, &options, dir)?;
    let said = verify(&path)?;
    ensure!(!said.contains("warning"), "sbverify said {said}");
    // The same by a command, as for a key in a hardware module.
    let command = format!("openssl dgst -sha256 -sign {}", built.path("key.pem").display()).into();
    let signing = Signing::Command { command, certificate: certificate.clone() };
    let signer = EfiSettings { signing: Some(signing), ..EfiSettings::default() }.signer()?;
    let by_command = Options { signer: signer.as_deref(), ..Options::new(&built.stub) };
    let plans = [by_command, options].map(|options| output::plan(Format::Uki, &bootable, &options));
    let [by_command, by_file] = plans;
    ensure!(by_command? == by_file?, "a command signs differently from a file");
    let unsigned = output::write(Format::Uki, &bootable, &Options::new(&built.stub), dir)?;
    ensure!(verify(&unsigned).is_err(), "sbverify takes an unsigned program");

    let cd = output::write(Format::IsoEfi, &bootable, &options, dir)?;
    let report = ["-indev", "-report_el_torito", "plain", "-lsl", "/"].map(OsStr::new);
    let [indev, rest @ ..] = report;
    let mut arguments = vec![indev, cd.as_os_str()];
    arguments.extend(rest);
    let said = run("xorriso", &arguments)?;
    for expected in ["El Torito boot img :   1  UEFI  y", "'EFI.IMG'", "'BOOT.CAT'"] {
        ensure!(said.contains(expected), "xorriso does not say `{expected}`: {said}");
    }

    let disk = output::write(Format::RawEfi, &bootable, &options, dir)?;
    for path in [&cd, &disk] {
        let esp = format!("{}@@1M", path.display());
        let said = run("mdir", &["-/", "-b", "-i", &esp].map(OsStr::new))?;
        let file = if arch == Arch::X86_64 { "BOOTX64.EFI" } else { "BOOTAA64.EFI" };
        ensure!(said.trim().ends_with(&format!("::/EFI/BOOT/{file}")), "mdir said {said}");
        let copy = built.path("copy.efi");
        let from = format!("::/EFI/BOOT/{file}");
        run("mcopy", &["-n", "-i", &esp, &from, &copy.display().to_string()].map(OsStr::new))?;
        verify(&copy)?;
        std::fs::remove_file(copy)?;
    }

    for path in [&cd, &disk] {
        let said = run("sgdisk", &["-v".as_ref(), path.as_os_str()])?;
        ensure!(said.contains("No problems found"), "sgdisk said {said}");
    }
    let esp = built.path("esp.img");
    for (format, least) in [(Format::IsoEfi, 0), (Format::RawEfi, 64 << 20)] {
        let all = output::plan(format, &bootable, &options)?;
        // The partition table names the last sector of the partition.
        let mut entry = Vec::new();
        all.slice(1024..1024 + 48).write(&built.store, &mut entry)?;
        let last = entry.last_chunk::<8>().map(|bytes| u64::from_le_bytes(*bytes));
        let part = all.slice(1 << 20..(last.context("no partition")? + 1) * 512);
        ensure!(part.len() >= least, "the partition has {} bytes", part.len());
        part.write_sparse(&built.store, &mut File::create(&esp)?)?;
        run("fsck.fat", &["-n".as_ref(), "-v".as_ref(), esp.as_os_str()])?;
    }

    let qcow2 = output::write(Format::Qcow2Efi, &bootable, &options, dir)?;
    let compare = ["compare", "-f", "qcow2", "-F", "raw"].map(OsStr::new);
    let mut arguments = compare.to_vec();
    arguments.extend([qcow2.as_os_str(), disk.as_os_str()]);
    run("qemu-img", &arguments).map(drop)
}

/// Waits until the console shows a text.
fn shows(machine: &Machine, text: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shown =
        runtime.block_on(async { machine.console().wait_for(text, Scene::deadline()).await });
    shown.with_context(|| format!("qemu said: {}", machine.messages()))
}

/// Makes variables of UEFI in which Secure Boot is on and trusts one certificate.
pub(super) fn enrolled(arch: Arch, certificate: &Path, folder: &Path) -> anyhow::Result<PathBuf> {
    let variables = folder.join("enrolled.vars");
    let owner = "7fd2a8ef-62cf-4a2b-9a39-6fc10d0b4e6d";
    // For arm64, the file without keys is nothing but zeros, which only the firmware itself makes variables of.
    let empty: &[&str] = match arch {
        Arch::X86_64 => &["-i", "/usr/share/OVMF/OVMF_VARS_4M.fd"],
        Arch::Arm64 => {
            let known = "/usr/share/AAVMF/AAVMF_VARS.snakeoil.fd";
            &["-i", known, "-d", "PK", "-d", "KEK", "-d", "db"]
        }
    };
    let mut arguments: Vec<&OsStr> = empty.iter().map(OsStr::new).collect();
    for key in ["--set-pk", "--add-kek", "--add-db"] {
        arguments.extend([key.as_ref(), owner.as_ref(), certificate.as_os_str()]);
    }
    arguments.extend(["--sb".as_ref(), "-o".as_ref(), variables.as_os_str()]);
    run("virt-fw-vars", &arguments)?;
    Ok(variables)
}

/// Runs a program and returns all that it says.
fn run(program: &str, arguments: &[&OsStr]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output().context(program.to_owned())?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "{program} failed ({}): {said}", output.status);
    Ok(said)
}
