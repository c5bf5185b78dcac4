//! A TFTP client with windows and many transfers at a time, for `./dev bench`: no package of Debian has one.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::time::Instant;

/// What to measure; in the environment, as `SERVER NAME BLKSIZE WINDOWSIZE TRANSFERS`.
pub(crate) const VARIABLE: &str = "KILN_TFTP_CLIENT";
/// After this long without a packet, the last acknowledgement is sent again.
const SILENCE: Duration = Duration::from_millis(500);

/// Does what the variable says, and prints megabytes a second and how often a packet was waited for in vain.
pub(crate) fn run(task: &str) -> anyhow::Result<()> {
    let words: Vec<&str> = task.split_whitespace().collect();
    let [server, name, block, window, transfers] = words.as_slice() else {
        bail!("{VARIABLE} is SERVER NAME BLKSIZE WINDOWSIZE TRANSFERS, not `{task}`");
    };
    let server: SocketAddr = server.parse()?;
    let (block, window) = (block.parse()?, window.parse()?);
    let started = Instant::now();
    let all = fetch(server, name, block, window, transfers.parse()?)?;
    let took = started.elapsed().as_secs_f64();
    let bytes: u64 = all.iter().map(|one| one.bytes).sum();
    let waits: u64 = all.iter().map(|one| one.waits).sum();
    #[allow(clippy::print_stdout, reason = "the script that runs this reads it")]
    {
        println!("{:.1} {waits} {bytes}", bytes as f64 / 1e6 / took);
    }
    Ok(())
}

struct One {
    socket: UdpSocket,
    connected: bool,
    request: Vec<u8>,
    block: usize,
    window: u16,
    /// The last block that came in order, and how many since the last acknowledgement.
    last: u16,
    since: u16,
    bytes: u64,
    waits: u64,
    heard: Instant,
    done: bool,
}

impl One {
    fn start(server: SocketAddr, name: &str, block: usize, window: u16) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        let mut request = format!("\0\u{1}{name}\0octet\0blksize\0{block}\0");
        if window > 1 {
            request += &format!("windowsize\0{window}\0");
        }
        let request = request.into_bytes();
        socket.send_to(&request, server)?;
        let heard = Instant::now();
        Ok(Self {
            socket,
            connected: false,
            request,
            block: 512,
            window: 1,
            last: 0,
            since: 0,
            bytes: 0,
            waits: 0,
            heard,
            done: false,
        })
    }

    fn ack(&mut self) -> anyhow::Result<()> {
        self.since = 0;
        let [high, low] = self.last.to_be_bytes();
        self.socket.send(&[0, 4, high, low])?;
        Ok(())
    }

    /// Takes one packet; returns whether there was one.
    fn step(&mut self, packet: &mut [u8]) -> anyhow::Result<bool> {
        let length = if self.connected {
            self.socket.recv(packet)
        } else {
            self.socket.recv_from(packet).and_then(|(length, peer)| {
                self.socket.connect(peer)?;
                self.connected = true;
                Ok(length)
            })
        };
        let length = match length {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        ensure!(length >= 4, "a packet of {length} bytes");
        match packet[1] {
            3 => {
                let number = u16::from_be_bytes([packet[2], packet[3]]);
                if number != self.last.wrapping_add(1) {
                    // Something is missing: say once where it goes on.
                    if self.since > 0 {
                        self.ack()?;
                    }
                    return Ok(true);
                }
                self.last = number;
                self.since += 1;
                self.bytes += (length - 4) as u64;
                self.done = length < self.block + 4;
                if self.done || self.since == self.window {
                    self.ack()?;
                }
            }
            6 => {
                let text = String::from_utf8_lossy(&packet[2..length]).into_owned();
                let mut parts = text.split('\0');
                while let (Some(name), Some(value)) = (parts.next(), parts.next()) {
                    match name.to_ascii_lowercase().as_str() {
                        "blksize" => self.block = value.parse()?,
                        "windowsize" => self.window = value.parse()?,
                        _ => {}
                    }
                }
                self.ack()?;
            }
            _ => bail!("the server says {}", String::from_utf8_lossy(&packet[4..length])),
        }
        Ok(true)
    }

    fn nudge(&mut self, server: SocketAddr) -> anyhow::Result<()> {
        self.waits += 1;
        ensure!(self.waits < 100, "nothing comes");
        if self.connected {
            return self.ack();
        }
        self.socket.send_to(&self.request, server)?;
        Ok(())
    }
}

fn fetch(
    server: SocketAddr,
    name: &str,
    block: usize,
    window: u16,
    transfers: usize,
) -> anyhow::Result<Vec<One>> {
    let mut packet = vec![0; 70_000];
    let mut all = Vec::new();
    for _ in 0..transfers {
        all.push(One::start(server, name, block, window)?);
    }
    if let [one] = all.as_mut_slice() {
        // Nothing between the socket and its only user, as in firmware.
        one.socket.set_read_timeout(Some(SILENCE))?;
        while !one.done {
            if !one.step(&mut packet)? {
                one.nudge(server)?;
            }
        }
        return Ok(all);
    }
    let epoll = Epoll::new(EpollCreateFlags::empty())?;
    for (at, one) in all.iter().enumerate() {
        one.socket.set_nonblocking(true)?;
        epoll.add(&one.socket, EpollEvent::new(EpollFlags::EPOLLIN, at as u64))?;
    }
    let mut events = vec![EpollEvent::empty(); transfers];
    let (mut left, mut looked) = (transfers, Instant::now());
    while left > 0 {
        let ready = epoll.wait(&mut events, EpollTimeout::from(100_u16))?;
        let now = Instant::now();
        for event in &events[..ready] {
            let one = all.get_mut(usize::try_from(event.data())?).context("no such transfer")?;
            one.heard = now;
            // As many as a window, so that the others have their turn.
            for _ in 0..one.window {
                if one.done || !one.step(&mut packet)? {
                    break;
                }
            }
            if one.done {
                left -= 1;
                epoll.delete(&one.socket)?;
            }
        }
        if now - looked > Duration::from_millis(100) {
            looked = now;
            for one in all.iter_mut().filter(|one| !one.done && now - one.heard > SILENCE) {
                one.heard = now;
                one.nudge(server)?;
            }
        }
    }
    Ok(all)
}
