use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::Context;
use kiln::lab::BRIDGE;

/// dnsmasq as the DHCP server of a private network. It ends with this value, or with the thread that started it.
#[derive(Debug)]
pub(crate) struct Dnsmasq(Child);

impl Dnsmasq {
    /// Gives addresses to everyone, and this URL to firmware that boots by HTTP.
    pub(crate) fn start(dir: &Path, url: &str) -> anyhow::Result<Self> {
        let lines = format!(
            "keep-in-foreground\nport=0\nuser=root\ninterface={BRIDGE}\nbind-interfaces\n\
             dhcp-leasefile={}/leases\ndhcp-range=10.77.0.100,10.77.0.199,255.255.255.0\n\
             dhcp-vendorclass=set:http,HTTPClient\ndhcp-option-force=tag:http,60,HTTPClient\n\
             dhcp-boot=tag:http,{url}\n",
            dir.display()
        );
        let path = dir.join("dnsmasq.conf");
        std::fs::write(&path, lines)?;
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", "dnsmasq", "--pid-file=", "-C"])
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
