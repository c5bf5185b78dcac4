use std::collections::BTreeSet;

use kiln_types::Mac;
use serde_json::json;

use super::*;
use crate::{MachineId, NewMachine, Settings};

pub(super) fn group(name: &str, selector: &str, priority: i32, settings: Value) -> Group {
    let settings: Settings = serde_json::from_value(settings).unwrap();
    Group { name: name.to_owned(), selector: selector.parse().unwrap(), priority, settings }
}

pub(super) fn machine(labels: &[(&str, &str)], settings: Value) -> Machine {
    let mut spec = NewMachine::new("n1", [Mac::new([2, 0, 0, 0, 0, 1])]);
    spec.set_settings(serde_json::from_value(settings).unwrap());
    spec.labels = labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    Machine { id: MachineId(1), revision: 1, spec }
}

fn resolve(groups: &[Group], machine: &Machine) -> Effective {
    Effective::clone(&Resolver::new(groups).resolve(machine))
}

/// Returns the rows as `setting=value by origin`.
fn rows(effective: &Effective) -> Vec<String> {
    let rows = effective.rows().into_iter();
    rows.map(|row| format!("{}={} by {}", row.setting, row.value, row.from)).collect()
}

#[test]
fn the_machine_beats_its_groups_and_a_higher_priority_a_lower() {
    let groups = [
        group("all", "*", 0, json!({"image": "base", "cmdline": "quiet", "arch": "x86_64"})),
        group("web", "role=web", 10, json!({"image": "web", "cmdline": "a=1", "loader": "uki"})),
        group("db", "role=db", 10, json!({"image": "db"})),
    ];
    let of = |machine: &Machine| rows(&resolve(&groups, machine));
    assert_eq!(
        of(&machine(&[("role", "web")], json!({"cmdline": "b=2", "loader": "auto"}))),
        [
            "image=web by group web",
            "arch=x86_64 by group all",
            "boot=net by default",
            "loader=auto by machine",
            "cmdline=quiet by group all",
            "cmdline=a=1 by group web",
            "cmdline=b=2 by machine",
        ]
    );
    let own = resolve(&groups, &machine(&[("role", "db")], json!({"image": "mine"})));
    assert_eq!(own.image, Some(Said { value: "mine".parse().unwrap(), by: Origin::Machine }));
    assert_eq!(own.groups, ["db".into(), "all".into()], "the strongest first");
    assert_eq!(own.arguments(), "quiet");
    let none = resolve(&[], &machine(&[], json!({})));
    assert_eq!(rows(&none), ["boot=net by default", "loader=auto by default"]);
}

#[test]
fn of_two_groups_with_one_priority_the_name_that_comes_first_wins() {
    let mut groups = [
        group("b", "*", 5, json!({"image": "b", "cmdline": "b"})),
        group("a", "*", 5, json!({"image": "a", "cmdline": "a"})),
    ];
    for _ in 0..2 {
        let all = resolve(&groups, &machine(&[], json!({})));
        assert_eq!(all.image.map(|said| said.by), Some(Origin::Group("a".into())));
        assert_eq!(all.cmdline.last().map(|said| said.value.as_str()), Some("a"));
        groups.reverse();
    }
}

#[test]
fn maps_merge_by_key_and_each_value_knows_who_said_it() {
    let groups = [
        group(
            "all",
            "*",
            0,
            json!({"metadata": {"ntp": "a", "disk": {"size": 1, "kind": "ssd"}, "flat": {"x": 1},
                                "secrets": {"key": "hidden"}},
                   "dhcp-options": {"42": "u8:1", "43": "u8:2"}}),
        ),
        group(
            "web",
            "role",
            1,
            json!({"metadata": {"disk": {"size": 2}, "flat": "now a text", "ntp": null}}),
        ),
    ];
    let own = json!({"metadata": {"disk": {"name": "sda"}}, "dhcp-options": {"43": "u8:9"}});
    let all = resolve(&groups, &machine(&[("role", "web")], own));
    assert_eq!(
        Value::from(all.metadata.clone()),
        json!({"disk": {"size": 2, "kind": "ssd", "name": "sda"}, "flat": "now a text",
               "secrets": {"key": "hidden"}})
    );
    assert_eq!(
        rows(&all)[2..],
        [
            "dhcp-options.42=u8:1 by group all",
            "dhcp-options.43=u8:9 by machine",
            "metadata.disk.kind=\"ssd\" by group all",
            "metadata.disk.name=\"sda\" by machine",
            "metadata.disk.size=2 by group web",
            "metadata.flat=\"now a text\" by group web",
            "metadata.secrets.key=(secret) by group all",
        ]
    );
}

#[test]
fn what_is_unset_does_not_count_where_something_weaker_says_it() {
    let groups = [
        group(
            "all",
            "*",
            0,
            json!({"image": "base", "cmdline": "quiet", "arch": "arm64", "state-disk": "serial:A",
                   "maintenance-image": "fix", "loader": "uki", "boot": "disk",
                   "dhcp-options": {"42": "u8:1", "43": "u8:2"},
                   "metadata": {"a": {"b": 1, "c": 2}, "ab": 3}}),
        ),
        group("web", "role=web", 1, json!({"unset": ["cmdline"], "cmdline": "verbose"})),
    ];
    let own = json!({"unset": ["image", "arch", "dhcp-options.42", "metadata.a.b", "loader",
                               "state-disk"]});
    let all = resolve(&groups, &machine(&[("role", "web")], own));
    assert_eq!(
        rows(&all),
        [
            "maintenance-image=fix by group all",
            "boot=disk by group all",
            "loader=auto by default",
            "cmdline=verbose by group web",
            "dhcp-options.43=u8:2 by group all",
            "metadata.a.c=2 by group all",
            "metadata.ab=3 by group all",
        ]
    );
    let own = json!({"unset": ["metadata", "dhcp-options", "boot", "maintenance-image", "cmdline"],
                     "metadata": {"new": 1}});
    let all = resolve(&groups, &machine(&[("role", "web")], own));
    assert_eq!(all.arguments(), "");
    assert_eq!(Value::from(all.metadata), json!({"new": 1}));
    assert!(all.dhcp_options.is_empty() && all.maintenance_image.is_none());
}

#[test]
fn the_index_of_groups_finds_what_asking_each_of_them_finds() {
    let selectors = [
        "*",
        "a=1",
        "a!=1",
        "a in (1,2)",
        "a in (1,1)",
        "a",
        "!a",
        "b,a=2",
        "b=1,a=2",
        "!b,a",
        "b!=1,!c",
        "a=1,a=2",
    ];
    let groups: Vec<Group> = selectors
        .iter()
        .map(|selector| group(&format!("g{selector}"), selector, 0, json!({})))
        .collect();
    for a in ["", "1", "2"] {
        for b in ["", "1", "2"] {
            let pairs = [("a", a), ("b", b)];
            let pairs: Vec<_> = pairs.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            let machine = machine(&pairs, json!({}));
            let found: BTreeSet<_> = resolve(&groups, &machine).groups.into_iter().collect();
            let each = groups.iter().filter(|g| g.selector.matches(&machine.spec.labels));
            let each: BTreeSet<_> = each.map(|g| Arc::from(g.name.as_str())).collect();
            assert_eq!(found, each, "{pairs:?}");
        }
    }
}

#[test]
fn machines_for_which_the_same_holds_share_it() {
    let groups = [group("web", "role=web", 0, json!({"image": "web"}))];
    let (web, rack) = (&[("role", "web")], &[("role", "web"), ("rack", "r1")]);
    let machines = [
        machine(web, json!({})),
        machine(rack, json!({})),
        machine(rack, json!({"cmdline": "x"})),
        machine(web, json!({"cmdline": "x"})),
        machine(&[], json!({"cmdline": "x"})),
    ];
    let mut resolver = Resolver::new(&groups);
    let [a, b, c, d, e] = machines.each_ref().map(|machine| resolver.resolve(machine));
    assert!(Arc::ptr_eq(&a, &b) && Arc::ptr_eq(&c, &d));
    assert!(!Arc::ptr_eq(&a, &c) && !Arc::ptr_eq(&c, &e));
}

#[test]
fn a_group_is_read_back_as_it_is_written() {
    let all =
        group("web", "role=web", 3, json!({"dhcp-options": {"42": "u8:1"}, "unset": ["arch"]}));
    let text = serde_json::to_string(&all).unwrap();
    assert_eq!(serde_json::from_str::<Group>(&text).unwrap(), all);
    for bad in [
        r#"{"name":"a","selector":"*","color":1}"#,
        r#"{"name":"a","selector":"="}"#,
        r#"{"name":"a"}"#,
        r#"{"name":"a","selector":"*","settings":{"macs":[]}}"#,
        r#"{"name":"a","selector":"*","settings":{"unset":["name"]}}"#,
        r#"{"name":"a","selector":"*","settings":{"dhcp-options":{"300":"u8:1"}}}"#,
    ] {
        assert!(serde_json::from_str::<Group>(bad).is_err(), "{bad}");
    }
    let machine =
        r#"{"id":1,"name":"n","macs":["52:54:00:00:00:01"],"dhcp-options":{"42":"u8:1"}}"#;
    let machine: Machine = serde_json::from_str(machine).unwrap();
    assert_eq!(machine.spec.dhcp_options.len(), 1, "numbers as keys inside a flattened document");
}
