use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::LabError;
use super::firmware::program;

/// Name of the bridge that the server and all machines are on.
pub const BRIDGE: &str = "kiln0";
/// Address of the server on it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Its network, with the length of the prefix.
pub const NETWORK: &str = "10.77.0.0/24";

/// A private network: the namespace that the calling thread now lives in.
#[derive(Debug)]
pub struct Lab {
    directory: PathBuf,
    ip: PathBuf,
    taps: usize,
}

impl Lab {
    /// Moves the calling thread into a new network namespace and makes a bridge with [`ADDRESS`] there.
    ///
    /// Threads and processes started by this thread from now on are in the namespace too; older ones are not, so call
    /// this before there is a runtime. There is no way back. Files of the machines go to `directory`.
    ///
    /// # Errors
    ///
    /// When the thread may not make namespaces, or `ip` of iproute2 is missing or fails.
    pub fn enter(directory: &Path) -> Result<Self, LabError> {
        let ip = program("ip", "iproute2")?;
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| LabError::Unshare(errno.into()))?;
        let lab = Self { directory: directory.to_owned(), ip, taps: 0 };
        lab.ip(&["link", "set", "lo", "up"])?;
        // Without delay and snooping a port forwards from its first packet on: firmware asks for an address at once.
        lab.ip(&[
            "link",
            "add",
            BRIDGE,
            "type",
            "bridge",
            "forward_delay",
            "0",
            "stp_state",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        lab.ip(&["addr", "add", &format!("{ADDRESS}/24"), "dev", BRIDGE])?;
        lab.ip(&["link", "set", BRIDGE, "up"])?;
        Ok(lab)
    }

    /// Returns where files of the machines are kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes a network port for one machine and returns the name of its interface.
    ///
    /// # Errors
    ///
    /// When `ip` fails; most often because `/dev/net/tun` is missing.
    pub fn add_port(&mut self) -> Result<String, LabError> {
        let name = format!("kt{}", self.taps);
        self.taps += 1;
        self.ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        self.ip(&["link", "set", &name, "master", BRIDGE, "up"])?;
        Ok(name)
    }

    fn ip(&self, arguments: &[&str]) -> Result<(), LabError> {
        let output = Command::new(&self.ip)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(|source: io::Error| LabError::Run { program: "ip", source })?;
        if output.status.success() {
            return Ok(());
        }
        Err(LabError::Ip {
            arguments: arguments.join(" "),
            status: output.status,
            message: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        })
    }
}
