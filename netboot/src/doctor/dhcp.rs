//! Other DHCP servers on the wire: asks once, as firmware does, and listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use kiln_types::Mac;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::Finding;
use crate::dhcp::client::{Answer, AnswerKind, Asker, Program};
use crate::net::links;
use crate::settings::{DhcpMode, Settings, SubnetSettings};

/// How long servers have for an answer. Some wait a second to see whether the address is in use.
const LISTEN: Duration = Duration::from_secs(4);
/// Answers that are kept.
const MAX_OFFERS: usize = 32;

/// What one server has offered.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Offer {
    server: Ipv4Addr,
    /// The address for the machine; none from a server that names boot files only.
    address: Option<Ipv4Addr>,
    boots: bool,
}

pub(super) async fn examine(settings: &Settings, interface: &str) -> Vec<Finding> {
    const CHECK: &str = "dhcp";
    let subnets: Vec<&SubnetSettings> =
        settings.subnets.iter().filter(|subnet| subnet.interface == interface).collect();
    match ask(interface).await {
        Ok(offers) => judge(&subnets, interface, &offers),
        Err(error) => {
            let remedy = match error.kind() {
                io::ErrorKind::PermissionDenied => "run this as root".to_owned(),
                io::ErrorKind::AddrInUse => {
                    "a DHCP client of this host has port 68: stop it for a moment (`ss -lunp sport = :68`)"
                        .to_owned()
                }
                _ => format!("ip link show {interface}"),
            };
            vec![Finding::doubtful(CHECK, interface, format!("cannot ask: {error}"), remedy)]
        }
    }
}

async fn ask(interface: &str) -> io::Result<Vec<Offer>> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(interface.as_bytes()))?;
    socket.set_reuse_address(true)?;
    socket.set_broadcast(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 68)).into())?;
    let socket = UdpSocket::from_std(socket.into())?;
    let (mac, [a, b, c, d]) = nobody()?;
    let xid = u32::from_be_bytes([a, b, c, d]);
    // UEFI firmware of a machine that nobody knows; its answers come by broadcast.
    let asker = Asker { mac, xid, program: Program::Firmware, relay: None };
    let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    socket.send_to(&asker.discover().map_err(io::Error::other)?, everyone).await?;
    // Servers that have no address for it may have options for who has one.
    let own = links()?.into_iter().find(|link| link.name == interface);
    if let Some((own, _)) = own.and_then(|link| link.addresses.first().copied()) {
        socket.send_to(&asker.inform(own).map_err(io::Error::other)?, everyone).await?;
    }
    let end = Instant::now() + LISTEN;
    let (mut offers, mut packet) = (Vec::<Offer>::new(), [0; 1500]);
    while let Ok(received) = timeout_at(end, socket.recv_from(&mut packet)).await {
        let (length, from) = received?;
        let bytes = packet.get(..length).unwrap_or_default();
        let SocketAddr::V4(from) = from else { continue };
        if let Some(offer) = parse(bytes, &asker, *from.ip()) {
            note(&mut offers, offer);
        }
    }
    Ok(offers)
}

/// Returns a hardware address that is nobody's, being administered locally and drawn by lot, and four bytes more.
pub(super) fn nobody() -> io::Result<(Mac, [u8; 4])> {
    let mut random = [0; 9];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let [a, b, c, d, e, rest @ ..] = random;
    Ok((Mac::new([0x02, a, b, c, d, e]), rest))
}

/// Reads an answer to one of these questions.
fn parse(packet: &[u8], asker: &Asker, from: Ipv4Addr) -> Option<Offer> {
    let answer = Answer::decode(packet).ok()?;
    if answer.xid != asker.xid || answer.mac != asker.mac || answer.kind == AnswerKind::Nak {
        return None;
    }
    let server = answer.server.unwrap_or(from);
    let boots = answer.boot_file.is_some() || answer.pxe;
    Some(Offer { server, address: answer.address, boots })
}

/// Keeps what a server says, once for each server.
fn note(offers: &mut Vec<Offer>, offer: Offer) {
    if let Some(known) = offers.iter_mut().find(|known| known.server == offer.server) {
        known.address = known.address.or(offer.address);
        known.boots |= offer.boots;
    } else if offers.len() < MAX_OFFERS {
        offers.push(offer);
    }
}

fn judge(subnets: &[&SubnetSettings], interface: &str, offers: &[Offer]) -> Vec<Finding> {
    const CHECK: &str = "dhcp";
    let ours = |offer: &Offer| subnets.iter().any(|subnet| subnet.address == offer.server);
    let list = |offers: &[&Offer]| {
        let names: Vec<_> = offers.iter().map(|offer| offer.server.to_string()).collect();
        names.join(", ")
    };
    let others: Vec<&Offer> = offers.iter().filter(|offer| !ours(offer)).collect();
    let give: Vec<&Offer> =
        others.iter().filter(|offer| offer.address.is_some()).copied().collect();
    let boot: Vec<&Offer> = others.iter().filter(|offer| offer.boots).copied().collect();
    let is = |mode| subnets.iter().any(|subnet| subnet.dhcp == mode);
    let mut findings = Vec::new();
    if is(DhcpMode::Server) && !give.is_empty() {
        findings.push(Finding::wrong(
            CHECK,
            interface,
            format!("{} gives addresses here too", list(&give)),
            "switch the other server off for this network, or set [[subnet]] dhcp = \"proxy\"",
        ));
    }
    if is(DhcpMode::Proxy) {
        match give.as_slice() {
            [] => findings.push(Finding::wrong(
                CHECK,
                interface,
                "nobody gives addresses here, and this server is not to",
                "start the other DHCP server, or set [[subnet]] dhcp = \"server\"",
            )),
            [_] => {}
            many => findings.push(Finding::doubtful(
                CHECK,
                interface,
                format!("{} all give addresses here", list(many)),
                "leave one of them",
            )),
        }
    }
    if !boot.is_empty() && !is(DhcpMode::Off) {
        findings.push(Finding::doubtful(
            CHECK,
            interface,
            format!("{} names boot files here too", list(&boot)),
            "take next-server, boot file and PXE options out of the other server: firmware takes whichever comes first",
        ));
    }
    if findings.is_empty() {
        let found = match (list(&give), list(&others)) {
            (_, none) if none.is_empty() => "no other server answers".to_owned(),
            (none, servers) if none.is_empty() => format!("{servers} answers"),
            (servers, _) => format!("{servers} gives addresses"),
        };
        findings.push(Finding::good(CHECK, interface, found));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    fn offer(server: u8, address: bool, boots: bool) -> Offer {
        let server = Ipv4Addr::new(10, 0, 0, server);
        Offer { server, address: address.then_some(Ipv4Addr::new(10, 0, 0, 99)), boots }
    }

    #[test]
    fn other_servers_are_judged_by_what_this_one_is_to_do() {
        let network = Ipv4Addr::new(10, 0, 0, 0);
        let subnet = |dhcp| SubnetSettings {
            dhcp,
            ..SubnetSettings::without_dhcp(network, 24, "eth0", Ipv4Addr::new(10, 0, 0, 1))
        };
        let says = |mode, offers: &[Offer]| {
            let subnet = subnet(mode);
            let found = judge(&[&subnet], "eth0", offers);
            (found[0].verdict, found[0].found.clone())
        };
        let (ours, theirs, proxy) =
            (offer(1, true, true), offer(2, true, false), offer(3, false, true));
        assert_eq!(says(DhcpMode::Server, &[]).1, "no other server answers");
        assert_eq!(says(DhcpMode::Server, &[ours]).1, "no other server answers");
        let two = says(DhcpMode::Server, std::slice::from_ref(&theirs));
        assert_eq!(two, (Verdict::Wrong, "10.0.0.2 gives addresses here too".to_owned()));
        assert_eq!(says(DhcpMode::Server, std::slice::from_ref(&proxy)).0, Verdict::Doubtful);
        assert_eq!(says(DhcpMode::Proxy, &[]).0, Verdict::Wrong);
        assert_eq!(
            says(DhcpMode::Proxy, std::slice::from_ref(&theirs)).1,
            "10.0.0.2 gives addresses"
        );
        assert_eq!(says(DhcpMode::Proxy, &[theirs.clone(), proxy]).0, Verdict::Doubtful);
        assert_eq!(says(DhcpMode::Off, &[theirs]).0, Verdict::Good);
    }

    #[test]
    fn what_a_server_says_twice_is_one_server() {
        let (mac, xid) = (Mac::new([2, 0, 0, 0, 0, 1]), 7);
        let asker = Asker { mac, xid, program: Program::Firmware, relay: None };
        let mut packet = asker.discover().unwrap();
        assert_eq!(parse(&packet, &asker, Ipv4Addr::LOCALHOST), None, "a question is no answer");
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 0, 0, 99]);
        packet.truncate(240);
        packet.extend([0, 53, 1, 2, 54, 4, 10, 0, 0, 2, 67, 1, b'a', 255]);
        let server = Ipv4Addr::new(10, 0, 0, 2);
        let whole = Offer { server, address: Some(Ipv4Addr::new(10, 0, 0, 99)), boots: true };
        let read = parse(&packet, &asker, Ipv4Addr::LOCALHOST).unwrap();
        assert_eq!(read, whole);
        let other = Asker { xid: 8, ..asker };
        assert_eq!(parse(&packet, &other, Ipv4Addr::LOCALHOST), None, "it is for somebody else");
        let mut offers = vec![Offer { address: None, boots: false, ..whole.clone() }];
        note(&mut offers, read);
        assert_eq!(offers, [whole]);
        assert_ne!(nobody().unwrap(), nobody().unwrap());
    }
}
