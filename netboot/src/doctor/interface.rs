//! Interfaces: there, up, with our address, and with frames that hold a block.

use super::Finding;
use crate::net::{Link, links};
use crate::settings::{Settings, Subnet6Settings, SubnetSettings};

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let links = match links() {
        Ok(links) => links,
        Err(error) => {
            let remedy = "run this on the host itself, outside of containers";
            return vec![Finding::doubtful("interface", "all", error.to_string(), remedy)];
        }
    };
    let block = settings.tftp.limits.block;
    let subnets = settings.subnets.iter();
    let four = subnets.flat_map(|subnet| judge(subnet, &links, block));
    let six = settings.subnets6.iter().filter_map(|subnet| judge6(subnet, &links));
    four.chain(six).collect()
}

/// What is said of an interface in general is said of its subnet of IPv4, or here when it has none.
fn judge6(subnet: &Subnet6Settings, links: &[Link]) -> Option<Finding> {
    const CHECK: &str = "interface";
    let (name, address, prefix) = (&subnet.interface, subnet.address, subnet.prefix);
    let Some(link) = links.iter().find(|link| link.name == *name) else {
        let remedy = "name one of `ip -brief link` in [[subnet6]] interface";
        return Some(Finding::wrong(CHECK, name, "there is no such interface", remedy));
    };
    let link_local = link.addresses6.iter().any(|(has, _)| has.is_unicast_link_local());
    let wrong = |found: String, remedy: String| Some(Finding::wrong(CHECK, name, found, remedy));
    if !link.addresses6.iter().any(|(has, _)| *has == address) {
        return wrong(
            format!("it has not the address {address} of the subnet {}/{prefix}", subnet.network),
            format!("ip address add {address}/{prefix} dev {name}, or correct [[subnet6]] address"),
        );
    }
    if !link_local && name != "lo" {
        return wrong(
            "it has no address that begins with fe80, by which machines speak DHCPv6".to_owned(),
            format!(
                "sysctl net.ipv6.conf.{name}.addr_gen_mode=0 and switch it off and on, or see net.ipv6.conf.{name}.disable_ipv6"
            ),
        );
    }
    Some(Finding::good(CHECK, name, format!("with {address}/{prefix}")))
}

fn judge(subnet: &SubnetSettings, links: &[Link], block: u16) -> Vec<Finding> {
    const CHECK: &str = "interface";
    let name = &subnet.interface;
    let Some(link) = links.iter().find(|link| link.name == *name) else {
        let others = links.iter().map(|link| link.name.as_str()).filter(|other| *other != "lo");
        let others: Vec<&str> = others.collect();
        let remedy = match others.as_slice() {
            [] => "this host has no network interface; plug one in or load its driver".to_owned(),
            others => format!("name one of these in [[subnet]] interface: {}", others.join(", ")),
        };
        return vec![Finding::wrong(CHECK, name, "there is no such interface", remedy)];
    };
    let mut found = Vec::new();
    if !link.up {
        let remedy = format!("ip link set {name} up");
        found.push(Finding::wrong(CHECK, name, "it is switched off", remedy));
    } else if !link.carrier {
        let remedy = "plug the cable in, and see whether the switch has the port on; a bridge needs a member that is up";
        found.push(Finding::wrong(CHECK, name, "it has no link", remedy));
    }
    let (address, prefix) = (subnet.address, subnet.prefix);
    match link.addresses.iter().find(|(has, _)| *has == address) {
        Some((_, has)) if *has != prefix && !subnet.relay => found.push(Finding::doubtful(
            CHECK,
            name,
            format!("it has {address}/{has}, and the subnet is /{prefix}"),
            format!(
                "ip address replace {address}/{prefix} dev {name}, or correct [[subnet]] network"
            ),
        )),
        Some(_) => {}
        None => {
            let has: Vec<_> =
                link.addresses.iter().map(|(ip, prefix)| format!("{ip}/{prefix}")).collect();
            let has = if has.is_empty() { "no address".to_owned() } else { has.join(", ") };
            found.push(Finding::wrong(
                CHECK,
                name,
                format!("it has {has}, not {address} of the subnet {}/{prefix}", subnet.network),
                format!(
                    "ip address add {address}/{prefix} dev {name}, or correct [[subnet]] address"
                ),
            ));
        }
    }
    if link.mtu > 0 && link.mtu < 576 {
        let remedy = format!("ip link set {name} mtu 1500");
        let text = format!("its frames hold {} bytes, and DHCP needs 576", link.mtu);
        found.push(Finding::wrong("mtu", name, text, remedy));
    } else if u32::from(block) + 32 > link.mtu {
        let fits = link.mtu.saturating_sub(32);
        found.push(Finding::doubtful(
            "mtu",
            name,
            format!(
                "its frames hold TFTP blocks of {fits} bytes, less than [tftp] block-size {block}"
            ),
            format!(
                "nothing, blocks are made smaller; or ip link set {name} mtu {}",
                block.saturating_add(32)
            ),
        ));
    } else if block > 1468 {
        found.push(Finding::doubtful(
            "mtu",
            name,
            format!("TFTP blocks of {block} bytes need frames of {} all the way", u32::from(block) + 32),
            "make sure that every switch and card on the way takes such frames, or leave [tftp] block-size out: firmware cannot put fragments together",
        ));
    }
    if found.is_empty() {
        found.push(Finding::good(CHECK, name, format!("up, with {address}/{prefix}")));
    }
    found
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::Verdict;
    use super::*;

    #[test]
    fn each_fault_of_an_interface_is_named_with_its_remedy() {
        let subnet = SubnetSettings::without_dhcp(
            Ipv4Addr::new(10, 0, 0, 0),
            24,
            "eth0",
            Ipv4Addr::new(10, 0, 0, 1),
        );
        let name = "eth0".to_owned();
        let good = Link {
            name,
            up: true,
            carrier: true,
            mtu: 1500,
            addresses: vec![(subnet.address, 24)],
            ..Link::default()
        };
        let other = Link { name: "eth1".to_owned(), ..good.clone() };
        let says = |link: Option<&Link>, block| {
            let links: Vec<Link> = link.into_iter().chain([&other]).cloned().collect();
            let found = judge(&subnet, &links, block);
            let lines: Vec<String> = found
                .iter()
                .map(|f| {
                    format!("{} {}: {}", f.verdict, f.found, f.remedy.as_deref().unwrap_or(""))
                })
                .collect();
            assert!(found.iter().all(|f| f.remedy.is_some() == (f.verdict != Verdict::Good)));
            lines.join("\n")
        };
        assert_eq!(says(Some(&good), 1468), "good up, with 10.0.0.1/24: ");
        assert!(
            says(None, 1468)
                .contains("no such interface: name one of these in [[subnet]] interface: eth1")
        );
        assert!(
            says(Some(&Link { up: false, ..good.clone() }), 1468).contains("ip link set eth0 up")
        );
        assert!(
            says(Some(&Link { carrier: false, ..good.clone() }), 1468)
                .contains("wrong it has no link")
        );
        let none = Link { addresses: Vec::new(), ..good.clone() };
        assert!(says(Some(&none), 1468).contains("it has no address, not 10.0.0.1"));
        let wide = Link { addresses: vec![(subnet.address, 16)], ..good.clone() };
        assert!(says(Some(&wide), 1468).starts_with("doubtful it has 10.0.0.1/16"));
        let small = Link { mtu: 1400, ..good.clone() };
        assert!(says(Some(&small), 1468).contains("blocks of 1368 bytes"));
        assert!(
            says(Some(&Link { mtu: 500, ..good.clone() }), 512).starts_with("wrong its frames")
        );
        let jumbo = Link { mtu: 9000, ..good };
        assert!(says(Some(&jumbo), 8000).contains("every switch and card"));
    }

    #[test]
    fn a_subnet_of_ipv6_needs_its_address_and_one_of_the_link() {
        let subnet =
            Subnet6Settings::new("fd77::".parse().unwrap(), 64, "eth0", "fd77::1".parse().unwrap());
        let says = |addresses: &[&str]| {
            let addresses6 = addresses.iter().map(|text| (text.parse().unwrap(), 64)).collect();
            let link = Link { name: "eth0".to_owned(), addresses6, ..Link::default() };
            judge6(&subnet, &[link]).unwrap()
        };
        assert_eq!(says(&["fd77::1", "fe80::1"]).verdict, Verdict::Good);
        assert!(says(&["fe80::1"]).found.contains("has not the address fd77::1"));
        assert!(says(&["fd77::1"]).found.contains("fe80"));
        assert!(judge6(&subnet, &[]).unwrap().found.contains("no such interface"));
    }
}
