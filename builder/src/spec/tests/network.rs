//! The network that a machine is to have.

use super::*;

/// Checks errors of one interface; the place is that in its line.
fn of_link(cases: &[(&str, &str)]) {
    for (link, text) in cases {
        let yaml = format!("network:\n- {{{link}}}\n");
        assert_eq!(error(&yaml), format!("web.yml:2:{text}"), "{yaml}");
    }
}

#[test]
fn an_interface_is_one_thing() {
    let one = "3: an interface needs exactly one of `match`, `vlan`, `bond` and `bridge`";
    of_link(&[
        ("dhcp4: true", one),
        ("match: boot, vlan: {id: 1, on: eth0}", one),
        ("vlan: {id: 1, on: eth0}", "3: `name` is missing"),
        (
            "match: eth1, name: lan",
            "23: `name` is for what is made; cards keep the names that the kernel gives",
        ),
        (
            "name: b, bond: {interfaces: []}",
            "3: `interfaces` is empty; name the cards of the bond or bridge",
        ),
        (
            "match: boot, adresses: [10.0.0.5/24]",
            "17: unknown key `adresses`; did you mean `addresses`?",
        ),
        ("match: {drivr: e1000}", "12: unknown key `drivr`; did you mean `driver`?"),
        ("match: {}", "11: `name`, `mac` or `driver` is missing"),
        (
            "name: b, bond: {mode: active-backups, interfaces: [eth0]}",
            "26: `active-backups` is not one of `balance-rr`, `active-backup`, `balance-xor`, `broadcast`, \
             `802.3ad`, `balance-tlb`, `balance-alb`; did you mean `active-backup`?",
        ),
    ]);
}

#[test]
fn addresses_and_numbers_that_cannot_be_are_refused_where_they_stand() {
    of_link(&[
        (
            "match: boot, addresses: [10.0.0.5]",
            "29: `10.0.0.5` is not an address with the length of its prefix, such as `10.0.0.5/24`",
        ),
        (
            "match: boot, addresses: [10.0.0.5/33]",
            "29: `10.0.0.5/33` is not an address with the length of its prefix, such as `10.0.0.5/24`",
        ),
        (
            "match: boot, addresses: [224.0.0.1/24]",
            "29: `224.0.0.1/24` is not the address of a host",
        ),
        ("match: boot, gateway: 10.0.0.300", "26: `10.0.0.300` is not the address of a host"),
        (
            "match: boot, gateway: [10.0.0.1, 10.0.0.2]",
            "26: `gateway` is one address, or one of IPv4 and one of IPv6",
        ),
        (
            "match: boot, routes: [{to: 10.0.0.0/8, via: '::1'}]",
            "26: network and router are one of IPv4 and one of IPv6",
        ),
        ("match: boot, dns: [dns.example]", "23: `dns.example` is not the address of a host"),
        ("match: boot, search: ['a b']", "26: `a b` is not the name of a domain"),
        ("match: boot, mtu: 68", "22: `mtu` is 68; it goes from 576 to 65535"),
        ("match: boot, dhcp6: maybe", "24: `maybe` is not `auto`, `true` or `false`"),
        (
            "name: v, vlan: {id: 4095, on: eth0}",
            "24: the VLAN has the number 4095; they go from 1 to 4094",
        ),
        (
            "name: a-name-with-16-b, vlan: {id: 1, on: eth0}",
            "10: `a-name-with-16-b` cannot be the name of a network interface; use letters, digits, `-`, `_` and \
             `.`, at most 15",
        ),
        ("name: v, vlan: {id: 1, on: v}", "31: `v` would carry itself"),
    ]);
}

#[test]
fn interfaces_go_together() {
    let vlan = |name: &str, on: &str| format!("- {{name: {name}, vlan: {{id: 1, on: {on}}}}}\n");
    assert_eq!(
        error(&format!("network:\n{}{}", vlan("a", "b"), vlan("b", "a"))),
        "web.yml:2:31: `b` would carry itself"
    );
    assert!(error(&format!("network:\n{0}{0}", vlan("a", "eth0"))).contains("`a` is there twice"));
    parse("web.yml", &format!("network:\n{}{}", vlan("a", "b"), vlan("b", "eth0"))).unwrap();
    assert_eq!(
        error("init: [a:1]\nnetwork: []"),
        "web.yml:2:10: `network` is set up by kiln-init; add `kiln` to `init`"
    );
    parse("web.yml", "init: [a:1, kiln]\nnetwork: []").unwrap();
}
