//! Whether the server can do its work.

use std::fmt;
use std::net::IpAddr;

use super::Observed;
use crate::boots::now_ms;
use crate::net::{Link, links};
use crate::settings::DhcpMode;

/// 2026-01-01, in milliseconds since 1970: a clock that is before it has not been set.
const BUILT: i64 = 1_767_225_600_000;
/// So many things that are missing are named.
const MOST: usize = 5;

/// One thing that has to be so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What was looked at.
    pub name: &'static str,
    /// What is wrong with it, and what to do; nothing when all is well.
    pub fault: Option<String>,
}

/// All of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health(pub Vec<Check>);

impl Health {
    /// Returns whether everything is well.
    pub fn is_ready(&self) -> bool {
        self.0.iter().all(|check| check.fault.is_none())
    }
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Check { name, fault } in &self.0 {
            match fault {
                None => writeln!(f, "[+] {name}")?,
                Some(fault) => writeln!(f, "[-] {name}: {fault}")?,
            }
        }
        writeln!(f, "{}", if self.is_ready() { "ready" } else { "not ready" })
    }
}

impl Observed {
    /// Looks at everything.
    pub async fn health(&self) -> Health {
        // No order is as old as that: it takes the right to write and writes nothing.
        let store = self.inventory.expire_orders(i64::MIN).await;
        let (images, view) = (self.images_without_version(), self.view.clone());
        let files = tokio::task::spawn_blocking(move || view.damaged(MOST)).await;
        let (files, links) = (files.unwrap_or_default(), links());
        let mut checks = vec![
            Check { name: "boots", fault: self.no_tracker().await },
            Check { name: "store", fault: store.err().map(|error| crate::cli::chain(&error)) },
            Check { name: "images", fault: named("no version is served of", images) },
            Check {
                name: "artifacts",
                fault: named("`kiln image verify`; missing or cut:", files),
            },
            Check { name: "secrets", fault: self.view.lost_secrets() },
            Check { name: "clock", fault: clock(now_ms()) },
            Check {
                name: "addresses",
                fault: match links {
                    Ok(links) => self.lost_address(&links),
                    Err(error) => Some(format!("cannot list the interfaces: {error}")),
                },
            },
        ];
        if let Some(fault) = &self.files {
            checks.push(Check { name: "files", fault: fault.get() });
        }
        Health(checks)
    }

    async fn no_tracker(&self) -> Option<String> {
        let text = "the task that follows boots does not answer; start the server anew";
        (!self.boots.answers().await).then(|| text.to_owned())
    }

    /// Returns images that machines are to boot and of which nothing is served.
    fn images_without_version(&self) -> Vec<String> {
        let snapshot = self.view.snapshot();
        let mut missing: Vec<String> = snapshot
            .machines()
            .iter()
            .filter_map(|machine| snapshot.settings_of(machine.id)?.image.as_ref())
            .filter(|image| !snapshot.images.contains_key(&image.value))
            .map(|image| image.value.to_string())
            .collect();
        missing.sort();
        missing.dedup();
        missing.truncate(MOST);
        missing
    }

    /// Says which of our addresses is not on its interface any more.
    fn lost_address(&self, links: &[Link]) -> Option<String> {
        // Without an interface of IPv4 the list has nothing to say of those of IPv6.
        let mut own = self.subnets.iter().filter(|subnet| subnet.dhcp != DhcpMode::Off);
        own.find_map(|subnet| {
            let link = links.iter().find(|link| link.name == subnet.interface);
            let Some(link) = link else {
                return Some(format!("there is no interface {}", subnet.interface));
            };
            if !link.addresses.iter().any(|(has, _)| *has == subnet.address) {
                let address = IpAddr::from(subnet.address);
                return Some(format!("{} has lost {address}; add it again", link.name));
            }
            (!link.up).then(|| format!("{} is switched off", link.name))
        })
    }
}

fn named(what: &str, names: Vec<String>) -> Option<String> {
    (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
}

fn clock(now: i64) -> Option<String> {
    (now < BUILT).then(|| "the clock of this host was not set; let it ask a time server".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named_and_one_fault_is_enough() {
        let check = |name, fault: Option<&str>| Check { name, fault: fault.map(str::to_owned) };
        let well = Health(vec![check("store", None), check("clock", None)]);
        assert_eq!(well.to_string(), "[+] store\n[+] clock\nready\n");
        let ill = Health(vec![check("store", Some("the disk is full")), check("clock", None)]);
        assert!(!ill.is_ready());
        assert_eq!(ill.to_string(), "[-] store: the disk is full\n[+] clock\nnot ready\n");
    }

    #[test]
    fn a_clock_of_the_past_was_not_set() {
        assert_eq!(clock(now_ms()), None);
        assert!(clock(0).is_some());
    }
}
