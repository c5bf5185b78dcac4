//! Other DHCPv6 servers on the wire: asks for an address and for options, as firmware does, and listens.

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::time::Duration;

use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::Finding;
use super::dhcp::nobody;
use crate::dhcp::client::{Answer6, Asker6};
use crate::net::links;
use crate::settings::{Dhcp6Mode, Settings, Subnet6Settings};

const CHECK: &str = "dhcpv6";
/// How long servers have for an answer.
const LISTEN: Duration = Duration::from_secs(3);
/// Servers that are kept.
const MOST: usize = 32;
/// All servers and relays of a link (RFC 8415 §7.1).
const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// What one server has said.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    server: Ipv6Addr,
    gives: bool,
    boots: bool,
}

pub(super) async fn examine(settings: &Settings, interface: &str) -> Vec<Finding> {
    let subnets: Vec<&Subnet6Settings> =
        settings.subnets6.iter().filter(|subnet| subnet.interface == interface).collect();
    match ask(interface).await {
        Ok(offers) => judge(&subnets, interface, &offers),
        // Most networks have no IPv6, and need none.
        Err(_) if subnets.is_empty() => Vec::new(),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "run this as root".to_owned(),
                io::ErrorKind::AddrInUse => {
                    "a DHCPv6 client of this host has port 546: stop it for a moment (`ss -lunp sport = :546`)"
                        .to_owned()
                }
                _ => format!("ip -6 address show {interface}; it needs an address that begins with fe80"),
            };
            vec![Finding::doubtful(CHECK, interface, format!("cannot ask: {error}"), remedy)]
        }
    }
}

async fn ask(interface: &str) -> io::Result<Vec<Offer>> {
    let index = if_nametoindex(interface)?;
    let socket = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_only_v6(true)?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 546, 0, 0).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let (mac, [a, b, c, _]) = nobody()?;
    let asker = Asker6 { mac, xid: [a, b, c] };
    let everyone = SocketAddrV6::new(SERVERS, 547, 0, index);
    for question in [asker.solicit(), asker.inform()] {
        socket.send_to(&question.map_err(io::Error::other)?, everyone).await?;
    }
    let own: Vec<Ipv6Addr> = links()?
        .into_iter()
        .filter(|link| link.name == interface)
        .flat_map(|link| link.addresses6)
        .map(|(address, _)| address)
        .collect();
    let end = Instant::now() + LISTEN;
    let (mut offers, mut packet) = (Vec::<Offer>::new(), [0; 1500]);
    while let Ok(received) = timeout_at(end, socket.recv_from(&mut packet)).await {
        let (length, from) = received?;
        let (SocketAddr::V6(from), Ok(answer)) =
            (from, Answer6::decode(packet.get(..length).unwrap_or_default()))
        else {
            continue;
        };
        if answer.xid != asker.xid || own.contains(from.ip()) {
            continue;
        }
        let (server, gives, boots) =
            (*from.ip(), answer.address.is_some(), answer.boot_file.is_some());
        if let Some(known) = offers.iter_mut().find(|known| known.server == server) {
            known.gives |= gives;
            known.boots |= boots;
        } else if offers.len() < MOST {
            offers.push(Offer { server, gives, boots });
        }
    }
    Ok(offers)
}

fn judge(subnets: &[&Subnet6Settings], interface: &str, offers: &[Offer]) -> Vec<Finding> {
    let list = |wanted: fn(&Offer) -> bool| {
        let names = offers.iter().filter(|offer| wanted(offer));
        names.map(|offer| IpAddr::from(offer.server).to_string()).collect::<Vec<_>>().join(", ")
    };
    let serves = subnets.iter().any(|subnet| subnet.dhcp != Dhcp6Mode::Off);
    let gives = subnets.iter().any(|subnet| subnet.dhcp == Dhcp6Mode::Stateful);
    let (others, booting, all) =
        (list(|offer| offer.gives), list(|offer| offer.boots), list(|_| true));
    let mut findings = Vec::new();
    if gives && !others.is_empty() {
        findings.push(Finding::doubtful(
            CHECK,
            interface,
            format!("{others} gives addresses of IPv6 here too"),
            "let one of the two give addresses: switch the other off, or set [[subnet6]] dhcp = \"stateless\"; \
             firmware takes the server with the higher preference",
        ));
    }
    if serves && !booting.is_empty() {
        findings.push(Finding::doubtful(
            CHECK,
            interface,
            format!("{booting} names boot files by DHCPv6 here too"),
            "take the boot file URL (option 59) out of the other server",
        ));
    }
    if findings.is_empty() {
        let found = if all.is_empty() {
            "no other server answers".to_owned()
        } else {
            format!("{all} answers")
        };
        findings.push(Finding::good(CHECK, interface, found));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn other_servers_are_judged_by_what_this_one_is_to_do() {
        let network = "fd77::".parse().unwrap();
        let subnet = |dhcp| Subnet6Settings {
            dhcp,
            ..Subnet6Settings::new(network, 64, "eth0", "fd77::1".parse().unwrap())
        };
        let offer = |gives, boots| Offer { server: "fe80::2".parse().unwrap(), gives, boots };
        let says = |mode, offers: &[Offer]| {
            let found = judge(&[&subnet(mode)], "eth0", offers);
            (found[0].verdict, found[0].found.clone())
        };
        let (stateful, stateless) = (Dhcp6Mode::Stateful, Dhcp6Mode::Stateless);
        assert_eq!(says(stateful, &[]).1, "no other server answers");
        let two = says(stateful, &[offer(true, false)]);
        assert_eq!(two, (Verdict::Doubtful, "fe80::2 gives addresses of IPv6 here too".to_owned()));
        assert_eq!(says(stateless, &[offer(true, false)]).1, "fe80::2 answers");
        assert_eq!(says(stateless, &[offer(true, true)]).0, Verdict::Doubtful);
        assert_eq!(says(Dhcp6Mode::Off, &[offer(true, true)]).0, Verdict::Good);
        assert_eq!(judge(&[], "eth0", &[]).len(), 1);
    }

    #[tokio::test]
    async fn an_interface_that_is_not_there_is_told() {
        assert!(ask("no-such-0").await.is_err());
    }
}
