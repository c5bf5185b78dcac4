//! What a person sees who has a screen at the machine: its name, its addresses and its services.
//!
//! It has a virtual terminal of its own, so the messages of the boot stay where they are. Messages of the kernel appear over
//! it: a panic must be seen. Where no console is a screen, there is nothing.

mod frame;

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::Duration;

use nix::ifaddrs::getifaddrs;
use nix::libc;

use crate::clock::uptime;
use crate::error::BootError;
use crate::services;
use crate::sys::{self, Size};
use frame::{Row, View};

/// Beyond those on which programs may let people log in.
const OWN: u16 = 8;
const MESSAGES: u16 = 1;
/// The time shows minutes, and what else has written here is covered.
const REFRESH: Duration = Duration::from_secs(10);
/// Services that change all the time do not keep the machine busy.
const PAUSE: Duration = Duration::from_millis(200);

static IS_SHOWN: AtomicBool = AtomicBool::new(false);

/// Shows the state of the machine from now on, if it has a screen.
pub(crate) fn start(image: &str, version: &str) -> Result<(), BootError> {
    let consoles = std::fs::read_to_string("/proc/consoles").unwrap_or_default();
    if !has_screen(&consoles) {
        return Ok(());
    }
    let Some(terminal) = open(OWN) else { return Ok(()) };
    let (image, version) = (image.to_owned(), version.to_owned());
    std::thread::Builder::new()
        .name("screen".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || show(&terminal, &image, &version))
        .map(drop)
        .map_err(|source| BootError::StartThread("screen", source))
}

/// Shows the messages again, if it is ours that is shown.
pub(crate) fn leave() {
    if IS_SHOWN.load(Ordering::Relaxed)
        && let Some(terminal) = open(OWN)
    {
        sys::show_terminal(&terminal, MESSAGES);
    }
}

fn open(number: u16) -> Option<File> {
    OpenOptions::new()
        .write(true)
        .custom_flags(libc::O_NOCTTY)
        .open(format!("/dev/tty{number}"))
        .ok()
}

/// Looks in `/proc/consoles` for the console that is a screen; a serial line never is one.
fn has_screen(consoles: &str) -> bool {
    consoles.lines().any(|line| line.split_whitespace().next() == Some("tty0"))
}

fn show(mut terminal: &File, image: &str, version: &str) {
    while let Some(services) = services::running() {
        let size = sys::terminal_size(terminal).filter(|size| size.rows > 0 && size.columns > 0);
        let size = size.unwrap_or(Size { rows: 25, columns: 80 });
        let table = services.table();
        let rows = table.all().into_iter().map(|(name, status)| Row { name, status }).collect();
        let view = View {
            image: image.to_owned(),
            version: version.to_owned(),
            host: host(),
            addresses: addresses(),
            is_healthy: table.all_were_steady(),
            up: uptime(),
            rows,
        };
        if terminal.write_all(frame::draw(&view, size).as_bytes()).is_err() {
            return;
        }
        if !IS_SHOWN.swap(true, Ordering::Relaxed) {
            sys::show_terminal(terminal, OWN);
        }
        sleep(PAUSE);
        table.wait_for_change(REFRESH);
    }
}

fn host() -> String {
    nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The addresses by which the machine can be reached from elsewhere.
fn addresses() -> Vec<String> {
    let Ok(all) = getifaddrs() else { return Vec::new() };
    let mut found = Vec::new();
    for address in all.filter_map(|interface| interface.address) {
        if let Some(v4) = address.as_sockaddr_in().map(nix::sys::socket::SockaddrIn::ip) {
            if !v4.is_loopback() {
                found.push(v4.to_string());
            }
        } else if let Some(v6) = address.as_sockaddr_in6().map(nix::sys::socket::SockaddrIn6::ip)
            && !v6.is_loopback()
            && !v6.is_unicast_link_local()
        {
            found.push(v6.to_string());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_serial_console_is_no_screen() {
        let serial = "ttyS0                -W- (EC p a)    4:64\n";
        assert!(!has_screen(serial) && !has_screen("") && !has_screen("ttyAMA0 -W- (EC)\n"));
        assert!(has_screen(&format!("{serial}tty0                 -WU (E  p  )    4:1\n")));
    }
}
