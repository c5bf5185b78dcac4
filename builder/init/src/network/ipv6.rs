//! IPv6 of one interface: what routers announce, and what a DHCPv6 server adds to it. The kernel itself makes addresses
//! of announced prefixes and keeps the routes.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockaddrIn6, bind, setsockopt, sockopt};

use super::dhcp6::{self, Action, Answer, CLIENT_PORT, Client, Event, Lease, Mode, SERVER_PORT};
use super::interface;
use super::plan::Dhcp6;
use super::port::Port;
use super::random::Random;
use super::resolver::{Source, Told};
use super::route::Address;
use super::router::{self, Fading};
use super::udp::{self, MOST_PACKETS};
use crate::clock::uptime;
use crate::console::say;
use crate::sys::RouterSocket;

/// RFC 4861 §10: routers are asked three times, and announce themselves later in any case.
const SOLICITATIONS: u32 = 3;
const BETWEEN: Duration = Duration::from_secs(4);
/// An address of the link itself is there a second after the link.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// Addresses that a person is told of; some kinds change every day.
const MOST_TOLD: usize = 16;

#[derive(Debug)]
pub(super) struct Ipv6 {
    routers: Option<RouterSocket>,
    solicit: Option<Duration>,
    solicitations: u32,
    servers: Fading<Ipv6Addr>,
    search: Fading<String>,
    client: Client,
    /// Open as long as there is a question.
    socket: Option<UdpSocket>,
    told: Vec<Ipv6Addr>,
}

impl Ipv6 {
    /// Without IPv6 in the kernel there is nothing to do.
    pub(super) fn new(port: &Port) -> Option<Self> {
        let known = std::path::Path::new("/proc/sys/net/ipv6/conf").join(&port.name);
        if !known.exists() {
            return None;
        }
        let routers = port.settings.ra.then(|| RouterSocket::open(&port.name));
        if let Some(Err(error)) = &routers {
            say(&format!("cannot hear IPv6 routers on {}: {error}", port.name));
        }
        Some(Self {
            routers: routers.and_then(Result::ok),
            solicit: None,
            solicitations: 0,
            servers: Fading::new(),
            search: Fading::new(),
            client: Client::new(Random::of_this_machine()),
            socket: None,
            told: Vec::new(),
        })
    }

    pub(super) fn timer(&self) -> Option<Duration> {
        let fading = [self.servers.timer(), self.search.timer()];
        [self.solicit, self.client.timer()].into_iter().chain(fading).flatten().min()
    }

    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let socket = self.socket.as_ref().map(AsFd::as_fd);
        socket.into_iter().chain(self.routers.as_ref().map(AsFd::as_fd))
    }

    pub(super) fn link(&mut self, port: &mut Port, up: bool) {
        if !up {
            self.solicit = None;
            return;
        }
        self.solicitations = 0;
        self.solicit = self.routers.as_ref().map(|_| uptime());
        self.step(port, &Event::LinkUp);
        if port.settings.dhcp6 == Dhcp6::Always {
            self.step(port, &Event::Mode(Mode::Addresses));
        }
    }

    /// Takes what has come in, and does what its time has come for.
    pub(super) fn work(&mut self, port: &mut Port) {
        for _ in 0..MOST_PACKETS {
            let mut buffer = [0; 1500];
            let Some(Ok(packet)) = self.routers.as_ref().map(|socket| socket.receive(&mut buffer))
            else {
                break;
            };
            if let Some(news) = router::read(packet) {
                self.hear(port, news);
            }
        }
        for _ in 0..MOST_PACKETS {
            let Some(answer) = self.receive(port.mac) else { break };
            self.step(port, &Event::Answer(&answer));
        }
        let now = uptime();
        if self.solicit.is_some_and(|time| time <= now) {
            self.solicit(port, now);
        }
        if self.servers.timer().into_iter().chain(self.search.timer()).any(|time| time <= now) {
            self.tell(port);
        }
        self.step(port, &Event::Timer);
        self.look(port);
    }

    fn solicit(&mut self, port: &Port, now: Duration) {
        self.solicit = None;
        let has_own =
            interface::ipv6_addresses(port.index).iter().any(|held| held.link_local && held.usable);
        if !has_own {
            self.solicit = Some(now + LOOK_AGAIN);
            return;
        }
        if let Some(routers) = &self.routers {
            // The kernel asks as well, and fills in the sum.
            let _ = routers.send(&[router::SOLICITATION, 0, 0, 0, 0, 0, 0, 0], port.index);
        }
        self.solicitations += 1;
        if self.solicitations < SOLICITATIONS {
            self.solicit = Some(now + BETWEEN);
        }
    }

    fn hear(&mut self, port: &mut Port, news: router::Announcement) {
        // There is a router, and it has said what there is to say.
        self.solicit = None;
        let now = uptime();
        self.servers.learn(now, news.servers);
        self.search.learn(now, news.search);
        self.tell(port);
        let mode = match port.settings.dhcp6 {
            Dhcp6::Never => Mode::Nothing,
            Dhcp6::Always => Mode::Addresses,
            Dhcp6::Auto if news.managed => Mode::Addresses,
            Dhcp6::Auto if news.other => Mode::Information,
            Dhcp6::Auto => Mode::Nothing,
        };
        self.step(port, &Event::Mode(mode));
    }

    fn tell(&mut self, port: &Port) {
        let now = uptime();
        let servers = self.servers.now(now);
        let told = Told {
            servers: servers.iter().map(|server| scoped(*server, &port.name)).collect(),
            search: self.search.now(now),
            time_servers: Vec::new(),
        };
        port.tell(Source::Router, told);
    }

    /// Tells of addresses that the kernel has made.
    fn look(&mut self, port: &mut Port) {
        for held in interface::ipv6_addresses(port.index) {
            let is_planned =
                port.settings.addresses.iter().any(|(ip, _)| *ip == IpAddr::V6(held.address));
            let is_new = !self.told.contains(&held.address) && self.told.len() < MOST_TOLD;
            if held.usable && !held.link_local && is_new {
                self.told.push(held.address);
                if !is_planned {
                    port.has(held.address.into());
                }
            }
        }
    }

    fn receive(&self, mac: [u8; 6]) -> Option<Answer> {
        let xid = self.client.xid();
        udp::receive(self.socket.as_ref(), |packet| dhcp6::read(packet, xid, mac))
    }

    fn step(&mut self, port: &mut Port, event: &Event<'_>) {
        let mut actions = Vec::new();
        self.client.step(uptime(), event, &mut actions);
        for action in actions {
            match action {
                Action::Send(ask) => {
                    let (server, addresses) = self.client.subject();
                    let (xid, elapsed) = (self.client.xid(), self.client.elapsed(uptime()));
                    let packet = dhcp6::write(ask, xid, port.mac, elapsed, server, &addresses);
                    // Until the link has an address of its own this fails, and is tried again.
                    if self.send(port, &packet).is_err() {
                        self.socket = None;
                    }
                }
                Action::Use(lease) => take(port, &lease),
                Action::Learn(answer) => learn(port, &answer),
                Action::Lose(addresses) => {
                    for address in addresses {
                        say(&format!("{} has {address} no longer", port.name));
                        let _ = port.kernel.remove_address(port.index, &alone(address, None));
                        self.told.retain(|told| *told != address);
                    }
                    port.tell(Source::Dhcp6, Told::default());
                    port.remove_lease("lease6");
                }
            }
        }
        if !self.client.is_asking() {
            self.socket = None;
        }
    }

    fn send(&mut self, port: &Port, packet: &[u8]) -> io::Result<()> {
        // All servers and relays of the link (RFC 8415 §7.1).
        let servers = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
        let to = SocketAddrV6::new(servers, SERVER_PORT, 0, port.index);
        udp::send(&mut self.socket, || open(&port.name), packet, to.into())
    }
}

fn open(name: &str) -> io::Result<UdpSocket> {
    let socket = udp::open(AddressFamily::Inet6, name)?;
    setsockopt(&socket, sockopt::Ipv6V6Only, &true)?;
    let any = SockaddrIn6::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, 0));
    bind(socket.as_raw_fd(), &any)?;
    Ok(socket.into())
}

fn alone(address: Ipv6Addr, lifetimes: Option<(Duration, Duration)>) -> Address {
    Address { ip: address.into(), prefix: 128, lifetimes, alone: true }
}

fn take(port: &Port, lease: &Lease) {
    for &(address, preferred, valid) in &lease.answer.addresses {
        let [preferred, valid] = [preferred, valid].map(|time| Duration::from_secs(time.into()));
        let address = alone(address, Some((preferred, valid)));
        if let Err(error) = port.kernel.add_address(port.index, &address) {
            say(&format!("{} cannot use the address {}: {error}", port.name, address.ip));
        }
    }
}

fn learn(port: &Port, answer: &Answer) {
    let texts = |list: &[Ipv6Addr]| list.iter().map(|ip| scoped(*ip, &port.name)).collect();
    let told = Told {
        servers: texts(&answer.name_servers),
        search: answer.search.clone(),
        time_servers: texts(&answer.time_servers),
    };
    let mut text = format!("INTERFACE={}\n", port.name);
    let addresses: Vec<String> =
        answer.addresses.iter().map(|(address, ..)| address.to_string()).collect();
    for (key, words) in [
        ("ADDRESSES", &addresses),
        ("DNS", &told.servers),
        ("SEARCH", &told.search),
        ("NTP", &told.time_servers),
    ] {
        if !words.is_empty() {
            let _ = writeln!(text, "{key}=\"{}\"", words.join(" "));
        }
    }
    port.write_lease("lease6", &text);
    port.tell(Source::Dhcp6, told);
}

/// An address of the link itself means nothing without the link.
fn scoped(ip: Ipv6Addr, name: &str) -> String {
    if ip.is_unicast_link_local() { format!("{ip}%{name}") } else { ip.to_string() }
}
