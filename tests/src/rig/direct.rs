use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use kiln_types::Arch;
use tokio::time::Instant;

/// Half a minute on an idle computer.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// A machine that qemu boots by itself, from the kernel and initrd that a build wrote into a folder. It is in a network
/// of its own, in which this computer's loopback is 10.0.2.2, and is killed when this value is dropped.
#[derive(Debug)]
pub(crate) struct Direct {
    child: Child,
    console: PathBuf,
    deadline: Instant,
}

impl Direct {
    /// Powers a machine on. Forwards are from ports of this computer's loopback to ports of the machine; further
    /// arguments go to qemu.
    pub(crate) fn start(
        arch: Arch,
        out: &Path,
        megabytes: u64,
        cmdline: &str,
        forward: Option<(u16, u16)>,
        more: &[String],
    ) -> anyhow::Result<Self> {
        let (program, machine): (_, &[&str]) = match arch {
            Arch::X86_64 => ("qemu-system-x86_64", &["-machine", "pc"]),
            Arch::Arm64 => ("qemu-system-aarch64", &["-machine", "virt", "-cpu", "cortex-a72"]),
        };
        let forward = forward
            .map(|(from, to)| format!(",hostfwd=tcp:127.0.0.1:{from}-:{to}"))
            .unwrap_or_default();
        let built = fs::read_to_string(out.join("cmdline"))?;
        let console = out.join("console");
        let child = Command::new(program)
            .args(["-accel", "tcg", "-nographic", "-no-reboot", "-device", "virtio-rng-pci"])
            .args(["-m", &megabytes.to_string()])
            .args(["-netdev", &format!("user,id=net0{forward}")])
            .args(["-device", "virtio-net-pci,netdev=net0,romfile="])
            .args(machine)
            .args(["-append", &format!("{} quiet panic=-1 {cmdline}", built.trim())])
            .arg("-kernel")
            .arg(out.join("kernel"))
            .arg("-initrd")
            .arg(out.join("initrd.img"))
            .args(more)
            .stdin(Stdio::null())
            .stdout(File::create(&console)?)
            .stderr(Stdio::inherit())
            .spawn()
            .with_context(|| format!("cannot run {program}"))?;
        Ok(Self { child, console, deadline: Instant::now() + PATIENCE })
    }

    /// Gives the machine more time, for what takes long even on an idle computer.
    pub(crate) fn allow(&mut self, more: Duration) {
        self.deadline += more;
    }

    /// Returns what is on the console.
    pub(crate) fn text(&self) -> anyhow::Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.console)?).replace('\r', ""))
    }

    /// Waits until a text is on the console.
    pub(crate) fn wait_for(&mut self, wanted: &str) -> anyhow::Result<()> {
        while !self.text()?.contains(wanted) {
            let ended = self.child.try_wait()?.is_some() && !self.text()?.contains(wanted);
            if ended || Instant::now() >= self.deadline {
                bail!("`{wanted}` does not come; the console:\n{}", self.text()?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    /// Waits until a line with a text is on the console, to its end.
    pub(crate) fn wait_for_line(&mut self, wanted: &str) -> anyhow::Result<()> {
        self.wait_for(wanted)?;
        while !self.text()?.split_once(wanted).is_some_and(|(_, rest)| rest.contains('\n')) {
            if Instant::now() >= self.deadline {
                bail!("the line with `{wanted}` does not end; the console:\n{}", self.text()?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Waits until the machine has switched itself off, or would start anew.
    pub(crate) fn wait_for_end(&mut self) -> anyhow::Result<()> {
        while self.child.try_wait()?.is_none() {
            if Instant::now() >= self.deadline {
                bail!("the machine does not end; the console:\n{}", self.text()?);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

impl Drop for Direct {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
