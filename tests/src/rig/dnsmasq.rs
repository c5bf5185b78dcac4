use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use kiln::lab::{BRIDGE, Neighbour};

/// dnsmasq as a DHCP server or relay of a private network. It ends with this value, or with the thread that started
/// it.
#[derive(Debug)]
pub(crate) struct Dnsmasq(Child);

impl Dnsmasq {
    /// Gives addresses to everyone, and this URL to firmware that boots by HTTP.
    pub(crate) fn start(dir: &Path, url: &str) -> anyhow::Result<Self> {
        let lines = format!(
            "interface={BRIDGE}\nbind-interfaces\n\
             dhcp-range=10.77.0.100,10.77.0.199,255.255.255.0\n\
             dhcp-vendorclass=set:http,HTTPClient\ndhcp-option-force=tag:http,60,HTTPClient\n\
             dhcp-boot=tag:http,{url}\n"
        );
        Self::run(dir, &lines, Command::new("dnsmasq"))
    }

    /// Sends firmware that boots by HTTP over IPv4 to where nobody listens, and answers no one else.
    pub(crate) fn leads_nowhere(dir: &Path) -> anyhow::Result<Self> {
        let lines = format!(
            "interface={BRIDGE}\nbind-interfaces\ndhcp-range=10.77.0.100,10.77.0.199,255.255.255.0\n\
             dhcp-vendorclass=set:http,HTTPClient\ndhcp-ignore=tag:!http\n\
             dhcp-option-force=tag:http,60,HTTPClient\ndhcp-boot=tag:http,http://10.77.0.1:9/none.efi\n"
        );
        Self::here(dir, &lines)
    }

    /// Does what these lines of settings say, beside the server.
    fn here(dir: &Path, lines: &str) -> anyhow::Result<Self> {
        Self::run(dir, lines, Command::new("dnsmasq"))
    }

    /// Does what these lines of settings say, on another host of the network.
    pub(crate) fn at(neighbour: &Neighbour, dir: &Path, lines: &str) -> anyhow::Result<Self> {
        Self::run(dir, lines, neighbour.command("dnsmasq"))
    }

    fn run(dir: &Path, lines: &str, dnsmasq: Command) -> anyhow::Result<Self> {
        let path = dir.join("dnsmasq.conf");
        let leases = dir.join("leases");
        let leases = leases.display();
        let common = format!("keep-in-foreground\nport=0\nuser=root\ndhcp-leasefile={leases}\n");
        std::fs::write(&path, common + lines)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(dnsmasq.get_program())
            .args(dnsmasq.get_args())
            .args(["--pid-file=", "-C"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run dnsmasq")?;
        Ok(Self(child))
    }
}

impl Drop for Dnsmasq {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
