//! IPv4 of one interface: carries out what its DHCP client decides.

use std::fmt::Write as _;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockaddrIn, bind, setsockopt, sockopt};

use super::arp;
use super::dhcp4::{self, Action, Answer, Asker, Client, Event, Lease, Why};
use super::port::Port;
use super::random::Random;
use super::resolver::{Source, Told};
use super::route::{Address, Route, network};
use super::udp::{self, MOST_PACKETS};
use crate::clock::uptime;
use crate::console::say;
use crate::sys::ArpSocket;

const CLIENT_PORT: u16 = 68;
const SERVER_PORT: u16 = 67;

#[derive(Debug)]
pub(super) struct Ipv4 {
    client: Client,
    /// Open as long as there is a question: others may want the port.
    socket: Option<UdpSocket>,
    /// Open as long as an address is probed.
    probe: Option<(ArpSocket, Ipv4Addr)>,
    used: Option<(Address, Vec<Route>)>,
}

impl Ipv4 {
    pub(super) fn new(known: Option<Ipv4Addr>) -> Self {
        let client = Client::new(known, Random::of_this_machine());
        Self { client, socket: None, probe: None, used: None }
    }

    pub(super) const fn timer(&self) -> Option<Duration> {
        self.client.timer()
    }

    /// What to wait at.
    pub(super) fn sockets(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let socket = self.socket.as_ref().map(AsFd::as_fd);
        socket.into_iter().chain(self.probe.as_ref().map(|(probe, _)| probe.as_fd()))
    }

    pub(super) fn link(&mut self, port: &mut Port, up: bool) {
        if !up {
            self.probe = None;
        }
        self.step(port, &if up { Event::LinkUp } else { Event::LinkDown });
    }

    /// Takes what has come in, and does what its time has come for.
    pub(super) fn work(&mut self, port: &mut Port) {
        for _ in 0..MOST_PACKETS {
            let Some(answer) = self.receive(port.mac) else { break };
            self.step(port, &Event::Answer(&answer));
        }
        if let Some((socket, address)) = &self.probe {
            let mut buffer = [0; 64];
            let mut conflict = false;
            for _ in 0..MOST_PACKETS {
                let Ok(length) = socket.receive(&mut buffer) else { break };
                let packet = buffer.get(..length).unwrap_or_default();
                conflict |= arp::is_conflict(packet, port.mac, *address);
            }
            if conflict {
                self.step(port, &Event::Conflict);
            }
        }
        self.step(port, &Event::Timer);
    }

    fn receive(&self, mac: [u8; 6]) -> Option<Answer> {
        let xid = self.client.xid();
        udp::receive(self.socket.as_ref(), |packet| dhcp4::read(packet, xid, mac))
    }

    fn step(&mut self, port: &mut Port, event: &Event<'_>) {
        let mut actions = Vec::new();
        self.client.step(uptime(), event, &mut actions);
        for action in actions {
            self.act(port, action);
        }
        if !self.client.is_asking() {
            self.socket = None;
        }
    }

    fn act(&mut self, port: &mut Port, action: Action) {
        match action {
            Action::Send(ask, server) => {
                let asker = Asker {
                    mac: port.mac,
                    hostname: port.hostname.as_deref(),
                    xid: self.client.xid(),
                    seconds: self.client.seconds(uptime()),
                };
                let packet = dhcp4::write(ask, &asker);
                let server = server.filter(|server| !server.is_unspecified());
                let to = SocketAddrV4::new(server.unwrap_or(Ipv4Addr::BROADCAST), SERVER_PORT);
                let sent = udp::send(&mut self.socket, || open(&port.name), &packet, to.into());
                if let Err(error) = sent {
                    port.say_once("cannot ask for an address", &error);
                }
            }
            Action::Probe(address) => {
                // Where it cannot be asked, the address is taken as it is.
                self.probe = ArpSocket::open(port.index)
                    .and_then(|socket| {
                        socket.broadcast(&arp::probe(port.mac, address)).map(|()| (socket, address))
                    })
                    .ok();
            }
            Action::Use(lease) => {
                self.probe = None;
                self.take(port, &lease);
            }
            Action::Lose(address, why) => {
                self.probe = None;
                let because = match why {
                    Why::Refused(None) => "the server takes it back".to_owned(),
                    Why::Refused(Some(text)) => format!("the server takes it back: {text}"),
                    Why::Over => "its lease is over".to_owned(),
                    Why::Conflict => "another machine uses it".to_owned(),
                };
                say(&format!("{} has {address} no longer: {because}", port.name));
                self.lose(port);
            }
            Action::Silence => {
                say(&format!("no DHCP server answers on {}; still asking", port.name))
            }
        }
    }

    /// Uses what a lease gives, and gives up what the one before gave and this one does not.
    fn take(&mut self, port: &mut Port, lease: &Lease) {
        let answer = &lease.answer;
        let lifetimes = lease.times.map(|times| {
            let left = times.end.saturating_sub(uptime());
            (left, left)
        });
        let ip = IpAddr::V4(answer.address);
        let address = Address { ip, prefix: answer.prefix, lifetimes, alone: false };
        let routes = routes(answer, port.metric());
        let is_new = self
            .used
            .as_ref()
            .is_none_or(|(old, _)| (old.ip, old.prefix) != (address.ip, address.prefix));
        if let Some((old, old_routes)) = self.used.take() {
            for route in old_routes.iter().filter(|route| !routes.contains(route)) {
                let _ = port.kernel.remove_route(port.index, route);
            }
            if is_new {
                let _ = port.kernel.remove_address(port.index, &old);
            }
        }
        if let Some(mtu) = answer.mtu.map(u32::from).filter(|_| port.settings.mtu.is_none()) {
            port.set_mtu(mtu);
        }
        if let Err(error) = port.kernel.add_address(port.index, &address) {
            say(&format!("{} cannot use the address {ip}: {error}", port.name));
        }
        for route in &routes {
            port.add_route(route);
        }
        self.used = Some((address, routes));
        let texts = |list: &[Ipv4Addr]| list.iter().map(Ipv4Addr::to_string).collect();
        let told = Told {
            servers: texts(&answer.name_servers),
            search: answer.search.clone(),
            time_servers: texts(&answer.time_servers),
        };
        port.tell(Source::Dhcp4, told);
        port.write_lease("lease", &text(&port.name, lease));
        if let Some(name) = answer.hostname.as_deref().filter(|_| port.takes_hostname) {
            let _ = nix::unistd::sethostname(name);
        }
        if is_new {
            // Neighbours that knew another machine under this address learn of us.
            if let Ok(socket) = ArpSocket::open(port.index) {
                let _ = socket.broadcast(&arp::announcement(port.mac, answer.address));
            }
            port.has(ip);
        }
    }

    /// Gives up everything that came with the lease.
    pub(super) fn lose(&mut self, port: &mut Port) {
        if let Some((address, routes)) = self.used.take() {
            for route in &routes {
                let _ = port.kernel.remove_route(port.index, route);
            }
            let _ = port.kernel.remove_address(port.index, &address);
        }
        port.tell(Source::Dhcp4, Told::default());
        port.remove_lease("lease");
    }
}

fn open(name: &str) -> io::Result<UdpSocket> {
    let socket = udp::open(AddressFamily::Inet, name)?;
    setsockopt(&socket, sockopt::Broadcast, &true)?;
    let any = SockaddrIn::from(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, CLIENT_PORT));
    bind(std::os::fd::AsRawFd::as_raw_fd(&socket), &any)?;
    Ok(socket.into())
}

/// Returns the routes of a lease, those on the link first: routers may be reached over them.
fn routes(answer: &Answer, metric: u32) -> Vec<Route> {
    let own = network(answer.address.into(), answer.prefix);
    let mut routes: Vec<Route> = answer
        .routes
        .iter()
        .map(|&(to, prefix, via)| Route {
            to: to.into(),
            prefix,
            via: via.map(IpAddr::V4),
            source: Some(answer.address),
            metric,
            // A router outside the address's own network must be on the link all the same.
            on_link: via.is_some_and(|via| network(via.into(), answer.prefix) != own),
        })
        .collect();
    routes.sort_by_key(|route| route.via.is_some());
    routes
}

/// Writes a lease for people and for shells; everything in it is without blanks and quotes.
fn text(name: &str, lease: &Lease) -> String {
    let answer = &lease.answer;
    let mut text = format!("INTERFACE={name}\nADDRESS={}/{}\n", answer.address, answer.prefix);
    let mut line = |key: &str, words: Vec<String>| {
        if !words.is_empty() {
            let _ = writeln!(text, "{key}=\"{}\"", words.join(" "));
        }
    };
    let texts = |list: &[Ipv4Addr]| list.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>();
    line("SERVER", texts(&[answer.server]));
    let routes = answer.routes.iter().map(|(to, prefix, via)| match via {
        Some(via) => format!("{to}/{prefix},{via}"),
        None => format!("{to}/{prefix}"),
    });
    line("ROUTES", routes.collect());
    line("DNS", texts(&answer.name_servers));
    line("SEARCH", answer.search.clone());
    line("NTP", texts(&answer.time_servers));
    line("HOSTNAME", answer.hostname.iter().cloned().collect());
    line("MTU", answer.mtu.iter().map(u16::to_string).collect());
    if let Some(times) = lease.times {
        // Seconds since the machine started, as /proc/uptime counts them.
        for (key, time) in [("RENEW", times.renew), ("REBIND", times.rebind), ("END", times.end)] {
            line(key, vec![time.as_secs().to_string()]);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        let options = [53, 1, 5, 1, 4, 255, 255, 255, 0, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 120];
        let asker = Asker { mac: [2; 6], hostname: None, xid: 1, seconds: 0 };
        let mut packet = dhcp4::write(dhcp4::Ask::Discover { wish: None }, &asker);
        packet.truncate(240);
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 0, 0, 5]);
        packet.extend(options);
        dhcp4::read(&packet, 1, [2; 6]).unwrap()
    }

    #[test]
    fn routes_on_the_link_come_first_and_a_router_far_off_is_on_the_link() {
        let mut answer = answer();
        let near = Ipv4Addr::new(10, 0, 0, 1);
        let far = Ipv4Addr::new(192, 0, 2, 1);
        answer.routes = vec![
            (Ipv4Addr::UNSPECIFIED, 0, Some(far)),
            (Ipv4Addr::new(10, 9, 0, 0), 16, Some(near)),
            (far, 32, None),
        ];
        let routes = routes(&answer, 100);
        let shape: Vec<(bool, bool)> =
            routes.iter().map(|route| (route.via.is_some(), route.on_link)).collect();
        assert_eq!(shape, [(false, false), (true, true), (true, false)]);
        assert!(routes.iter().all(|route| route.metric == 100 && route.source.is_some()));
    }

    #[test]
    fn a_lease_is_written_so_that_a_shell_can_read_it() {
        let mut answer = answer();
        answer.search = vec!["lab".to_owned(), "example".to_owned()];
        let lease = Lease { answer, times: None };
        assert_eq!(
            text("eth0", &lease),
            "INTERFACE=eth0\nADDRESS=10.0.0.5/24\nSERVER=\"10.0.0.1\"\nSEARCH=\"lab example\"\n"
        );
    }
}
