//! Brings the network up and keeps its address.

mod interface;
pub(crate) mod link;
mod message;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::clock::uptime;
use crate::console::say;
use crate::error::BootError;
use crate::modules::Loader;
use crate::sys::InterfaceControl;
use interface::Card;
use message::{Answer, Ask, Kind};

/// How long a card may take to appear, and its link to come up.
const CARD_APPEARS: Duration = Duration::from_secs(20);
const LINK_COMES_UP: Duration = Duration::from_secs(15);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// The first wait for an answer, doubled up to the longest.
const FIRST_ANSWER: Duration = Duration::from_secs(1);
const LONGEST_ANSWER: Duration = Duration::from_secs(16);
const SHORTEST_LEASE: Duration = Duration::from_secs(30);

/// Switches loopback on.
pub(crate) fn set_up_loopback() {
    let result = InterfaceControl::open().and_then(|control| control.set_up("lo"));
    if let Err(error) = result {
        say(&format!("loopback stays off: {error}"));
    }
}

/// Waits for the card of this machine, loading drivers as its buses come up. Without a wanted
/// address it is the first card with a link, or the first.
pub(crate) fn find_card(wanted: Option<&str>, loader: &mut Loader) -> Option<Card> {
    let wanted = wanted.and_then(interface::parse_mac);
    let start = uptime();
    loop {
        let cards = interface::cards();
        let waited = uptime().saturating_sub(start);
        if let Some(mac) = wanted {
            if let Some(card) = cards.iter().find(|card| card.mac == mac) {
                return Some(card.clone());
            }
        } else if !cards.is_empty() {
            if let Ok(control) = InterfaceControl::open() {
                for card in &cards {
                    let _ = control.set_up(&card.name);
                }
            }
            let linked = cards.iter().find(|card| interface::has_carrier(&card.name));
            if linked.is_some() || waited > LINK_COMES_UP {
                return linked.or_else(|| cards.first()).cloned();
            }
        }
        if waited > CARD_APPEARS {
            return None;
        }
        loader.load_for_hardware();
        sleep(LOOK_AGAIN);
    }
}

/// Gets an address for the card in the background and keeps it. The first address is sent to the
/// receiver; the thread goes on trying as long as there is none.
pub(crate) fn start(card: Card, hostname: Option<String>) -> Result<Receiver<Ipv4Addr>, BootError> {
    let (told, receiver) = channel();
    std::thread::Builder::new()
        .name("network".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            let mut client = Client { card, hostname, xid: first_xid() };
            loop {
                let answer = client.get_address();
                if let Err(error) = client.apply(&answer) {
                    say(&format!("cannot use the address {}: {error}", answer.address));
                    sleep(LONGEST_ANSWER);
                    continue;
                }
                // Only the first has somebody waiting.
                let _ = told.send(answer.address);
                client.keep(answer);
            }
        })
        .map_err(|source| BootError::StartThread("network", source))?;
    Ok(receiver)
}

struct Client {
    card: Card,
    hostname: Option<String>,
    xid: u32,
}

impl Client {
    /// Asks until a server gives an address.
    fn get_address(&mut self) -> Answer {
        self.wait_for_link();
        let mut patience = FIRST_ANSWER;
        let mut told = false;
        loop {
            match self.try_to_get_address(patience) {
                Ok(Some(answer)) => return answer,
                Ok(None) if !told && patience > FIRST_ANSWER * 4 => {
                    say(&format!("no DHCP server answers on {}; still asking", self.card.name));
                    told = true;
                }
                Ok(None) => {}
                Err(error) => {
                    if !told {
                        say(&format!("cannot ask for an address on {}: {error}", self.card.name));
                        told = true;
                    }
                    sleep(patience);
                }
            }
            patience = (patience * 2).min(LONGEST_ANSWER);
        }
    }

    fn wait_for_link(&self) {
        if let Ok(control) = InterfaceControl::open()
            && let Err(error) = control.set_up(&self.card.name)
        {
            say(&format!("cannot switch {} on: {error}", self.card.name));
        }
        let start = uptime();
        while !interface::has_carrier(&self.card.name)
            && uptime().saturating_sub(start) < LINK_COMES_UP
        {
            sleep(LOOK_AGAIN);
        }
    }

    fn try_to_get_address(&mut self, patience: Duration) -> io::Result<Option<Answer>> {
        let socket = self.open(Ipv4Addr::UNSPECIFIED)?;
        self.xid = self.xid.wrapping_add(1);
        let everyone = SocketAddrV4::new(Ipv4Addr::BROADCAST, 67);
        let Some(offer) =
            self.exchange(&socket, Ask::Discover, everyone, patience, |kind| kind == Kind::Offer)?
        else {
            return Ok(None);
        };
        let take = Ask::Select { address: offer.address, server: offer.server };
        let answer =
            self.exchange(&socket, take, everyone, patience, |kind| kind != Kind::Offer)?;
        Ok(answer.filter(|answer| answer.kind == Kind::Ack))
    }

    /// Renews the lease at half its time. Returns when the address is lost.
    fn keep(&mut self, mut lease: Answer) {
        loop {
            let length = lease.lease.max(SHORTEST_LEASE);
            if length.as_secs() >= u64::from(u32::MAX) {
                loop {
                    // An endless lease; nothing to do ever again.
                    sleep(Duration::from_secs(86400));
                }
            }
            let end = uptime() + length;
            sleep(length / 2);
            loop {
                match self.renew(&lease) {
                    Ok(Some(answer)) if answer.kind == Kind::Ack => {
                        lease = answer;
                        break;
                    }
                    Ok(Some(_)) => {
                        say(&format!("the server takes the address {} back", lease.address));
                        return;
                    }
                    Ok(None) | Err(_) => {}
                }
                let left = end.saturating_sub(uptime());
                if left.is_zero() {
                    say(&format!("the lease of {} is over", lease.address));
                    return;
                }
                sleep((left / 4).max(FIRST_ANSWER).min(left));
            }
        }
    }

    fn renew(&mut self, lease: &Answer) -> io::Result<Option<Answer>> {
        let socket = self.open(lease.address)?;
        self.xid = self.xid.wrapping_add(1);
        let to = SocketAddrV4::new(lease.server, 67);
        let ask = Ask::Renew { address: lease.address };
        self.exchange(&socket, ask, to, FIRST_ANSWER * 4, |kind| kind != Kind::Offer)
    }

    fn open(&self, own: Ipv4Addr) -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind(SocketAddrV4::new(own, 68))?;
        socket.set_broadcast(true)?;
        setsockopt(&socket, sockopt::BindToDevice, &self.card.name.clone().into())?;
        Ok(socket)
    }

    /// Sends once and waits for an answer that is wanted.
    fn exchange(
        &self,
        socket: &UdpSocket,
        ask: Ask,
        to: SocketAddrV4,
        patience: Duration,
        wanted: impl Fn(Kind) -> bool,
    ) -> io::Result<Option<Answer>> {
        let packet = message::write(ask, self.xid, self.card.mac, self.hostname.as_deref());
        socket.send_to(&packet, to)?;
        let end = uptime() + patience;
        let mut buffer = [0; 1500];
        loop {
            let left = end.saturating_sub(uptime());
            if left.is_zero() {
                return Ok(None);
            }
            socket.set_read_timeout(Some(left))?;
            let length = match socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) =>
                {
                    return Ok(None);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let packet = buffer.get(..length).unwrap_or_default();
            if let Some(answer) = message::read(packet, self.xid, self.card.mac)
                && wanted(answer.kind)
            {
                return Ok(Some(answer));
            }
        }
    }

    fn apply(&self, answer: &Answer) -> io::Result<()> {
        let control = InterfaceControl::open()?;
        control.set_address(&self.card.name, answer.address, answer.mask)?;
        if let Some(router) = answer.routers.first()
            && let Err(error) = control.set_default_route(*router)
        {
            say(&format!("no default route over {router}: {error}"));
        }
        write_resolver(answer)
    }
}

fn write_resolver(answer: &Answer) -> io::Result<()> {
    std::fs::create_dir_all("/run/resolvconf")?;
    let mut text = String::new();
    if let Some(domain) = &answer.domain {
        text.push_str(&format!("search {domain}\n"));
    }
    for server in &answer.name_servers {
        text.push_str(&format!("nameserver {server}\n"));
    }
    let next = "/run/resolvconf/.resolv.conf";
    std::fs::File::create(next)?.write_all(text.as_bytes())?;
    std::fs::rename(next, "/run/resolvconf/resolv.conf")
}

/// A number that another machine hardly has at the same time.
fn first_xid() -> u32 {
    use std::hash::{BuildHasher, RandomState};
    let hash = RandomState::new().hash_one(uptime());
    u32::try_from(hash & u64::from(u32::MAX)).unwrap_or_default()
}
