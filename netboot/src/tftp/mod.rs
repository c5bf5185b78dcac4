//! TFTP: loaders and the few other small files that firmware asks for.
//!
//! `wire` and `name` make checked types of bytes, `options` settles the terms, and `transfer` is the state of one
//! transfer: pure, the time is given to it. `listen` takes requests and looks files up, `engine` carries all transfers
//! of one address in a thread of its own. `library` is async-tftp behind the same trait.
//!
//! There is one server for each of our addresses, so that answers leave from the address that was asked: much firmware
//! drops those of any other.

mod content;
mod engine;
mod library;
mod listen;
mod name;
mod options;
mod send;
mod stats;
mod transfer;
mod wire;

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::content::File;
pub use self::options::Limits;
pub use self::stats::{Counts, Stats};
pub use self::transfer::End;

/// What TFTP serves, by the name that was asked for.
pub trait Files: Send + Sync + 'static {
    /// Returns the file that whoever has this address gets. Firmware asks twice: for the length, then for the file. The
    /// name has no `..`, no empty part and one kind of slash; it is as firmware wrote it otherwise.
    fn open(&self, peer: IpAddr, name: &str) -> impl Future<Output = Option<File>> + Send;

    /// Hears how a transfer ended. Must not wait.
    fn ended(&self, transfer: &Ended);
}

/// A transfer that is over.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Who asked.
    pub peer: IpAddr,
    /// For which file.
    pub name: String,
    /// How.
    pub end: End,
    /// Length of the file.
    pub size: u64,
    /// Bytes that the client has acknowledged.
    pub taken: u64,
    /// How long it took.
    pub took: Duration,
    /// Blocks that were sent more than once.
    pub resent: u64,
}

impl Ended {
    /// Returns what a timeline tells of it, with the file by this name. A question for the size is nothing to tell of.
    pub fn told(&self, name: &str) -> Option<String> {
        let so_far = format!("{} of {} bytes", self.taken, self.size);
        Some(match &self.end {
            End::Done => name.to_owned(),
            End::Probe | End::AskedAnew => return None,
            End::GaveUp { code, text } => {
                format!("{name}: the machine gave up after {so_far} (error {code}: {text})")
            }
            End::Silent => format!("{name}: nothing is heard of the machine after {so_far}"),
            End::Displaced | End::Stopped => {
                format!("{name}: broken off by the server after {so_far}")
            }
            End::Broken(why) => format!("{name}: broke off after {so_far}: {why}"),
        })
    }
}

/// Which program carries transfers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Engine {
    /// Ours.
    #[default]
    Kiln,
    /// The crate async-tftp.
    AsyncTftp,
}

/// How to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// Which program carries transfers.
    pub engine: Engine,
    /// The most that a client gets.
    pub limits: Limits,
}

/// A running TFTP server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    task: JoinHandle<()>,
    stop: CancellationToken,
    stats: Arc<Stats>,
}

impl Server {
    /// Serves files on a socket that is bound to one address.
    ///
    /// # Errors
    ///
    /// Fails when the socket cannot be used.
    pub fn start<F: Files>(socket: UdpSocket, files: Arc<F>, config: Config) -> io::Result<Self> {
        let address = socket.local_addr()?;
        socket.set_nonblocking(true)?;
        let stop = CancellationToken::new();
        let stats = Arc::new(Stats::default());
        let task = match config.engine {
            Engine::AsyncTftp => {
                let limits = config.limits;
                tokio::spawn(library::supervise(socket, files, limits, stop.clone()))
            }
            Engine::Kiln => {
                let engine =
                    engine::Engine::start(address.ip(), files.clone(), config.limits, &stats)?;
                let socket = tokio::net::UdpSocket::from_std(socket)?;
                let listener = listen::Listener { socket, files, engine, stats: stats.clone() };
                tokio::spawn(listener.run(config.limits, stop.clone()))
            }
        };
        Ok(Self { address, task, stop, stats })
    }

    /// Returns where it listens.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Returns what it counts.
    pub fn stats(&self) -> Arc<Stats> {
        self.stats.clone()
    }

    /// Takes no more requests, and gives transfers under way some seconds to end.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod tests;
