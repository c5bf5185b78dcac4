//! Brings the network up and keeps it.
//!
//! ```text
//! plan ─▶ crew ─▶ one thread per interface (worker)
//!         finds and makes       ├─ ipv4 ─ dhcp4::Client (pure)
//!         interfaces            ├─ ipv6 ─ dhcp6::Client (pure), router
//!                               └─ netlink: addresses, routes; resolver: files
//! ```
//!
//! No interface holds up another one, and none holds up the boot for longer than the command line says: what comes later is set up
//! when it comes.

mod arp;
mod crew;
mod dhcp4;
mod dhcp6;
mod interface;
mod ipv4;
mod ipv6;
pub(crate) mod link;
mod names;
mod netlink;
mod plan;
mod port;
mod random;
mod resolver;
mod route;
mod router;
mod udp;
mod worker;

use std::net::IpAddr;
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::Duration;

use nix::net::if_::if_nametoindex;

use crate::clock::uptime;
use crate::cmdline::CommandLine;
use crate::config::Machine;
use crate::console::say;
use crate::error::BootError;
use crate::modules::Loader;
use crate::phone::{Phase, Phone};
use crew::{Boot, Crew};
use netlink::{Netlink, News};

/// How long a card may take to appear.
const CARD_APPEARS: Duration = Duration::from_secs(20);
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOK_NOW_AND_THEN: Duration = Duration::from_secs(5);

/// Brings up what the server or the image has planned, and waits a while for what the boot needs of it.
pub(crate) fn bring_up(
    planned: Option<&serde_json::Value>,
    machine: Option<&Machine>,
    loader: &mut Loader,
    phone: &Phone,
) -> Result<(), BootError> {
    let loopback = Netlink::open().and_then(|kernel| kernel.switch(if_nametoindex("lo")?, true));
    if let Err(error) = loopback {
        say(&format!("loopback stays off: {error}"));
    }
    let plan = machine.and_then(|machine| machine.network.as_ref()).or(planned);
    let entries =
        plan.map_or_else(plan::usual, |plan| plan::read(plan, &mut |complaint| say(&complaint)));
    let (waiting, addresses) = channel();
    let mut crew = match Crew::new(entries, boot(machine), phone.clone(), waiting) {
        Ok(crew) => crew,
        Err(error) => {
            say(&format!("the kernel has no network: {error}"));
            return Ok(());
        }
    };
    let start = uptime();
    loop {
        let waited = uptime().saturating_sub(start);
        crew.look(waited);
        let lacks = crew.lacks();
        if lacks.is_empty() {
            break;
        }
        if waited > CARD_APPEARS {
            let text = format!("no {}", lacks.join(", no "));
            say(&text);
            phone.tell(Phase::Network, text);
            break;
        }
        loader.load_for_hardware();
        sleep(LOOK_AGAIN);
    }
    let awaited = crew.awaited().to_vec();
    look_on(crew)?;
    wait_for(awaited, &addresses, phone);
    // What is told from here on is sent when there is a way.
    phone.network_is_up();
    Ok(())
}

fn boot(machine: Option<&Machine>) -> Boot {
    let line = std::fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let line = interface::boot_line(&line);
    let told = machine.and_then(|machine| machine.mac.as_deref()).and_then(interface::parse_mac);
    let had = machine.and_then(|machine| machine.address.as_deref()?.parse().ok());
    let address = match had {
        Some(IpAddr::V4(address)) => Some(address),
        _ => None,
    };
    let hostname = machine.and_then(|machine| machine.hostname.clone());
    Boot {
        mac: told.or(line.mac),
        address: address.or(line.address),
        by_ipv6: had.is_some_and(|had| had.is_ipv6()),
        takes_hostname: hostname.is_none()
            && CommandLine::read().hostname.is_none()
            && !std::path::Path::new("/etc/hostname").exists(),
        hostname,
    }
}

/// Goes on looking for what the plan names, in the background.
fn look_on(mut crew: Crew) -> Result<(), BootError> {
    std::thread::Builder::new()
        .name("network".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            let news = News::open();
            loop {
                match &news {
                    Ok(news) => news.wait(),
                    Err(_) => sleep(LOOK_NOW_AND_THEN),
                }
                crew.look(Duration::MAX);
            }
        })
        .map(|_| ())
        .map_err(|source| BootError::StartThread("network", source))
}

fn wait_for(mut awaited: Vec<String>, addresses: &Receiver<String>, phone: &Phone) {
    let end = uptime() + CommandLine::read().network_wait;
    while !awaited.is_empty() {
        match addresses.recv_timeout(end.saturating_sub(uptime())) {
            Ok(name) => awaited.retain(|other| *other != name),
            Err(_) => {
                let text = format!("going on without an address on {}", awaited.join(", "));
                say(&text);
                phone.tell(Phase::Network, text);
                return;
            }
        }
    }
}
