//! Network interfaces that are made or moved: for containers, and those that a plan asks for.

use std::io;
use std::path::Path;

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;

use super::netlink::{NLM_F_CREATE, NLM_F_EXCL, Netlink, attribute};
use super::plan::{Bond, BondMode, Kind};

/// Numbers of linux/rtnetlink.h, linux/if_link.h and linux/veth.h.
const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_NET_NS_PID: u16 = 19;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const VETH_INFO_PEER: u16 = 1;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_BOND_MODE: u16 = 1;
const IFLA_BOND_MIIMON: u16 = 3;
const IFLA_BR_FORWARD_DELAY: u16 = 1;

impl Netlink {
    /// Moves an interface of the machine into the network namespace of a process.
    fn give(&self, name: &str, pid: i32) -> nix::Result<()> {
        let index = if_nametoindex(name)?;
        self.change(index, &attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes()))
    }

    /// Makes an interface of a kind, such as `wireguard`, in the network namespace of a process or in the machine's.
    /// With a `peer` it is one end of a pair, of which the other one stays with the machine.
    fn make(
        &self,
        name: &str,
        kind: &str,
        peer: Option<&str>,
        pid: Option<i32>,
    ) -> nix::Result<()> {
        let mut data = Vec::new();
        if let Some(peer) = peer {
            let end = [link(0, 0).as_slice(), &named(peer)?].concat();
            data = attribute(VETH_INFO_PEER, &end);
        }
        let rest =
            pid.map(|pid| attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes())).unwrap_or_default();
        self.create(name, kind, &data, &rest)
    }

    /// Makes what a plan asks for. That it is there already is no fault.
    pub(super) fn make_planned(&self, name: &str, kind: &Kind) -> nix::Result<()> {
        let made = match kind {
            Kind::Match(_) => return Ok(()),
            Kind::Vlan(vlan) => {
                let parent = if_nametoindex(vlan.on.as_str())?;
                let id = attribute(IFLA_VLAN_ID, &vlan.id.to_ne_bytes());
                self.create(name, "vlan", &id, &attribute(IFLA_LINK, &parent.to_ne_bytes()))
            }
            Kind::Bond(bond) => {
                // A kernel with bonding built in has made one by itself, with its own settings.
                if Path::new("/sys/class/net").join(name).join("bonding").exists() {
                    self.remove(name)?;
                }
                self.create(name, "bond", &bond_data(bond), &[])
            }
            // Nobody to form a loop with: a port forwards from its first packet on.
            Kind::Bridge(_) => {
                let delay = attribute(IFLA_BR_FORWARD_DELAY, &0_u32.to_ne_bytes());
                self.create(name, "bridge", &delay, &[])
            }
        };
        match made {
            Err(Errno::EEXIST) => Ok(()),
            other => other,
        }
    }

    fn create(&self, name: &str, kind: &str, data: &[u8], rest: &[u8]) -> nix::Result<()> {
        let mut info = attribute(IFLA_INFO_KIND, kind.as_bytes());
        if !data.is_empty() {
            info.extend(attribute(IFLA_INFO_DATA, data));
        }
        let body =
            [link(0, 0).as_slice(), &named(name)?, &attribute(IFLA_LINKINFO, &info), rest].concat();
        self.ask(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, &body)
    }

    fn remove(&self, name: &str) -> nix::Result<()> {
        self.ask(RTM_DELLINK, 0, &link(if_nametoindex(name)?, 0))
    }

    fn change(&self, index: u32, attributes: &[u8]) -> nix::Result<()> {
        self.ask(RTM_NEWLINK, 0, &[link(index, 0).as_slice(), attributes].concat())
    }

    /// Switches an interface on or off.
    pub(super) fn switch(&self, index: u32, on: bool) -> nix::Result<()> {
        let mut body = link(index, IFF_UP);
        if !on && let Some(flags) = body.get_mut(8..12) {
            flags.fill(0);
        }
        self.ask(RTM_NEWLINK, 0, &body)
    }

    /// Makes an interface a port of a bond or bridge.
    pub(super) fn enslave(&self, port: &str, master: &str) -> nix::Result<()> {
        let (index, master) = (if_nametoindex(port)?, if_nametoindex(master)?);
        // A bond takes only what is off.
        self.switch(index, false)?;
        self.change(index, &attribute(IFLA_MASTER, &master.to_ne_bytes()))?;
        self.switch(index, true)
    }

    /// Sets the length of the largest packet.
    pub(super) fn set_mtu(&self, index: u32, mtu: u32) -> nix::Result<()> {
        self.change(index, &attribute(IFLA_MTU, &mtu.to_ne_bytes()))
    }
}

fn bond_data(bond: &Bond) -> Vec<u8> {
    // The numbers of linux/if_bonding.h.
    let mode = match bond.mode {
        BondMode::BalanceRr => 0_u8,
        BondMode::ActiveBackup => 1,
        BondMode::BalanceXor => 2,
        BondMode::Broadcast => 3,
        BondMode::Lacp => 4,
        BondMode::BalanceTlb => 5,
        BondMode::BalanceAlb => 6,
    };
    [attribute(IFLA_BOND_MODE, &[mode]), attribute(IFLA_BOND_MIIMON, &bond.miimon.to_ne_bytes())]
        .concat()
}

/// `struct ifinfomsg`: family and type any, then the index, flags and which of them change.
fn link(index: u32, flags: u32) -> [u8; 16] {
    let mut link = [0; 16];
    for (place, number) in link.chunks_exact_mut(4).skip(1).zip([index, flags, flags]) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    link
}

fn named(name: &str) -> nix::Result<Vec<u8>> {
    // `IFNAMSIZ` is 16 with the NUL.
    if name.is_empty() || name.len() > 15 || name.contains(['\0', '/']) {
        return Err(Errno::EINVAL);
    }
    Ok(attribute(IFLA_IFNAME, &[name.as_bytes(), b"\0"].concat()))
}

/// Does what a bundle wants of one interface for the container with this first process.
pub(crate) fn arrange(
    name: &str,
    kind: &str,
    peer: &str,
    in_root: bool,
    pid: i32,
) -> io::Result<()> {
    let links = Netlink::open()?;
    let peer = (!peer.is_empty()).then_some(peer);
    // A pair is always of one kind.
    let kind = if kind.is_empty() && peer.is_some() { "veth" } else { kind };
    if kind.is_empty() {
        links.give(name, pid)?;
    } else if in_root {
        links.make(name, kind, peer, None)?;
        links.give(name, pid)?;
    } else {
        links.make(name, kind, peer, Some(pid))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_is_named_by_its_index_and_what_changes_about_it() {
        assert_eq!(link(3, 0)[4..8], 3u32.to_ne_bytes());
        assert_eq!(link(3, IFF_UP)[8..], [1u32.to_ne_bytes(), 1u32.to_ne_bytes()].concat());
    }

    #[test]
    fn a_name_that_is_no_name_is_refused() {
        for name in ["", "a-name-with-16-b", "a/b", "a\0"] {
            assert_eq!(named(name), Err(Errno::EINVAL), "{name:?}");
        }
        assert!(named("a-name-with-15b").is_ok());
    }

    #[test]
    fn the_answer_of_the_kernel_is_understood() {
        let links = Netlink::open().unwrap();
        // Whoever asks, no such process or no right.
        let error = links.make("kiln-test0", "veth", Some("kiln-test1"), Some(i32::MAX));
        assert!(matches!(error, Err(Errno::ESRCH | Errno::EPERM)), "{error:?}");
        assert!(links.give("no-such-link", 1).is_err());
        assert!(links.enslave("no-such-link", "lo").is_err());
    }

    #[test]
    fn a_bond_is_told_its_mode_and_how_often_to_look() {
        let bond = Bond { mode: BondMode::Lacp, miimon: 100, interfaces: Vec::new() };
        assert_eq!(bond_data(&bond), [5, 0, 1, 0, 4, 0, 0, 0, 8, 0, 3, 0, 100, 0, 0, 0]);
    }
}
