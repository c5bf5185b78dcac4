//! The state disk: made on an empty disk that the server names, kept from version to version, and nothing else touched.
//!
//! The machines are booted by qemu itself. What the server would tell them is a last archive of the initrd.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln_builder::hash::sha256;
use kiln_builder::tree::{Node, Tree, TreePath};
use kiln_types::Arch;
use serde_json::json;

use crate::rig::{Case, Direct, Need, image, kiln, store, work_folder};

const SIZE: u64 = 64 << 20;
const SERIAL: &str = "KILN-STATE-1";

/// One service keeps a list of the versions that ran, and switches the machine off once the boot is recorded. The other
/// one needs no disk.
const SPEC: &str = "
kernel:
  deb: {x86_64: linux-image-cloud-amd64, arm64: linux-image-cloud-arm64}
  cmdline: {x86_64: console=ttyS0, arm64: console=ttyAMA0}
init: [kiln]
state: {min-size: 32M, schema: SCHEMA}
services:
  - name: keeper
    deb: [busybox-static]
    command:
      - busybox
      - sh
      - -c
      - >-
        cd /state;
        echo \"had $(echo $(cat log 2> /dev/null)) on $(grep -oE ' /state ext4 rw,nosuid,nodev' /proc/mounts)\";
        echo VERSION >> log;
        until grep -qs '\"version\":\"VERSION\"' .kiln/state.json; do sleep 1; done;
        kill -USR2 1; exec sleep 1000
    binds: ['/var/lib/state:/state']
    pid: host
    capabilities: [CAP_KILL]
    restart: never
  - name: other
    deb: [busybox-static]
    command: [busybox, sh, -c, 'echo alive; exec sleep 1000']
";

pub(super) fn cases() -> Vec<Case> {
    let kinds = [(Arch::X86_64, FirmwareKind::Bios), (Arch::Arm64, FirmwareKind::Uefi)];
    let mut cases = Vec::new();
    for (arch, firmware) in kinds {
        let Ok(kind) = MachineKind::new(arch, firmware) else { continue };
        let needs = [Need::Program, Need::KilnInit(arch), Need::Machine(kind)];
        let mut add = |what: &str, run: fn(Arch) -> anyhow::Result<()>| {
            cases.push(Case::new(format!("state_disk::{arch}_{what}"), &needs, move || run(arch)));
        };
        add("state_is_made_on_an_empty_disk_and_kept_over_versions_and_rollbacks", kept);
        add("data_of_a_higher_schema_and_disks_with_anything_on_them_are_not_touched", not_touched);
    }
    cases
}

fn kept(arch: Arch) -> anyhow::Result<()> {
    let lab = Lab::new(arch)?;
    let [one, two] = [lab.build("one", 1)?, lab.build("two", 1)?];
    let text = lab.boot_to_the_end(&one)?;
    says(&text, "kiln-init: making the state partition kiln-state on vda (serial KILN-STATE-1)")?;
    says(&text, "kiln-init: state on vda1 of vda (serial KILN-STATE-1)")?;
    says(&text, "keeper: had  on  /state ext4 rw,nosuid,nodev")?;
    lab.is_clean()?;
    let text = lab.boot_to_the_end(&two)?;
    ensure!(!text.contains("making the state partition"), "it was made anew:\n{text}");
    says(&text, "keeper: had one on  /state ext4")?;
    lab.is_clean()?;
    says(&lab.boot_to_the_end(&one)?, "keeper: had one two on  /state ext4")?;
    lab.is_clean()
}

fn not_touched(arch: Arch) -> anyhow::Result<()> {
    let lab = Lab::new(arch)?;
    let [one, newer] = [lab.build("one", 1)?, lab.build("newer", 2)?];
    // Both are what people have on disks; either architecture meets one of them.
    let (at, bytes, what) = match arch {
        Arch::X86_64 => (1080, [0x53, 0xef], "an ext2, ext3 or ext4 file system"),
        Arch::Arm64 => (40 << 20, [0xa5, 0x5a], "data"),
    };
    let disk = File::options().write(true).open(lab.disk())?;
    disk.write_all_at(&bytes, at)?;
    lab.refuses(
        &one,
        &format!("which the server names, is not empty: it has {what}; nothing was written"),
    )?;

    disk.write_all_at(&[0, 0], at)?;
    says(&lab.boot_to_the_end(&newer)?, "keeper: had  on  /state ext4")?;
    // The check may write to a file system, but not to one that was left clean.
    lab.refuses(&one, "its data has schema 2 and this image has schema 1; boot state-")
}

fn says(text: &str, wanted: &str) -> anyhow::Result<()> {
    ensure!(text.contains(wanted), "`{wanted}` is not on the console:\n{text}");
    Ok(())
}

/// A machine with one disk, and the versions of an image.
struct Lab {
    arch: Arch,
    folder: tempfile::TempDir,
}

impl Lab {
    fn new(arch: Arch) -> anyhow::Result<Self> {
        // Fetches the kernel into the shared store.
        image(arch)?;
        let folder = tempfile::Builder::new().prefix("state-").tempdir_in(work_folder())?;
        let lab = Self { arch, folder };
        File::create(lab.disk())?.set_len(SIZE)?;
        Ok(lab)
    }

    fn disk(&self) -> PathBuf {
        self.folder.path().join("disk")
    }

    /// Builds a version, and adds what a server would tell the machine.
    fn build(&self, version: &str, schema: u32) -> anyhow::Result<PathBuf> {
        let (folder, arch) = (self.folder.path(), self.arch.as_str());
        let spec = folder.join("keeper.yml");
        let yaml = SPEC.replace("SCHEMA", &schema.to_string()).replace("VERSION", version);
        fs::write(&spec, yaml)?;
        let out = folder.join(version);
        let [spec, store, lock, out_text] = [spec, store(), folder.join("lock"), out.clone()]
            .map(|path| path.display().to_string());
        let finished = kiln(&[
            "build",
            &spec,
            "--arch",
            arch,
            "--lock",
            &lock,
            "--store",
            &store,
            "--out",
            &out_text,
            "--name",
            &format!("state-{arch}:{version}"),
        ])?;
        ensure!(finished.code == Some(0), "the build failed: {}", finished.stderr);
        let locked = fs::read_to_string(&lock)?;
        ensure!(locked.contains("e2fsprogs"), "the lock does not name the programs:\n{locked}");
        let told = json!({
            "server": "http://10.0.2.2:9", "boot": 1, "token": "none", "version": version,
            "state-disk": format!("serial:{SERIAL}"),
        });
        let mut tree = Tree::new();
        tree.insert(
            TreePath::new("etc/kiln/machine.json")?,
            Node::file(0o600, serde_json::to_vec(&told)?),
        );
        let mut archive = Vec::new();
        kiln_builder::cpio::write(&tree, 0, &mut archive)?;
        let initrd = out.join("initrd.img");
        let length = usize::try_from(fs::metadata(&initrd)?.len())?;
        // The kernel looks for an archive that is not compressed at multiples of four.
        let padded = [vec![0; length.next_multiple_of(4) - length], archive].concat();
        File::options().append(true).open(initrd)?.write_all(&padded)?;
        Ok(out)
    }

    fn start(&self, version: &Path) -> anyhow::Result<Direct> {
        let drive = format!("file={},format=raw,if=none,id=state", self.disk().display());
        let device = format!("virtio-blk-pci,drive=state,serial={SERIAL}");
        let more = ["-drive".to_owned(), drive, "-device".to_owned(), device];
        Direct::start(self.arch, version, 512, "", None, &more)
    }

    /// Boots until the machine has switched itself off and returns its console.
    fn boot_to_the_end(&self, version: &Path) -> anyhow::Result<String> {
        let mut machine = self.start(version)?;
        machine.wait_for("kiln-init: power off")?;
        machine.wait_for_end()?;
        machine.text()
    }

    /// Boots until the machine has said why there is no state, and looks that nothing was written and what can run does.
    fn refuses(&self, version: &Path, why: &str) -> anyhow::Result<()> {
        let before = sha256(&fs::read(self.disk())?);
        let mut machine = self.start(version)?;
        machine.wait_for(why)?;
        machine.wait_for("kiln-init: keeper is not started: /var/lib/state is not there")?;
        machine.wait_for("other: alive")?;
        let text = machine.text()?;
        ensure!(!text.contains("keeper: had"), "the service ran without its state:\n{text}");
        drop(machine);
        let after = sha256(&fs::read(self.disk())?);
        ensure!(before == after, "something was written to the disk:\n{text}");
        Ok(())
    }

    /// Looks that the file system was unmounted: its state says so, and its journal is empty.
    fn is_clean(&self) -> anyhow::Result<()> {
        let mut superblock = [0; 1024];
        File::open(self.disk())?.read_exact_at(&mut superblock, (1 << 20) + 1024)?;
        let number = |at: usize| superblock.get(at).copied().context("a short superblock");
        // EXT4_FEATURE_INCOMPAT_RECOVER is 4.
        ensure!(number(58)? == 1 && number(96)? & 4 == 0, "the file system was not unmounted");
        Ok(())
    }
}
