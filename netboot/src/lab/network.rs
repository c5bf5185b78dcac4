use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, unshare};

use super::LabError;
use super::firmware::program;
use super::neighbour::Neighbour;

/// Name of the bridge that the server and all machines are on.
pub const BRIDGE: &str = "kiln0";
/// Address of the server on it.
pub const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
/// Address of IPv6 of the server on it.
pub const ADDRESS6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1);
/// Its network of IPv6, whose prefix is 64 bits long.
pub const NETWORK6: Ipv6Addr = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 0);
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
        lab.add_bridge(BRIDGE)?;
        lab.ip(&["addr", "add", &format!("{ADDRESS}/24"), "dev", BRIDGE])?;
        // Nobody else is there who could have it, so that the kernel need not wait and see.
        lab.ip(&["addr", "add", &format!("{ADDRESS6}/64"), "dev", BRIDGE, "nodad"])?;
        Ok(lab)
    }

    /// Returns where files of the machines are kept.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes one more bridge. Machines on it reach the server only by what connects the two.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn add_bridge(&self, name: &str) -> Result<(), LabError> {
        // Without delay and snooping a port forwards from its first packet on: firmware asks for an address at once.
        self.ip(&[
            "link",
            "add",
            name,
            "type",
            "bridge",
            "forward_delay",
            "0",
            "stp_state",
            "0",
            "mcast_snooping",
            "0",
        ])?;
        self.ip(&["link", "set", name, "up"])
    }

    /// Makes a host of its own, a network namespace with one interface on each of these bridges: `p0`, `p1` and so
    /// on, with an address such as `10.77.0.2/24`. It passes packets on between them.
    ///
    /// # Errors
    ///
    /// When a namespace cannot be made or `ip` fails.
    pub fn add_neighbour(&mut self, ports: &[(&str, &str)]) -> Result<Neighbour, LabError> {
        let neighbour = Neighbour::start()?;
        for (number, (bridge, address)) in ports.iter().enumerate() {
            let (here, there) = (format!("kv{}", self.taps), format!("p{number}"));
            self.taps += 1;
            let namespace = neighbour.id().to_string();
            self.ip(&[
                "link", "add", &here, "type", "veth", "peer", "name", &there, "netns", &namespace,
            ])?;
            self.ip(&["link", "set", &here, "master", bridge, "up"])?;
            neighbour.ip(&["addr", "add", address, "dev", &there])?;
            neighbour.ip(&["link", "set", &there, "up"])?;
        }
        Ok(neighbour)
    }

    /// Sends packets for a network by way of a neighbour.
    ///
    /// # Errors
    ///
    /// When `ip` fails.
    pub fn route(&self, network: &str, by: Ipv4Addr) -> Result<(), LabError> {
        self.ip(&["route", "add", network, "via", &by.to_string()])
    }

    /// Makes a network port for one machine and returns the name of its interface.
    ///
    /// # Errors
    ///
    /// When `ip` fails; most often because `/dev/net/tun` is missing.
    pub fn add_port(&mut self, bridge: &str) -> Result<String, LabError> {
        let name = format!("kt{}", self.taps);
        self.taps += 1;
        self.ip(&["tuntap", "add", "dev", &name, "mode", "tap"])?;
        self.ip(&["link", "set", &name, "master", bridge, "up"])?;
        Ok(name)
    }

    /// Runs `ip` with these arguments.
    ///
    /// # Errors
    ///
    /// When it fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<(), LabError> {
        run_ip(Command::new(&self.ip).args(arguments), arguments)
    }
}

/// Runs a prepared `ip`, whose arguments are only for the message.
pub(super) fn run_ip(command: &mut Command, arguments: &[&str]) -> Result<(), LabError> {
    let output = command
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
