use kiln_inventory::UnknownMachines;

use super::*;

const GOOD: &str = r#"
[[subnet]]
network = "10.0.0.0/24"
interface = "br0"
address = "10.0.0.1"
pool = ["10.0.0.100-10.0.0.199"]
lease-time = "12h"
"#;

fn error(text: &str) -> String {
    Settings::parse(Path::new("kiln.toml"), text).unwrap_err().to_string()
}

#[test]
fn the_shipped_example_is_good() {
    let text = include_str!("../../../config/kiln.toml");
    let settings = Settings::parse(Path::new("kiln.toml"), text).unwrap();
    assert_eq!(settings.subnets.len(), 1);
    assert_eq!(settings.http_port, 8080);
}

#[test]
fn what_is_not_said_has_a_default() {
    let settings = Settings::parse(Path::new("kiln.toml"), GOOD).unwrap();
    assert_eq!(settings.socket, Path::new(DEFAULT_SOCKET));
    assert_eq!(settings.store_dir, Path::new("/var/lib/kiln/store"));
    assert_eq!(settings.discovery.unknown, UnknownMachines::Ignore);
    let subnet = &settings.subnets[0];
    assert_eq!(subnet.lease_time, Duration::from_secs(12 * 3600));
    assert_eq!(subnet.dhcp, DhcpMode::Server);
}

#[test]
fn every_error_names_its_place_and_what_to_write() {
    for (from, to, expected) in [
        ("[[subnet]]", "[[subnets]]", "kiln.toml:2:3: unknown field `subnets`"),
        ("10.0.0.0/24", "10.0.0.7/24", "kiln.toml:3:11: `10.0.0.7/24` has bits after its prefix"),
        ("10.0.0.0/24", "10.0.0.0", "kiln.toml:3:11: `10.0.0.0` is not a network"),
        ("\"10.0.0.1\"", "\"10.9.0.1\"", "kiln.toml:5:11: address 10.9.0.1 is not in 10.0.0.0/24"),
        ("0.199\"", "1.199\"", "kiln.toml:6:9: address 10.0.1.199 is not in 10.0.0.0/24"),
        ("-10.0.0.199", "-10.0.0.9", "kiln.toml:6:9: range"),
        ("12h", "12", "kiln.toml:7:14: `12` is not a time; write it as 90s, 30m, 12h or 7d"),
        ("12h", "1s", "kiln.toml:7:14: `1s` is not between 60s and 30d"),
    ] {
        let text = error(&GOOD.replace(from, to));
        assert!(text.starts_with(expected), "{to}: {text}");
    }
    assert!(error("").contains("no [[subnet]]"));
    assert!(error("[http]\nport = 70000\n").starts_with("kiln.toml:2:8: "));
}

#[test]
fn what_is_served_has_to_be_signed_unless_the_settings_say_otherwise() {
    let trust = |text: &str| {
        Settings::parse(Path::new("kiln.toml"), &format!("{GOOD}{text}")).unwrap().trust
    };
    let default = trust("");
    assert!(default.require_signature);
    assert_eq!(default.keys.path(), Path::new("/var/lib/kiln/keys"));
    let other = trust("[trust]\nrequire-signature = false\nkeys = \"/srv/keys\"\n");
    assert!(!other.require_signature);
    assert_eq!(other.keys.path(), Path::new("/srv/keys"));
    assert_eq!(trust("[store]\ndir = \"/srv/store\"\n").keys.path(), Path::new("/srv/keys"));
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = error(&GOOD.replace("12h", "x").replace("\"10.0.0.1\"", "\"10.9.0.1\""));
    assert_eq!(text.lines().count(), 2, "{text}");
}

#[test]
fn two_subnets_do_not_overlap() {
    assert!(error(&format!("{GOOD}{GOOD}")).contains("is in two subnets"));
}

#[test]
fn the_commented_keys_of_a_subnet_are_right_too() {
    let text = include_str!("../../../config/kiln.toml");
    let (_, subnet) = text.split_once("# One for each network.\n").unwrap();
    let (subnet, _) = subnet.split_once("# One for each network of IPv6").unwrap();
    let keys = subnet.lines().filter_map(|line| line.strip_prefix("# "));
    let keys: Vec<&str> = keys
        .filter(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
        // They go with other values of other keys.
        .filter(|line| {
            !["boot-server", "shared-network", "relay"].iter().any(|key| line.starts_with(key))
        })
        .collect();
    assert!(keys.len() > 10, "{keys:?}");
    let text = format!("{GOOD}{}\n", keys.join("\n"));
    let settings = Settings::parse(Path::new("kiln.toml"), &text).unwrap();
    let rules = &settings.subnets[0].rules;
    assert_eq!(rules.options[&252].bytes(), b"text:http://wpad.lab.example/wpad.dat".split_at(5).1);
    assert_eq!(
        (rules.routes.len(), rules.mtu, rules.max_lease),
        (1, Some(9000), Some(Duration::from_hours(168)))
    );
}

#[test]
fn rules_of_a_subnet_that_make_no_sense_are_named() {
    for (line, expected) in [
        ("routes = [\"10.0.0.1/8 via x\"]", "is no route"),
        ("search = [\"a..b\"]", "is no domain name"),
        ("mtu = 9", "at least 68"),
        ("options = { 53 = \"u8:1\" }", "no number of an option that can be set"),
        ("options = { 42 = \"10.0.0.1\" }", "write its type in front"),
        ("min-lease-time = \"13h\"", "is at most"),
        ("max-lease-time = \"1h\"", "is at most"),
        ("shared-network = \"x\"", "goes with `relay = true`"),
        ("hostnames = \"some\"", "unknown variant"),
        ("ntps = []", "unknown field"),
    ] {
        let text = error(&format!("{GOOD}{line}\n"));
        assert!(text.contains(expected), "{line}: {text}");
    }
}

#[test]
fn a_key_for_secure_boot_needs_its_certificate_and_stands_alone() {
    for (lines, expected) in [
        ("sign-key = \"k\"", "signs without a certificate"),
        ("sign-cert = \"c\"", "sign-cert alone"),
        ("sign-key = \"k\"\nsign-command = \"s\"\nsign-cert = \"c\"", "leave one of them out"),
    ] {
        let text = error(&format!("{GOOD}[loaders]\n{lines}\n"));
        assert!(text.contains(expected), "{lines}: {text}");
    }
    let text = format!("{GOOD}[loaders]\nsign-key = \"k\"\nsign-cert = \"c\"\n");
    let settings = Settings::parse(Path::new("kiln.toml"), &text).unwrap();
    let expected = Signing::Key { key: "k".into(), certificate: "c".into() };
    assert_eq!(settings.uki_signing, Some(expected));
    assert!(error(&format!("{GOOD}[metadata]\nsecure-boot = true\n")).contains("unknown field"));
}

#[test]
fn fuzzed_settings_are_read_or_refused_with_their_place() {
    let example = include_str!("../../../config/kiln.toml");
    let used: String =
        example.lines().map(|line| line.trim_start_matches("# ")).collect::<Vec<_>>().join("\n");
    let subnet =
        "[server]\n[[subnet]]\nnetwork = \"10.0.0.0/24\"\npool = \"10.0.0.10 - 10.0.0.99\"\n";
    let samples = [example.as_bytes(), used.as_bytes(), subnet.as_bytes()];
    kiln_fuzz::check("settings", &samples, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if let Err(error) = Settings::parse(Path::new("kiln.toml"), &text) {
            assert!(!error.to_string().is_empty());
        }
    });
}
