//! Other DHCP servers on the wire: asks once, as firmware does, and listens.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::Finding;
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
    let mut random = [0; 9];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::Error::other("no randomness"))?;
    let (xid, mac) = (u32::from_be_bytes([random[0], random[1], random[2], random[3]]), {
        // Locally administered, so that it is nobody's.
        [0x02, random[4], random[5], random[6], random[7], random[8]]
    });
    let discover = discover(xid, mac);
    let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
    socket.send_to(&discover, everyone).await?;
    let end = Instant::now() + LISTEN;
    let (mut offers, mut packet) = (Vec::new(), [0; 1500]);
    while let Ok(received) = timeout_at(end, socket.recv_from(&mut packet)).await {
        let (length, from) = received?;
        let bytes = packet.get(..length).unwrap_or_default();
        let SocketAddr::V4(from) = from else { continue };
        if let Some(offer) = parse(bytes, xid, *from.ip())
            && !offers.contains(&offer)
            && offers.len() < MAX_OFFERS
        {
            offers.push(offer);
        }
    }
    Ok(offers)
}

/// Returns what UEFI firmware of a machine that nobody knows would send (RFC 2131 §2, RFC 4578).
fn discover(xid: u32, mac: [u8; 6]) -> Vec<u8> {
    let mut packet = vec![1, 1, 6, 0];
    packet.extend(xid.to_be_bytes());
    // The answer has to come by broadcast: this host has not the hardware address.
    packet.extend([0, 0, 0x80, 0]);
    packet.extend([0; 16]);
    packet.extend(mac);
    packet.resize(236, 0);
    packet.extend([99, 130, 83, 99, 53, 1, 1, 55, 6, 1, 3, 43, 54, 66, 67]);
    packet.extend([60, 32]);
    packet.extend(b"PXEClient:Arch:00007:UNDI:003000");
    packet.extend([93, 2, 0, 7, 94, 3, 1, 3, 0, 255]);
    packet.resize(300.max(packet.len()), 0);
    packet
}

/// Reads an answer to this question.
fn parse(packet: &[u8], xid: u32, from: Ipv4Addr) -> Option<Offer> {
    let field = |at: usize| packet.get(at..at + 4)?.first_chunk::<4>().copied();
    if packet.first() != Some(&2)
        || field(4)? != xid.to_be_bytes()
        || field(236)? != [99, 130, 83, 99]
    {
        return None;
    }
    let yours = Ipv4Addr::from(field(16)?);
    let mut offer = Offer {
        server: from,
        address: (!yours.is_unspecified()).then_some(yours),
        boots: packet.get(108).is_some_and(|first| *first != 0),
    };
    let (mut rest, mut is_offer) = (packet.get(240..)?, false);
    while let Some((code, after)) = rest.split_first() {
        match code {
            0 => {
                rest = after;
                continue;
            }
            255 => break,
            _ => {}
        }
        let Some((length, after)) = after.split_first() else { break };
        let Some((value, after)) = after.split_at_checked((*length).into()) else { break };
        rest = after;
        match (code, value) {
            (53, [2]) => is_offer = true,
            (54, value) => {
                if let Some(octets) = value.first_chunk::<4>() {
                    offer.server = Ipv4Addr::from(*octets);
                }
            }
            (67 | 43, value) if !value.is_empty() => offer.boots = true,
            _ => {}
        }
    }
    is_offer.then_some(offer)
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
        let found = match list(&others.clone()) {
            none if none.is_empty() => "no other server answers".to_owned(),
            servers => format!("{servers} gives addresses"),
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
    fn an_answer_is_read_whatever_is_wrong_with_it() {
        let mut packet = discover(7, [2, 0, 0, 0, 0, 1]);
        assert_eq!(packet.len(), 300);
        assert_eq!(parse(&packet, 7, Ipv4Addr::LOCALHOST), None, "a question is no answer");
        packet[0] = 2;
        packet[16..20].copy_from_slice(&[10, 0, 0, 99]);
        packet.truncate(240);
        packet.extend([0, 53, 1, 2, 54, 4, 10, 0, 0, 2, 67, 1, b'a', 255]);
        let server = Ipv4Addr::new(10, 0, 0, 2);
        let whole = Offer { server, address: Some(Ipv4Addr::new(10, 0, 0, 99)), boots: true };
        assert_eq!(parse(&packet, 7, Ipv4Addr::LOCALHOST), Some(whole));
        assert_eq!(parse(&packet, 8, Ipv4Addr::LOCALHOST), None, "it is for somebody else");
        for length in 0..packet.len() {
            parse(&packet[..length], 7, Ipv4Addr::LOCALHOST);
        }
        packet.extend([54, 200]);
        assert!(parse(&packet, 7, Ipv4Addr::LOCALHOST).is_some());
    }
}
