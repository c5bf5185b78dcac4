//! A socket over which people on the machine ask for its services, and tell them what to do.
//!
//! A request is one line, a list of texts in JSON: `["logs","web","100"]`. The first line of the answer is `ok`, or what is
//! wrong after `error: `; the rest is text for the person, until the end of the stream. `exec` goes on differently, see
//! [`crate::exec`].

mod client;
mod show;

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use crate::clock::uptime;
use crate::console::say;
use crate::error::BootError;
use crate::process::Children;
use crate::{logs, services};

pub(crate) use client::{is_command, is_ok, lost, request, run};
pub(crate) use show::bytes;

/// Where the socket is.
pub(crate) const SOCKET: &str = "/run/kiln/control";
/// Who asks for more at a time is told to come again.
const MOST_CLIENTS: usize = 16;
const LARGEST_REQUEST: usize = 64 << 10;
/// How long a client may take to say what it wants, and to take a part of the answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether who follows a log is still there.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Starts to listen. A machine without the socket still does its work.
pub(crate) fn start(children: &Arc<Children>) -> Result<(), BootError> {
    let listener = match listen() {
        Ok(listener) => listener,
        Err(error) => {
            say(&format!("nobody can ask for services: {SOCKET}: {error}"));
            return Ok(());
        }
    };
    let server = Arc::new(Server { children: Arc::clone(children), clients: AtomicUsize::new(0) });
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(64 * 1024)
        .spawn(move || {
            loop {
                match listener.accept() {
                    Ok((stream, _)) => server.admit(stream),
                    // Too many files are open, or the like: it passes.
                    Err(_) => std::thread::sleep(Duration::from_millis(100)),
                }
            }
        })
        .map(drop)
        .map_err(|source| BootError::StartThread("control", source))
}

fn listen() -> io::Result<UnixListener> {
    fs::create_dir_all("/run/kiln")?;
    let listener = UnixListener::bind(SOCKET)?;
    fs::set_permissions(SOCKET, Permissions::from_mode(0o600))?;
    Ok(listener)
}

struct Server {
    children: Arc<Children>,
    clients: AtomicUsize,
}

/// Counts a client as long as it is served.
struct Place(Arc<Server>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Server {
    fn admit(self: &Arc<Self>, mut stream: UnixStream) {
        let _ = stream.set_write_timeout(Some(PATIENCE));
        let busy = self.clients.fetch_add(1, Ordering::Relaxed) >= MOST_CLIENTS;
        let place = Place(Arc::clone(self));
        // The permissions of the socket say the same, but a container may have been given it.
        let is_root = getsockopt(&stream, PeerCredentials).is_ok_and(|peer| peer.uid() == 0);
        if busy || !is_root {
            let why = if busy { "too many ask at a time" } else { "only root may ask" };
            let _ = stream.set_nonblocking(true);
            let _ = stream.write_all(format!("error: {why}\n").as_bytes());
            return;
        }
        let _ = std::thread::Builder::new()
            .name("client".to_owned())
            .stack_size(128 * 1024)
            .spawn(move || place.0.serve(stream));
    }

    fn serve(&self, mut stream: UnixStream) {
        let answer = match read_request(&mut stream) {
            Err(error) => Err(format!("the request cannot be read: {error}")),
            Ok(words) => {
                let words: Vec<&str> = words.iter().map(String::as_str).collect();
                match words.as_slice() {
                    ["exec", service, ..] => return self.exec(stream, service, &words),
                    ["logs", name, number, "follow"] => return follow(stream, name, number),
                    words => self.answer(words),
                }
            }
        };
        let text = match answer {
            Ok(text) => format!("ok\n{text}"),
            Err(error) => format!("error: {}\n", error.replace('\n', " ")),
        };
        let _ = stream.write_all(text.as_bytes());
    }

    fn answer(&self, words: &[&str]) -> Result<String, String> {
        let services = services::running().ok_or("no service has been started yet")?;
        let line = |text: String| text + "\n";
        match words {
            ["ps"] => Ok(show::services(services.table())),
            ["logs", name, number] => {
                let number = number.parse().map_err(|_| format!("{number:?} is not a number"))?;
                logs::tail(name, number).ok_or_else(|| no_log(name))
            }
            [verb, name] if self.children.are_stopping() => {
                Err(format!("the machine is stopping; {name} is not asked to {verb}"))
            }
            ["start", name] => services.start(name).map(line),
            ["stop", name] => services.stop(name).map(line),
            ["restart", name] => services.restart(name).map(line),
            _ => Err("the request is not one that this version knows".to_owned()),
        }
    }

    /// Hands the connection over to a process of its own, which runs the program.
    fn exec(&self, mut stream: UnixStream, service: &str, words: &[&str]) {
        let up = services::running().and_then(|services| services.table().get(service));
        let error = match up {
            None => format!("there is no service {service:?}"),
            Some(status) if status.started.is_none() => {
                format!("{service} is {}; start it first", status.state.word())
            }
            Some(_) => {
                let id = format!("services-{service}");
                let rest = words.get(2..).unwrap_or_default();
                match self.children.start_exec(&id, rest, OwnedFd::from(stream)) {
                    Ok(()) => return,
                    Err(error) => {
                        say(&format!("cannot run a program in {service}: {error}"));
                        return;
                    }
                }
            }
        };
        let _ = stream.write_all(format!("error: {error}\n").as_bytes());
    }
}

fn no_log(name: &str) -> String {
    format!("{name:?} has written nothing, or does not exist")
}

/// Sends what is there and then what comes, until the client is gone.
fn follow(mut stream: UnixStream, name: &str, number: &str) {
    let lines = number.parse().unwrap_or_default();
    let known = services::running().is_some_and(|it| it.table().get(name).is_some());
    let (mut lines, mut next) = match logs::last(name, lines) {
        Some(last) => last,
        None if known => Default::default(),
        None => {
            let _ = stream.write_all(format!("error: {}\n", no_log(name)).as_bytes());
            return;
        }
    };
    let mut text = "ok\n".to_owned();
    loop {
        text.extend(lines.iter().map(logs::written));
        if stream.write_all(text.as_bytes()).is_err() || is_gone(&stream) {
            return;
        }
        text.clear();
        (lines, next) = logs::since(name, next, LOOK_AGAIN);
    }
}

/// Says whether the other end is closed.
fn is_gone(stream: &UnixStream) -> bool {
    let mut polled = [PollFd::new(stream.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR;
    poll(&mut polled, PollTimeout::ZERO).is_err()
        || polled[0].revents().is_some_and(|events| events.intersects(gone))
}

/// Reads the one line of a request. Nothing after it is taken: it may be for someone else.
fn read_request(stream: &mut UnixStream) -> io::Result<Vec<String>> {
    let start = uptime();
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        // Byte by byte is slow, but a request is small, and its sender has waited for a person.
        let left = PATIENCE.saturating_sub(uptime().saturating_sub(start));
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        if stream.read(&mut byte)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if byte[0] == b'\n' {
            break;
        }
        line.push(byte[0]);
        if line.len() > LARGEST_REQUEST {
            return Err(io::Error::other("it is too long"));
        }
    }
    serde_json::from_slice(&line).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(bytes: &[u8]) -> io::Result<Vec<String>> {
        let (mut ours, mut theirs) = UnixStream::pair()?;
        let bytes = bytes.to_vec();
        let writer = std::thread::spawn(move || theirs.write_all(&bytes));
        let request = read_request(&mut ours);
        drop(ours);
        drop(writer.join());
        request
    }

    #[test]
    fn a_request_is_one_line_and_what_follows_is_left_for_others() {
        assert_eq!(asked(b"[\"logs\",\"a b\"]\nmore").unwrap(), ["logs", "a b"]);
        for bad in [&b"[\"ps\""[..], b"", b"{}\n", b"[1]\n", b"\xff\n", b"[[[[[[[[\n"] {
            assert!(asked(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_request_without_an_end_is_refused() {
        let error = asked(&[b'x'; LARGEST_REQUEST + 100]).unwrap_err();
        assert_eq!(error.to_string(), "it is too long");
    }

    #[test]
    fn who_has_gone_is_noticed() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        assert!(!is_gone(&ours));
        drop(theirs);
        assert!(is_gone(&ours));
    }
}
