use std::path::Path;

use super::*;
use crate::settings::Settings;

const GOOD: &str = r#"
[[subnet6]]
network = "fd77::/64"
interface = "br0"
address = "fd77::1"
pool = ["fd77::1:0-fd77::1:ffff"]
dns = ["fd77::1"]
domain = "lab.example"
lease-time = "12h"
advertise = true
managed = true
mtu = 1500
"#;

fn parse(text: &str) -> Result<Settings, String> {
    Settings::parse(Path::new("kiln.toml"), text).map_err(|error| error.to_string())
}

fn subnet(text: &str) -> Subnet6Settings {
    parse(text).unwrap().subnets6.remove(0)
}

#[test]
fn a_server_may_serve_ipv6_alone() {
    let settings = parse(GOOD).unwrap();
    assert!(settings.subnets.is_empty());
    let subnet = &settings.subnets6[0];
    assert_eq!((subnet.dhcp, subnet.preference), (Dhcp6Mode::Stateful, 255));
    assert_eq!(subnet.lease_time, Duration::from_secs(12 * 3600));
    assert!(subnet.contains("fd77::abcd".parse().unwrap()));
    assert!(!subnet.contains("fd78::1".parse().unwrap()));
}

#[test]
fn flags_that_are_not_said_follow_from_what_dhcpv6_does() {
    let flags = |dhcp: &str| {
        let text = format!(
            "[[subnet6]]\nnetwork = \"fd77::/64\"\ninterface = \"br0\"\naddress = \"fd77::1\"\n\
                 advertise = true\ndhcp = \"{dhcp}\"\n"
        );
        let said = subnet(&text).advertise.unwrap();
        (said.managed, said.other, said.autonomous, said.default_router)
    };
    assert_eq!(flags("stateful"), (true, true, false, false));
    assert_eq!(flags("stateless"), (false, true, true, false));
    assert_eq!(flags("off"), (false, false, true, false));
    let silent = GOOD.replace("advertise = true\nmanaged = true\nmtu = 1500\n", "");
    assert_eq!(subnet(&silent).advertise, None);
}

#[test]
fn every_error_names_its_place_and_what_to_write() {
    for (from, to, expected) in [
        ("fd77::/64", "fd77::5/64", "kiln.toml:3:11: `fd77::5/64` has bits after its prefix"),
        ("fd77::/64", "10.0.0.0/24", "kiln.toml:3:11: `10.0.0.0/24` is not a network of IPv6"),
        ("fd77::/64", "fd77::/127", "kiln.toml:3:11: `fd77::/127` has no usable prefix"),
        ("fd77::/64", "fe80::/64", "kiln.toml:3:11: `fe80::/64` is not a network that"),
        ("\"br0\"", "\"a b\"", "kiln.toml:4:13: `a b` is no name of a network interface"),
        ("ss = \"fd77::1\"", "ss = \"fd78::1\"", "kiln.toml:5:11: address fd78::1 is not in"),
        ("ss = \"fd77::1\"", "ss = \"fe80::1\"", "kiln.toml:5:11: fe80::1 cannot be our addr"),
        ("ss = \"fd77::1\"", "ss = \"fd77::\"", "kiln.toml:5:11: address fd77:: means any"),
        ("-fd77::1:ffff", "-fd78::1", "kiln.toml:6:9: address fd78::1 is not in fd77::/64"),
        ("-fd77::1:ffff", "-fd77::9", "kiln.toml:6:9: range"),
        ("-fd77::1:ffff", "-fd77::f:ffff", "kiln.toml:6:9: a pool has at most 131072"),
        ("-fd77::1:ffff", "", "kiln.toml:6:9: `fd77::1:0` is not a range"),
        ("lab.example", "lab..example", "kiln.toml:8:10: `lab..example` is not a domain name"),
        ("12h", "12", "kiln.toml:9:14: `12` is not a time"),
        ("advertise = true", "advertise = false", "kiln.toml:11:11: `managed` goes with"),
        ("1500", "1279", "kiln.toml:12:7: an MTU is a number from 1280 to 65535"),
        ("managed", "manged", "kiln.toml:11:1: unknown field `manged`"),
        ("pool =", "dhcp = \"stateless\"\npool =", "kiln.toml:7:9: `pool` goes with"),
        ("pool =", "relay = true\npool =", "kiln.toml:11:13: a network behind a relay hears"),
    ] {
        let text = parse(&GOOD.replace(from, to)).unwrap_err();
        assert!(text.starts_with(expected), "{to}: {text}");
    }
    let twice = parse(&format!("{GOOD}{GOOD}")).unwrap_err();
    assert!(twice.contains("network fd77::/64 is in two subnets"), "{twice}");
    let other = GOOD.replace("fd77", "fd78").replace("mtu = 1500", "mtu = 1400");
    let text = parse(&format!("{GOOD}{other}")).unwrap_err();
    assert!(text.contains("these are of the link"), "{text}");
}
