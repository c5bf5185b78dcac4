//! Clients of DHCPv6, many at a time. perfdhcp asks from one address of the link, of which a server takes but few
//! packets a second; here each client has its own, as machines have.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kiln::lab::Neighbour;
use nix::net::if_::if_nametoindex;
use tokio::time::Instant;

const SOLICIT: u8 = 1;
const ADVERTISE: u8 = 2;
const REQUEST: u8 = 3;
const RENEW: u8 = 5;
const REPLY: u8 = 7;

/// After this long without an answer a question is put again.
const SILENCE: Duration = Duration::from_millis(250);
/// How often, before the client begins anew.
const TRIES: u32 = 8;
/// Between two packets of one client: servers take 20 in a second.
const PAUSE: Duration = Duration::from_millis(55);
/// How long a client that takes either server waits for a second offer.
const SECOND: Duration = Duration::from_millis(100);

/// An address that was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Told {
    /// The address.
    pub(crate) address: Ipv6Addr,
    /// Whom it was given to.
    pub(crate) duid: Vec<u8>,
    /// By which server.
    pub(crate) server: Vec<u8>,
}

/// What clients ask, and where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load6<'a> {
    /// The host that they are on, by its port `p0`.
    pub(crate) host: &'a Neighbour,
    /// Clients at a time.
    pub(crate) clients: u8,
    /// Whether there are two servers, of which they take now the one, now the other.
    pub(crate) two: bool,
    /// Tells them to stop.
    pub(crate) ended: &'a AtomicBool,
    /// Counts what they were told.
    pub(crate) count: &'a AtomicU32,
}

impl Load6<'_> {
    /// Gives the host an address of the link for each client.
    pub(crate) fn prepare(host: &Neighbour, clients: u8) -> anyhow::Result<()> {
        let mut ip =
            host.command("ip").args(["-6", "-batch", "-"]).stdin(Stdio::piped()).spawn()?;
        let mut stdin = ip.stdin.take().context("no input")?;
        for client in 0..clients {
            writeln!(stdin, "address add {}/64 dev p0 nodad", link_local(client))?;
        }
        drop(stdin);
        ensure!(ip.wait()?.success(), "no addresses of the link for the clients");
        Ok(())
    }

    /// Has every client ask for one address after the other until it is told to stop, and returns all that they were
    /// told. It is an error when a server forgets what it has acknowledged.
    pub(crate) fn run(self) -> anyhow::Result<Vec<Told>> {
        std::thread::scope(|scope| {
            let clients: Vec<_> =
                (0..self.clients).map(|number| scope.spawn(move || self.client(number))).collect();
            let mut all = Vec::new();
            for client in clients {
                all.extend(client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??);
            }
            Ok(all)
        })
    }

    fn client(self, number: u8) -> anyhow::Result<Vec<Told>> {
        self.host.enter()?;
        let scope = if_nametoindex("p0")?;
        let socket = UdpSocket::bind(SocketAddrV6::new(link_local(number), 546, 0, scope))?;
        let servers = SocketAddrV6::new("ff02::1:2".parse()?, 547, 0, scope);
        let mut client = Client { load: self, socket, servers, told: Vec::new(), xid: 0 };
        for turn in 0_u16.. {
            if self.ended.load(Ordering::Relaxed) {
                break;
            }
            let [high, low] = turn.to_be_bytes();
            let mac = [2, 0, number, 0, high, low];
            let Some(told) = client.lease(&[&[0, 3, 0, 1][..], &mac].concat())? else { continue };
            // Now and then what was told before the last kill.
            if turn % 8 == 7 {
                client.renew(&told)?;
            }
        }
        Ok(client.told)
    }
}

fn link_local(client: u8) -> Ipv6Addr {
    [0xfe80, 0, 0, 0, 0, 0, 1, u16::from(client) + 1].into()
}

/// A client, which is another one for each address.
struct Client<'a> {
    load: Load6<'a>,
    socket: UdpSocket,
    servers: SocketAddrV6,
    told: Vec<Told>,
    xid: u16,
}

impl Client<'_> {
    /// Asks for an address as a new client. Without an answer in a long time there is none.
    fn lease(&mut self, duid: &[u8]) -> anyhow::Result<Option<Told>> {
        let Some(offer) = self.ask(SOLICIT, duid, None)? else { return Ok(None) };
        self.ask(REQUEST, duid, Some(&offer))
    }

    fn renew(&mut self, old: &Told) -> anyhow::Result<()> {
        if let Some(now) = self.ask(RENEW, &old.duid, Some(old))? {
            ensure!(now.address == old.address, "{} was forgotten: {}", old.address, now.address);
        }
        Ok(())
    }

    fn ask(&mut self, kind: u8, duid: &[u8], about: Option<&Told>) -> anyhow::Result<Option<Told>> {
        self.xid = self.xid.wrapping_add(1);
        let [high, low] = self.xid.to_be_bytes();
        let mut packet = vec![kind, 7, high, low];
        option(&mut packet, 1, duid);
        option(&mut packet, 8, &[0, 0]);
        let mut association = [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0].to_vec();
        if let Some(told) = about {
            option(&mut packet, 2, &told.server);
            option(&mut association, 5, &[&told.address.octets()[..], &[0; 8]].concat());
        }
        option(&mut packet, 3, &association);
        for _ in 0..TRIES {
            if self.load.ended.load(Ordering::Relaxed) {
                break;
            }
            std::thread::sleep(PAUSE);
            match self.socket.send_to(&packet, self.servers) {
                Err(error) if error.kind() != ErrorKind::ConnectionRefused => {
                    return Err(error.into());
                }
                _ => {}
            }
            let wanted = if kind == SOLICIT { ADVERTISE } else { REPLY };
            let mut answers = self.listen(wanted, [high, low])?;
            if !answers.is_empty() {
                let last = answers.len() - 1;
                return Ok(Some(answers.swap_remove(usize::from(self.xid) / 2 % 2 * last)));
            }
        }
        Ok(None)
    }

    /// Waits for the answers to a question. An acknowledgement counts even when nobody waits for it any more.
    fn listen(&mut self, wanted: u8, xid: [u8; 2]) -> anyhow::Result<Vec<Told>> {
        let mut buffer = [0; 2048];
        let mut until = Instant::now() + SILENCE;
        let mut answers = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(answers);
            }
            self.socket.set_read_timeout(Some(left))?;
            let length = match self.socket.recv(&mut buffer) {
                Ok(length) => length,
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Ok(answers),
                    ErrorKind::ConnectionRefused | ErrorKind::Interrupted => continue,
                    _ => return Err(error.into()),
                },
            };
            let Some((kind, of, answer)) = read(&buffer[..length]) else { continue };
            if kind == REPLY {
                self.load.count.fetch_add(1, Ordering::Relaxed);
                self.told.push(answer.clone());
            }
            if kind == wanted && of == xid {
                let more = wanted == ADVERTISE && self.load.two && answers.is_empty();
                answers.push(answer);
                if !more {
                    return Ok(answers);
                }
                until = Instant::now() + SECOND;
            }
        }
    }
}

fn option(packet: &mut Vec<u8>, code: u8, value: &[u8]) {
    let length = u16::try_from(value.len()).unwrap_or(0);
    packet.extend([0, code]);
    packet.extend(length.to_be_bytes());
    packet.extend(value);
}

/// Reads an answer that has an address in it: what it is, to which question, and what it tells.
fn read(packet: &[u8]) -> Option<(u8, [u8; 2], Told)> {
    let [kind, 7, high, low, options @ ..] = packet else { return None };
    let find = |code| options_of(options).find(|(of, _)| *of == code).map(|(_, value)| value);
    let association = find(3)?.get(12..)?;
    let given = options_of(association).find(|(of, _)| *of == 5)?.1;
    let (address, times) = given.split_first_chunk::<16>()?;
    // The address is taken away when it is good for no time.
    times.get(4..8).filter(|valid| *valid != [0; 4])?;
    let told =
        Told { address: (*address).into(), duid: find(1)?.to_vec(), server: find(2)?.to_vec() };
    Some((*kind, [*high, *low], told))
}

fn options_of(mut area: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let [a, b, c, d, rest @ ..] = area else { return None };
        let (value, after) = rest.split_at_checked(u16::from_be_bytes([*c, *d]).into())?;
        area = after;
        Some((u16::from_be_bytes([*a, *b]), value))
    })
}

/// Returns who was told that an address is his, once it is sure that nobody else was.
pub(crate) fn owners(told: &[Told]) -> anyhow::Result<BTreeMap<Ipv6Addr, &[u8]>> {
    let mut owner = BTreeMap::new();
    for Told { address, duid, .. } in told {
        let first = *owner.entry(*address).or_insert(duid.as_slice());
        if first != duid {
            bail!("{address} was given to {first:x?} and to {duid:x?}");
        }
    }
    Ok(owner)
}
