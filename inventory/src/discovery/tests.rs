use std::collections::BTreeMap;

use kiln_types::Mac;
use kiln_types::facts::{DiskFacts, Facts, SystemFacts};

use super::*;
use crate::{Document as _, Recogniser};

const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4a3132";

fn entry(last: u8) -> Discovered {
    Discovered {
        macs: [Mac::new([0x52, 0x54, 0, 0, 0, last])].into(),
        firmware: Some(Firmware::UefiX64),
        uuid: Some(UUID.to_owned()),
        serial: Some("S-1".to_owned()),
        subnet: Some("10.0.0.0/24".to_owned()),
        circuit_id: "Gi1/0/7".parse().ok(),
        ..Discovered::default()
    }
}

fn rule(json: &str) -> DiscoveryRule {
    let rule: DiscoveryRule = serde_json::from_str(json).unwrap();
    rule.check().unwrap();
    rule
}

fn expected(json: &str) -> Expected {
    let expected: Expected = serde_json::from_str(json).unwrap();
    expected.check().unwrap();
    expected
}

#[derive(Default)]
struct Site {
    rules: Vec<DiscoveryRule>,
    expected: Vec<Expected>,
    known: Vec<NewMachine>,
    twin: Option<Discovered>,
}

impl Site {
    fn settle(&self, entry: &Discovered) -> Settled {
        let traits = self.known.iter().map(|spec| (spec.name.clone(), Traits::known(spec)));
        let looks_like = Recogniser::new(traits).recognise(&entry.traits());
        let world = World {
            rules: &self.rules,
            expected: &self.expected,
            looks_like: &looks_like,
            twin: self.twin.as_ref(),
            is_taken: &|name| self.known.iter().any(|spec| spec.name == name),
        };
        settle(entry, "qemu", &world)
    }

    fn machine(&self, entry: &Discovered) -> NewMachine {
        match self.settle(entry) {
            Settled::Machine(becomes) => becomes.machine,
            other => panic!("{other:?}"),
        }
    }

    fn held(&self, entry: &Discovered) -> String {
        match self.settle(entry) {
            Settled::Hold { why: Some(why), .. } => why,
            other => panic!("{other:?}"),
        }
    }
}

const RACK: &str = r#"{"name":"rack1","selector":"vendor=qemu,arch=x86_64","action":"approve",
    "machine-name":"rack1-{n:02}","labels":{"rack":"r1"}}"#;

#[test]
fn the_strongest_rule_that_matches_settles_an_entry() {
    let ignore = rule(r#"{"name":"none","selector":"subnet=\"10.0.0.0/24\"","action":"ignore"}"#);
    let hold = rule(r#"{"name":"look","selector":"facts.disks","action":"hold"}"#);
    let mut site = Site { rules: vec![rule(RACK), ignore.clone()], ..Site::default() };
    let machine = site.machine(&entry(1));
    assert_eq!((machine.name.as_str(), machine.uuid.as_deref()), ("rack1-01", Some(UUID)));
    assert_eq!((machine.labels["rack"].as_str(), machine.state_disk), ("r1", None));
    site.rules.reverse();
    assert_eq!(site.settle(&entry(1)), Settled::Ignore { rule: "none".to_owned() });
    site.rules = vec![hold];
    assert_eq!(site.settle(&entry(1)), Settled::Wait, "it has told no disks");
    let mut told = entry(1);
    let facts = Facts { disks: vec![DiskFacts::default()], ..Facts::default() };
    told.facts = Some(SeenFacts { boot: BootId(1), at: 1, facts });
    assert_eq!(site.settle(&told), Settled::Hold { rule: Some("look".to_owned()), why: None });
    let mut rules = [ignore, rule(RACK)];
    rules.sort_by(DiscoveryRule::by_strength);
    assert_eq!(rules[0].name, "none", "of one priority, by name");
}

#[test]
fn no_rule_approves_what_says_to_be_a_box_that_there_is() {
    let mut known = NewMachine::new("n1", [Mac::new([2; 6])]);
    known.serial = Some("S-1".to_owned());
    let mut site = Site { rules: vec![rule(RACK)], known: vec![known], ..Site::default() };
    assert!(site.held(&entry(1)).contains("n1 with a new network card: the same serial number"));
    site.known[0].serial = Some("To be filled by O.E.M.".to_owned());
    assert_eq!(site.machine(&entry(1)).name, "rack1-01", "what means nothing is nobody's");
    site.known[0].uuid = Some("44454c4c-4200-1035-8052-b4c04f4a3132".to_owned());
    assert!(site.held(&entry(1)).contains("the same UUID"), "in either order");
    site.known.clear();
    site.twin = Some(entry(2));
    assert!(site.held(&entry(1)).contains("that of the entry of 52:54:00:00:00:02"));
    assert!(entry(1).is_twin_of(&entry(2)));
    assert!(!Discovered::default().is_twin_of(&Discovered::default()));
}

#[test]
fn what_is_expected_becomes_its_machine_by_any_of_what_it_is_known_by() {
    for known in [
        r#""serial":"s-1 ""#,
        r#""uuid":"4C4C4544-0042-3510-8052-B4C04F4A3132""#,
        r#""uuid":"44454c4c-4200-1035-8052-b4c04f4a3132""#,
        r#""circuit-id":"hex:4769312f302f37""#,
    ] {
        let json = format!(r#"{{"name":"web-7","image":"web","labels":{{"a":"b"}},{known}}}"#);
        let site = Site { expected: vec![expected(&json)], ..Site::default() };
        let machine = site.machine(&entry(1));
        assert_eq!((machine.name.as_str(), machine.macs.len()), ("web-7", 1), "{known}");
        assert_eq!((machine.image, machine.labels["a"].as_str()), ("web".parse().ok(), "b"));
    }
    let other = expected(r#"{"name":"x","serial":"S-2","circuit-id":"Gi1/0/7"}"#);
    let site = Site { expected: vec![other], ..Site::default() };
    assert_eq!(site.settle(&entry(1)), Settled::Wait, "another box is at its port");
    let twice = ["a", "b"].map(|name| expected(&format!(r#"{{"name":"{name}","serial":"S-1"}}"#)));
    let site = Site { expected: twice.into(), ..Site::default() };
    assert!(site.held(&entry(1)).contains("`a` or `b`"));
    for (json, part) in [
        (r#"{"name":"a"}"#, "nothing says which machine"),
        (r#"{"name":"a","serial":"none"}"#, "no serial number that names one machine"),
        (r#"{"name":"a","uuid":"00000000-0000-0000-0000-000000000000"}"#, "no UUID"),
        (r#"{"name":"A","serial":"S-1"}"#, "cannot be the name"),
    ] {
        let error = serde_json::from_str::<Expected>(json).unwrap().check().unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn names_of_a_list_are_given_in_its_order_until_none_is_left() {
    let line = r#"{"name":"line","selector":"*","action":"approve","list":"line-a"}"#;
    let names = ["c1", "a2", "b3"];
    let list = names.map(|name| expected(&format!(r#"{{"name":"{name}","list":"line-a"}}"#)));
    let mut site = Site { rules: vec![rule(line)], expected: list.into(), ..Site::default() };
    for (number, name) in (1..).zip(names) {
        let plain = Discovered { uuid: None, serial: None, ..entry(number) };
        let machine = site.machine(&plain);
        assert_eq!(machine.name, name);
        site.known.push(machine);
    }
    let plain = Discovered { uuid: None, serial: None, ..entry(9) };
    assert!(site.held(&plain).contains("no machine of the list `line-a` is left"));
}

#[test]
fn names_are_made_of_what_was_seen_or_not_at_all() {
    let mut told = entry(1);
    let system = SystemFacts { product: "Power Edge/R6".to_owned(), ..SystemFacts::default() };
    let facts = Facts { system, ..Facts::default() };
    told.facts = Some(SeenFacts { boot: BootId(1), at: 1, facts });
    let fill = |text: &str, taken: &[&str]| {
        let template: NameTemplate = text.parse().unwrap();
        let values: BTreeMap<String, String> = told.attributes("Dell Inc.");
        template.fill(&values, |path| told.fact(path), |name| taken.contains(&name))
    };
    assert_eq!(fill("{vendor}-{serial}", &[]).unwrap(), "dell-inc-s-1");
    assert_eq!(fill("n{n:03}", &["n001", "n002"]).unwrap(), "n003");
    assert_eq!(fill("{facts.system.product}-{n}", &[]).unwrap(), "power-edge-r6-1");
    assert_eq!(fill("p{circuit-id}", &[]).unwrap(), "pgi1-0-7");
    assert!(fill("{vendor}", &["dell-inc"]).unwrap_err().contains("already"));
    assert!(fill("{hostname}", &[]).unwrap_err().contains("has not told `hostname`"));
    let long = fill(&"{uuid}".repeat(9), &[]).unwrap();
    assert!(long.len() <= 63 && !long.ends_with('-'), "{long}");
    for bad in ["", "{", "{x}", "Rack", "{n}{n}", "{n:99}", "a b", "{facts.}", "é"] {
        assert!(bad.parse::<NameTemplate>().is_err(), "{bad}");
    }
}

#[test]
fn rules_that_cannot_mean_anything_are_refused() {
    for (json, part) in [
        (r#"{"name":"x","selector":"rack=r1","action":"hold"}"#, "`rack` is nothing that is seen"),
        (r#"{"name":"x","selector":"*","action":"approve"}"#, "needs either a template"),
        (r#"{"name":"x","selector":"*","action":"hold","list":"a"}"#, "approves nothing"),
        (r#"{"name":"X","selector":"*","action":"hold"}"#, "cannot be the name"),
    ] {
        let error = serde_json::from_str::<DiscoveryRule>(json).unwrap().check().unwrap_err();
        assert!(error.contains(part), "{error}");
    }
}
