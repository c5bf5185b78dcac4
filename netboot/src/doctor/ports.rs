//! Ports that another program has.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::path::Path;

use super::Finding;
use crate::settings::{Dhcp6Mode, DhcpMode, Settings};

/// A socket that waits for packets or connections.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Listener {
    address: Option<Ipv4Addr>,
    port: u16,
    inode: u64,
}

/// A port that the server is to open.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    tcp: bool,
    port: u16,
    /// Nothing for DHCP, which listens on all addresses of an interface.
    address: Option<Ipv4Addr>,
    setting: &'static str,
}

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let read = |name: &str| {
        let text = std::fs::read_to_string(Path::new("/proc/net").join(name)).unwrap_or_default();
        parse(&text, name.starts_with("tcp"))
    };
    let udp = [read("udp"), read("udp6")].concat();
    let tcp = [read("tcp"), read("tcp6")].concat();
    let mut owners = None;
    let mut findings = Vec::new();
    for want in wanted(settings) {
        let listeners = if want.tcp { &tcp } else { &udp };
        let taken = listeners.iter().find(|listener| want.meets(listener));
        let owner = taken.map(|listener| {
            let owners = owners.get_or_insert_with(owners_of_sockets);
            owners.get(&listener.inode).cloned()
        });
        findings.push(judge(&want, owner));
    }
    findings
}

fn wanted(settings: &Settings) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    let mut want = |tcp, port, address, setting| {
        let one = Wanted { tcp, port, address, setting };
        if port != 0 && !wanted.contains(&one) {
            wanted.push(one);
        }
    };
    for subnet in &settings.subnets {
        if subnet.dhcp != DhcpMode::Off {
            want(false, 67, None, "[[subnet]] dhcp");
        }
        if subnet.dhcp == DhcpMode::Proxy {
            want(false, 4011, None, "[[subnet]] dhcp");
        }
        want(false, settings.tftp_port, Some(subnet.address), "[tftp] port");
        want(true, settings.http_port, Some(subnet.address), "[http] port");
        if let Some(https) = &settings.https {
            want(true, https.port, Some(subnet.address), "[https] port");
        }
    }
    if settings.subnets6.iter().any(|subnet| subnet.dhcp != Dhcp6Mode::Off) {
        want(false, 547, None, "[[subnet6]] dhcp");
    }
    wanted
}

impl Wanted {
    fn meets(&self, listener: &Listener) -> bool {
        let same = match (self.address, listener.address) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => true,
        };
        same && self.port == listener.port
    }
}

fn judge(want: &Wanted, owner: Option<Option<String>>) -> Finding {
    const CHECK: &str = "port";
    let kind = if want.tcp { "TCP" } else { "UDP" };
    let subject = match want.address {
        Some(address) => format!("{kind} {address}:{}", want.port),
        None => format!("{kind} {}", want.port),
    };
    match owner {
        None => Finding::good(CHECK, subject, "free"),
        Some(Some(owner)) if owner.starts_with("kiln (") => {
            Finding::good(CHECK, subject, format!("{owner} has it"))
        }
        Some(owner) => {
            let (found, stop) = match owner {
                Some(owner) => (format!("{owner} has it"), "stop that program".to_owned()),
                None => {
                    let flag = if want.tcp { "t" } else { "u" };
                    let stop =
                        format!("`ss -l{flag}pn sport = :{}` as root names it; stop it", want.port);
                    ("another program has it".to_owned(), stop)
                }
            };
            Finding::wrong(CHECK, subject, found, format!("{stop}, or change {}", want.setting))
        }
    }
}

/// Reads a table of `/proc/net`: sockets that listen, or any where there are no connections.
fn parse(text: &str, tcp: bool) -> Vec<Listener> {
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let local = words.nth(1)?;
        let state = words.nth(1)?;
        let inode = words.nth(5)?.parse().ok()?;
        let (address, port) = local.split_once(':')?;
        // TCP_LISTEN (net/tcp_states.h).
        if tcp && state != "0A" {
            return None;
        }
        let address = match address.len() {
            8 => {
                u32::from_str_radix(address, 16).ok().map(|bits| Ipv4Addr::from(bits.swap_bytes()))
            }
            // Only the wildcard of IPv6 takes what is for IPv4. DHCPv6 is for all addresses, too.
            32 if address.bytes().all(|byte| byte == b'0') => None,
            _ => return None,
        };
        let address = address.filter(|address| !address.is_unspecified());
        Some(Listener { address, port: u16::from_str_radix(port, 16).ok()?, inode })
    };
    text.lines().skip(1).filter_map(line).collect()
}

/// Returns which program has which socket, as far as this user may see.
fn owners_of_sockets() -> BTreeMap<u64, String> {
    let mut owners = BTreeMap::new();
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok())
        else {
            continue;
        };
        let files = std::fs::read_dir(process.path().join("fd")).into_iter().flatten().flatten();
        for file in files {
            let Ok(target) = std::fs::read_link(file.path()) else { continue };
            let target = target.to_string_lossy();
            let inode = target.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
            let Some(inode) = inode.and_then(|inode| inode.parse().ok()) else { continue };
            let name = std::fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            let name: String = name.trim().chars().filter(|c| !c.is_control()).collect();
            owners.insert(inode, format!("{name} (process {pid})"));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use super::*;

    const UDP: &str = "   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n \
        301: 0100000A:0045 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4711 2 0 0\n \
        302: 00000000:0043 00000000:0000 07 00000000:00000000 00:00000000 00000000     0        0 4712 2 0 0\n\
        broken line\n";

    #[test]
    fn tables_of_the_kernel_are_read_and_a_broken_line_is_passed_over() {
        let found = parse(UDP, false);
        let tftp = Listener { address: Some(Ipv4Addr::new(10, 0, 0, 1)), port: 69, inode: 4711 };
        assert_eq!(found, [tftp, Listener { address: None, port: 67, inode: 4712 }]);
        let tcp6 = "head\n 0: 00000000000000000000000000000000:1F90 0:0 0A 0:0 0:0 0 0 0 9 1\n \
             1: 0000000000000000FFFF00000100007F:1F90 0:0 0A 0:0 0:0 0 0 0 9 1\n \
             2: 00000000:1F90 0:0 01 0:0 0:0 0 0 0 8 1\n";
        assert_eq!(parse(tcp6, true), [Listener { address: None, port: 8080, inode: 9 }]);
    }

    #[test]
    fn a_port_is_taken_by_whoever_has_it_on_our_address_or_on_all() {
        let want = Wanted {
            tcp: false,
            port: 69,
            address: Some(Ipv4Addr::new(10, 0, 0, 1)),
            setting: "[tftp] port",
        };
        let at = |address| Listener { address, port: 69, inode: 1 };
        assert!(want.meets(&at(None)) && want.meets(&at(want.address)));
        assert!(!want.meets(&at(Some(Ipv4Addr::LOCALHOST))));
        assert!(!want.meets(&Listener { port: 68, ..at(None) }));
        let taken = judge(&want, Some(Some("in.tftpd (process 7)".to_owned())));
        assert_eq!(taken.subject, "UDP 10.0.0.1:69");
        assert_eq!(taken.found, "in.tftpd (process 7) has it");
        assert_eq!(taken.remedy.as_deref(), Some("stop that program, or change [tftp] port"));
        assert!(judge(&want, Some(None)).remedy.unwrap().contains("ss -lupn sport = :69"));
        assert_eq!(judge(&want, Some(Some("kiln (process 9)".to_owned()))).remedy, None);
        assert_eq!(judge(&want, None).found, "free");
    }
}
