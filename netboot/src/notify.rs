//! Tells systemd how the server is (`sd_notify(3)`): one datagram to the socket that it names. Without one, nothing.

use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::boots::Boots;

/// The way to systemd.
#[derive(Debug)]
pub struct Notify(Option<SocketAddr>);

impl Notify {
    /// Reads where it is from the environment.
    pub fn from_env() -> Self {
        Self(std::env::var("NOTIFY_SOCKET").ok().and_then(|name| address(&name).ok()))
    }

    /// Says something, such as `READY=1`. Who does not listen misses it.
    pub fn say(&self, state: &str) {
        let Some(address) = &self.0 else { return };
        let sent =
            UnixDatagram::unbound().and_then(|it| it.send_to_addr(state.as_bytes(), address));
        if let Err(error) = sent {
            tracing::debug!(%error, state, "systemd does not hear");
        }
    }

    /// Feeds the watchdog of systemd, where there is one (`WatchdogSec=`), for as long as the task that all boots go
    /// through answers. It runs on the threads that do the work, so that it also shows that these turn.
    pub fn feed(self, boots: Boots, stop: CancellationToken) -> Option<JoinHandle<()>> {
        let limit = std::env::var("WATCHDOG_USEC").ok()?.parse().ok().map(Duration::from_micros)?;
        self.0.as_ref()?;
        Some(tokio::spawn(async move {
            // Systemd advises half of its limit.
            let mut beat = tokio::time::interval((limit / 2).max(Duration::from_millis(10)));
            loop {
                tokio::select! {
                    () = stop.cancelled() => return,
                    _ = beat.tick() => {}
                }
                if boots.answers().await {
                    self.say("WATCHDOG=1");
                }
            }
        }))
    }
}

/// Reads the name of a socket: a path, or after `@` a name that is in no folder.
fn address(name: &str) -> io::Result<SocketAddr> {
    match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_hears_by_a_path_and_by_a_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let name = format!("@kiln-test-{}", std::process::id());
        for name in [path.to_str().unwrap(), &name] {
            let address = address(name).unwrap();
            let listener = UnixDatagram::bind_addr(&address).unwrap();
            Notify(Some(address)).say("READY=1");
            let mut buffer = [0; 64];
            let read = listener.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..read], b"READY=1");
        }
        // Nobody there, nobody hurt.
        Notify(Some(SocketAddr::from_pathname("/nonexistent").unwrap())).say("READY=1");
        Notify(None).say("READY=1");
    }
}
