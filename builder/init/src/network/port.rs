//! One interface that gets addresses: its settings, and what all protocols do with it.

use std::fmt::Display;
use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use super::netlink::Netlink;
use super::plan::Settings;
use super::resolver::{Resolver, Source, Told};
use super::route::{Address, Route, network};
use crate::clock::uptime;
use crate::console::say;
use crate::phone::{Phase, Phone};

/// Where leases are written for people and services.
const LEASES: &str = "/run/kiln/network";
/// Linux has 0 for those that it makes itself, and 1024 for those that IPv6 routers announce.
const FIRST_METRIC: u32 = 100;

/// One interface.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) name: String,
    pub(super) index: u32,
    pub(super) mac: [u8; 6],
    /// 0 is the interface of the boot.
    pub(super) rank: usize,
    pub(super) settings: Settings,
    /// What servers are told.
    pub(super) hostname: Option<String>,
    /// Whether the machine takes the name that a server gives.
    pub(super) takes_hostname: bool,
    /// The address that firmware had.
    pub(super) known: Option<Ipv4Addr>,
    /// Whether it was used by IPv6, which is enough then.
    pub(super) by_ipv6: bool,
    pub(super) kernel: Netlink,
    pub(super) resolver: Arc<Resolver>,
    pub(super) phone: Phone,
    /// When the step began that is told next.
    pub(super) since: Duration,
    /// Who waits for an address of this interface.
    pub(super) waiting: Sender<String>,
    pub(super) complained: bool,
    pub(super) had_link: bool,
    pub(super) is_ready: bool,
}

impl Port {
    pub(super) fn metric(&self) -> u32 {
        FIRST_METRIC.saturating_add(u32::try_from(self.rank).unwrap_or(u32::MAX))
    }

    pub(super) fn tell(&self, source: Source, told: Told) {
        self.resolver.tell(self.rank, source, told);
    }

    /// The interface has an address: the boot and the server hear of the first one.
    pub(super) fn has(&mut self, address: IpAddr) {
        say(&format!("{} has {address}", self.name));
        // Where an IPv4 address is asked for, the boot waits for that, unless the loader did without.
        let waits_for_ipv4 = self.settings.dhcp4 && !self.by_ipv6;
        if self.is_ready || (waits_for_ipv4 && address.is_ipv6()) {
            return;
        }
        self.is_ready = true;
        self.phone.network_is_up();
        self.phone.tell_since(self.since, Phase::Network, format!("{} {address}", self.name));
        let _ = self.waiting.send(self.name.clone());
    }

    pub(super) fn say_once(&mut self, what: &str, error: &dyn Display) {
        if !std::mem::replace(&mut self.complained, true) {
            say(&format!("{what} on {}: {error}", self.name));
        }
    }

    pub(super) fn set_mtu(&self, mtu: u32) {
        if let Err(error) = self.kernel.set_mtu(self.index, mtu) {
            say(&format!(
                "{} keeps the length of its packets instead of {mtu}: {error}",
                self.name
            ));
        }
    }

    pub(super) fn add_route(&self, route: &Route) {
        if let Err(error) = self.kernel.add_route(self.index, route) {
            let over = route.via.map(|via| format!(" over {via}")).unwrap_or_default();
            let (name, to) = (&self.name, route.to);
            say(&format!("{name} has no route to {to}/{}{over}: {error}", route.prefix));
        }
    }

    /// Switches the interface on, with what it has without asking anybody.
    pub(super) fn set_up(&mut self) {
        let believes = if self.settings.ra { "2" } else { "0" };
        // 2 is also where the machine forwards packets, as one with containers does.
        self.set_ipv6("accept_ra", believes);
        if let Some(mtu) = self.settings.mtu {
            self.set_mtu(mtu);
        }
        if let Err(error) = self.kernel.switch(self.index, true) {
            self.say_once("cannot switch the network on", &error);
        }
        let addresses = self.settings.addresses.clone();
        for &(ip, prefix) in &addresses {
            let address = Address { ip, prefix, lifetimes: None, alone: false };
            if let Err(error) = self.kernel.add_address(self.index, &address) {
                say(&format!("{} cannot use the address {ip}: {error}", self.name));
            }
        }
        self.set_routes();
        let told = Told {
            servers: self.settings.dns.iter().map(IpAddr::to_string).collect(),
            search: self.settings.search.clone(),
            time_servers: Vec::new(),
        };
        self.tell(Source::Plan, told);
    }

    /// Sets the routes of the plan; the kernel forgets them when the interface is switched off.
    fn set_routes(&self) {
        let addresses = &self.settings.addresses;
        for &((to, prefix), via) in &self.settings.routes {
            let near = |via: IpAddr| {
                let on = |&(ip, length): &(IpAddr, u8)| network(ip, length) == network(via, length);
                addresses.iter().any(on)
            };
            self.add_route(&Route {
                to: network(to, prefix),
                prefix,
                via,
                source: None,
                metric: self.metric(),
                on_link: via.is_some_and(|via| via.is_ipv4() && !near(via)),
            });
        }
    }

    /// There is a link: the first time the server hears of it, and the addresses of the plan are good now.
    pub(super) fn has_link(&mut self) {
        if !std::mem::replace(&mut self.had_link, true) {
            if self.rank == 0 {
                self.phone.tell_since(self.since, Phase::Link, self.name.as_str());
            }
            self.since = uptime();
            let addresses = self.settings.addresses.clone();
            for (ip, _) in addresses {
                self.has(ip);
            }
        }
    }

    /// Sets what the kernel does about IPv6 here. Without IPv6 there is nothing to set.
    fn set_ipv6(&self, key: &str, value: &str) {
        let _ = fs::write(format!("/proc/sys/net/ipv6/conf/{}/{key}", self.name), value);
    }

    pub(super) fn write_lease(&self, kind: &str, text: &str) {
        let path = self.lease(kind);
        let next = format!("{path}.new");
        let result = fs::create_dir_all(LEASES)
            .and_then(|()| fs::write(&next, text))
            .and_then(|()| fs::rename(&next, &path));
        if let Err(error) = result {
            say(&format!("cannot write {path}: {error}"));
        }
    }

    pub(super) fn remove_lease(&self, kind: &str) {
        match fs::remove_file(self.lease(kind)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                say(&format!("cannot remove {}: {error}", self.lease(kind)));
            }
            _ => {}
        }
    }

    fn lease(&self, kind: &str) -> String {
        format!("{LEASES}/{}.{kind}", self.name)
    }
}
