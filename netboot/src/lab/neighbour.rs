use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use super::LabError;
use super::firmware::program;
use super::network::run_ip;

/// How often to look whether a neighbour is in its own namespace, and how many times.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
const LOOKS: u32 = 6000;

/// A host on the private network, without programs but those that are started in it. It is gone when this value is
/// dropped, or when the thread that made it ends.
#[derive(Debug)]
pub struct Neighbour {
    child: Child,
    ip: PathBuf,
    nsenter: PathBuf,
}

impl Neighbour {
    pub(super) fn start() -> Result<Self, LabError> {
        let child = Command::new(program("setpriv", "util-linux")?)
            .args(["--pdeathsig", "KILL", "--", "unshare", "--net", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .spawn()
            .map_err(|source| LabError::Run { program: "unshare", source })?;
        let (ip, nsenter) = (program("ip", "iproute2")?, program("nsenter", "util-linux")?);
        let neighbour = Self { child, ip, nsenter };
        let own = std::fs::read_link("/proc/thread-self/ns/net").map_err(LabError::Unshare)?;
        let its = format!("/proc/{}/ns/net", neighbour.child.id());
        for _ in 0..LOOKS {
            if std::fs::read_link(&its).map_err(LabError::Unshare)? != own {
                return neighbour.set_up();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        Err(LabError::Unshare(io::ErrorKind::TimedOut.into()))
    }

    fn set_up(self) -> Result<Self, LabError> {
        self.ip(&["link", "set", "lo", "up"])?;
        let forward = ["-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        run_ip(self.command("sh").args(forward), &forward)?;
        Ok(self)
    }

    /// Moves the calling thread there. There is no way back.
    ///
    /// # Errors
    ///
    /// When it is gone, or the thread may not enter it.
    pub fn enter(&self) -> Result<(), LabError> {
        let namespace = File::open(format!("/proc/{}/ns/net", self.child.id()));
        let namespace = namespace.map_err(LabError::Unshare)?;
        setns(namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::Unshare(errno.into()))
    }

    /// Returns the process that keeps its namespace.
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns a command that runs a program there.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(&self.nsenter);
        command.arg(format!("--net=/proc/{}/ns/net", self.child.id())).arg("--").arg(program);
        command
    }

    pub(super) fn ip(&self, arguments: &[&str]) -> Result<(), LabError> {
        run_ip(self.command(&self.ip).args(arguments), arguments)
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        // Both fail only when it is gone already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
