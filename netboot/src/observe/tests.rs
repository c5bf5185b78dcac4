use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{BootId, MachineId, NewBoot, NewMachine, Outcome, UnknownMachines};

use super::*;
use crate::bake::BakerConfig;
use crate::settings::TransferSettings;

async fn observed(dir: &std::path::Path) -> Observed {
    let inventory = Store::open(&dir.join("inventory.db")).await.unwrap();
    let machine = NewMachine {
        image: Some("web".parse().unwrap()),
        ..NewMachine::new("n1", [MAC.parse().unwrap()])
    };
    inventory.add_machine(&machine).await.unwrap();
    let artifacts = Artifacts::open(dir.join("store")).unwrap();
    let view = View::load(inventory.clone(), artifacts, UnknownMachines::Hold, None).await.unwrap();
    let view = Arc::new(view);
    let (boots, _) = Boots::start(inventory.clone());
    let stop = CancellationToken::new();
    let (baker, _) = Baker::start(BakerConfig::idle(dir), view.clone(), stop);
    let (_, journal, _) = crate::dhcp::journal::open(dir).unwrap();
    let lease = kiln_inventory::Lease {
        address: [10, 0, 0, 7].into(),
        mac: MAC.parse().unwrap(),
        expires: i64::MAX / 1000,
        hostname: None,
    };
    let (leases, _) = Ledger::start(vec![lease], journal);
    let at = |last| Ipv6Addr::from([0xfd77, 0, 0, 0, 0, 0, 0, last]);
    let lease = kiln_inventory::Lease6 {
        address: at(0x107),
        duid: "000409".parse().unwrap(),
        iaid: 1,
        mac: None,
        expires: i64::MAX / 1000,
    };
    let (leases6, _) = v6::Ledger::start(vec![lease], Nowhere);
    let mut subnet6 = Subnet6Settings::new(at(0), 64, "br0", at(1));
    subnet6.pool = vec![at(0x100)..=at(0x1ff)];
    let network = Ipv4Addr::new(10, 0, 0, 0);
    let address = Ipv4Addr::new(10, 0, 0, 1);
    let mut subnet = SubnetSettings::without_dhcp(network, 24, "br0", address);
    subnet.pool = vec![Ipv4Addr::new(10, 0, 0, 5)..=Ipv4Addr::new(10, 0, 0, 14)];
    Observed {
        inventory,
        view,
        boots,
        leases,
        leases6,
        baker,
        tftp: vec![Arc::default(), Arc::default()],
        transfers: Transfers::new(&TransferSettings::default()),
        subnets: vec![subnet],
        subnets6: vec![subnet6],
        files: None,
        since: 1_800_000_000_000,
        late_after: Duration::from_secs(900),
    }
}

/// Keeps no lease.
struct Nowhere;

impl v6::LeaseLog for Nowhere {
    async fn commit(&self, _: &[kiln_inventory::Lease6]) -> Result<(), crate::dhcp::BoxError> {
        Ok(())
    }
}

const MAC: &str = "52:54:00:00:00:07";

/// What a page says: the type of each family, and its samples by name and labels.
#[derive(Default)]
struct Parsed {
    kinds: BTreeMap<String, String>,
    samples: BTreeMap<String, f64>,
}

/// Reads a page as strictly as the format is described: families are whole and come once, names and labels are made of
/// what they may be made of, each sample comes once and is a number.
fn parse(page: &str) -> Parsed {
    let mut parsed = Parsed::default();
    let mut family = String::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty(), "{line}");
            name.clone_into(&mut family);
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert_eq!(name, family, "a type without its help");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            let before = parsed.kinds.insert(name.to_owned(), kind.to_owned());
            assert!(before.is_none(), "{name} comes twice");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let (name, labels) = match series.split_once('{') {
            Some((name, rest)) => (name, rest.strip_suffix('}').unwrap()),
            None => (series, ""),
        };
        assert!(name.starts_with("kiln_"), "{line}");
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
        let histogram = parsed.kinds.get(&family).is_some_and(|kind| kind == "histogram");
        let suffix = name.strip_prefix(family.as_str()).unwrap_or("not of the family");
        let fits = if histogram {
            ["_bucket", "_sum", "_count"].contains(&suffix)
        } else {
            suffix.is_empty()
        };
        assert!(fits, "{line} is not of {family}");
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').unwrap();
            assert!(name.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
            assert!(value.starts_with('"') && value.ends_with('"') && value.len() < 64, "{line}");
        }
        let value: f64 = value.parse().unwrap();
        assert!(parsed.samples.insert(series.to_owned(), value).is_none(), "{line} comes twice");
    }
    parsed
}

#[tokio::test]
async fn the_page_of_metrics_is_what_the_format_says_and_names_no_machine() {
    let dir = tempfile::tempdir().unwrap();
    let observed = observed(dir.path()).await;
    COUNTS.offer.observe(Duration::from_millis(3));
    COUNTS.boots.ends(&healthy());
    COUNTS.reply(crate::dhcp::ReplyKind::Offer, true);
    COUNTS.packet6(v6::Counted::Malformed);
    COUNTS.packet6(v6::Counted::Answered {
        asked: v6::Kind::Solicit,
        reply: Some(v6::ReplyKind::Advertise),
        note: v6::Note::Offered,
    });
    let page = observed.page().await;
    let parsed = parse(&page);
    let value = |series: &str| parsed.samples.get(series).copied();
    assert_eq!(value("kiln_machines{state=\"idle\"}"), Some(1.0));
    assert_eq!(value("kiln_machines_over_sla{state=\"booting\"}"), Some(0.0));
    assert_eq!(value("kiln_unknown_macs{state=\"waiting\"}"), Some(0.0));
    assert_eq!(value("kiln_webhooks{state=\"disabled\"}"), Some(0.0));
    assert_eq!(value("kiln_config_reload_success"), Some(1.0));
    assert_eq!(value("kiln_config_reload_timestamp_seconds"), Some(1.8e9));
    let offers = "kiln_dhcp_packets_total{direction=\"out\",type=\"offer\",result=\"sent\"}";
    assert!(value(offers).is_some_and(|count| count >= 1.0));
    assert_eq!(value("kiln_dhcp_leases{subnet=\"10.0.0.0/24\"}"), Some(1.0));
    assert_eq!(value("kiln_pool_addresses{subnet=\"10.0.0.0/24\",state=\"leased\"}"), Some(1.0));
    assert_eq!(value("kiln_pool_addresses{subnet=\"10.0.0.0/24\",state=\"free\"}"), Some(9.0));
    let free6 = "kiln_pool_addresses{subnet=\"fd77::/64\",state=\"free\"}";
    assert_eq!(
        (value("kiln_dhcp6_leases{subnet=\"fd77::/64\"}"), value(free6)),
        (Some(1.0), Some(255.0))
    );
    let malformed = value("kiln_dhcp6_dropped_total{reason=\"malformed\"}");
    assert!(malformed.is_some_and(|count| count >= 1.0));
    let solicited =
        value("kiln_dhcp6_packets_total{direction=\"in\",type=\"solicit\",result=\"advertise\"}");
    assert!(solicited.is_some_and(|count| count >= 1.0));
    assert!(
        value("kiln_boots_total{image=\"web\",result=\"healthy\"}")
            .is_some_and(|count| count >= 1.0)
    );
    assert!(value("kiln_process_resident_memory_bytes").is_some_and(|bytes| bytes > 1e6));
    let buckets: Vec<f64> = page
        .lines()
        .filter(|line| line.starts_with("kiln_dhcp_offer_seconds_bucket"))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
        .collect();
    assert!(buckets.is_sorted(), "{buckets:?}");
    assert_eq!(buckets.last().copied(), value("kiln_dhcp_offer_seconds_count"));
    for of_machine in [MAC, "n1\"", "10.0.0.7", "fd77::107"] {
        assert!(!page.contains(of_machine), "{of_machine} is in the page");
    }
}

/// A boot that came up.
fn healthy() -> kiln_inventory::Boot {
    let new = NewBoot {
        image: Some("web".parse().unwrap()),
        version: Some(kiln_builder::hash::sha256(b"web")),
        ..NewBoot::new(MachineId(1), "n1", MAC.parse().unwrap(), 0)
    };
    kiln_inventory::Boot { outcome: Outcome::Healthy, ..new.numbered(BootId(1)) }
}

/// The metrics that other programs may count on, with the labels that a sample of each has.
const PROMISED: [&str; 25] = [
    "build_info{version}",
    "dhcp_packets_total{direction,type,result}",
    "dhcp_offer_seconds_bucket{le}",
    "rogue_dhcp_servers",
    "pool_addresses{subnet,state}",
    "tftp_transfers_total{result}",
    "tftp_retransmits_total",
    "http_bytes_total{kind}",
    "boots_total{image,result}",
    "boot_phase_seconds_bucket{phase,arch,le}",
    "boot_phase_seconds_sum{phase,arch}",
    "boot_phase_seconds_count{phase,arch}",
    "machines{state}",
    "machines_over_sla{state}",
    "unknown_macs{state}",
    "webhooks{state}",
    "image_cache_hits_total",
    "image_cache_misses_total",
    "image_cache_bytes",
    "config_reload_success",
    "config_reload_timestamp_seconds",
    "ready",
    "check_ok{check}",
    "secrets_refused_total",
    "events_lost_total",
];

#[tokio::test]
async fn every_metric_that_is_promised_is_on_the_page_with_its_labels_and_in_the_documentation() {
    let dir = tempfile::tempdir().unwrap();
    let page = observed(dir.path()).await.page().await;
    let without_value = |label: &str| label.split_once('=').unwrap().0.to_owned();
    let shapes: BTreeSet<String> = parse(&page)
        .samples
        .keys()
        .map(|series| match series.strip_suffix('}').and_then(|it| it.split_once('{')) {
            Some((name, labels)) => {
                let labels: Vec<String> = labels.split(',').map(without_value).collect();
                format!("{name}{{{}}}", labels.join(","))
            }
            None => series.clone(),
        })
        .collect();
    for promised in PROMISED {
        assert!(shapes.contains(&format!("kiln_{promised}")), "{promised} is not on the page");
    }
    let documented = names(include_str!("../../../docs/observe.md"));
    for family in parse(&page).kinds.keys() {
        assert!(documented.contains(family), "docs/observe.md does not tell of {family}");
    }
}

/// Returns the names of metrics in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_part(c));
    words.filter(|word| word.starts_with("kiln_")).map(str::to_owned).collect()
}

/// Returns the expressions of the dashboard.
fn shown() -> Vec<String> {
    let dashboard = include_str!("../../../config/grafana/kiln.json");
    let parsed: serde_json::Value = serde_json::from_str(dashboard).unwrap();
    let mut shown = Vec::new();
    for panel in parsed["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty(), "{panel}");
        shown.extend(targets.iter().map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    shown
}

/// Returns the expressions of the alert rules.
fn watched() -> Vec<String> {
    let rules = include_str!("../../../config/prometheus/kiln.rules.yml");
    let parsed: serde_json::Value = serde_saphyr::from_str(rules).unwrap();
    let mut watched = Vec::new();
    for rule in parsed["groups"][0]["rules"].as_array().unwrap() {
        assert!(rule["annotations"]["summary"].is_string(), "{rule}");
        watched.push(rule["expr"].as_str().unwrap().to_owned());
    }
    watched
}

#[tokio::test]
async fn the_dashboard_and_the_alert_rules_name_metrics_that_there_are() {
    let dir = tempfile::tempdir().unwrap();
    let kinds = parse(&observed(dir.path()).await.page().await).kinds;
    let exists = |name: &str| {
        let of_histogram = ["_bucket", "_sum", "_count"]
            .iter()
            .filter_map(|suffix| name.strip_suffix(suffix))
            .any(|family| kinds.get(family).is_some_and(|kind| kind == "histogram"));
        of_histogram || kinds.get(name).is_some_and(|kind| kind != "histogram")
    };
    let all = |exprs: Vec<String>| -> BTreeSet<String> {
        let each = exprs.iter().map(|expr| (expr, names(expr)));
        each.inspect(|(expr, names)| assert!(!names.is_empty(), "{expr}"))
            .flat_map(|(_, names)| names)
            .collect()
    };
    let (shown, watched) = (all(shown()), all(watched()));
    for name in shown.iter().chain(&watched) {
        assert!(exists(name), "there is no metric {name}");
    }
    // What nobody looks at need not be counted.
    for family in kinds.keys().filter(|name| *name != "kiln_build_info") {
        let seen = shown.iter().chain(&watched).any(|name| name.starts_with(family.as_str()));
        assert!(seen, "{family} is neither in the dashboard nor in an alert");
    }
}

/// Says what Prometheus would refuse in an expression, as far as it is looked for: brackets that do not fit, and a number
/// whose operator is told which labels to match (`0.1 * on (subnet) …`), for a number has none. `./dev check` asks
/// Prometheus itself.
fn refused(expr: &str) -> Option<String> {
    // What stands between quotes has no grammar.
    let bare: String = expr.split('"').step_by(2).collect::<Vec<_>>().join("_");
    let mut open = Vec::new();
    for c in bare.chars() {
        match c {
            '(' => open.push(')'),
            '{' => open.push('}'),
            '[' => open.push(']'),
            ')' | '}' | ']' if open.pop() != Some(c) => {
                return Some(format!("a `{c}` that closes nothing"));
            }
            _ => {}
        }
    }
    if let Some(c) = open.pop() {
        return Some(format!("a `{c}` is missing"));
    }
    let spaced = ["*", "/", "+", "-", "%", "<", ">", "=", "!", "(", ")"]
        .iter()
        .fold(bare, |text, mark| text.replace(mark, &format!(" {mark} ")));
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let is_operator =
        |word: &str| "*/+-%<>=!".contains(word) || ["and", "or", "bool"].contains(&word);
    for (at, word) in words.iter().enumerate() {
        let left = words[..at].iter().rev().find(|word| !is_operator(word));
        if ["on", "ignoring"].contains(word) && left.is_some_and(|it| it.parse::<f64>().is_ok()) {
            return Some(format!("`{word}` behind a number"));
        }
    }
    None
}

#[test]
fn prometheus_takes_the_expressions_of_the_dashboard_and_of_the_alert_rules() {
    for (expr, fault) in [
        ("a{b=\"(\"} < on (c) 0.1 * sum by (c) (d[5m])", None),
        ("0.1 * a < on (c) d", None),
        ("a < 0.1 * on (c) sum by (c) (d)", Some("`on` behind a number")),
        ("2 == bool ignoring (c) d", Some("`ignoring` behind a number")),
        ("sum(rate(a[5m])", Some("a `)` is missing")),
        ("a[5m)", Some("a `)` that closes nothing")),
    ] {
        assert_eq!(refused(expr).as_deref(), fault, "{expr}");
    }
    for expr in shown().iter().chain(&watched()) {
        assert_eq!(refused(expr), None, "{expr}");
    }
}

#[tokio::test]
async fn a_server_without_what_its_machines_boot_is_not_ready_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let health = observed(dir.path()).await.health().await;
    let fault = |name: &str| {
        let check = health.0.iter().find(|check| check.name == name).unwrap();
        check.fault.clone().unwrap_or_default()
    };
    assert!(!health.is_ready());
    assert_eq!(fault("images"), "no version is served of web");
    assert_eq!((fault("store"), fault("boots"), fault("artifacts")), Default::default());
}
