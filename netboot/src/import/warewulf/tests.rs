use kiln_inventory::Setting;
use serde_json::json;

use super::super::{Imported, Source, read};

fn one(text: &str) -> Imported {
    read(Source::Warewulf, &[text.to_owned()]).unwrap()
}

#[test]
fn nodes_become_machines_and_profiles_what_they_share() {
    let text = r"
nodeprofiles:
  default:
    image name: Rocky-9
    kernel:
      args: [quiet, 'console=ttyS0,115200']
    tags: {site: a}
  gpu:
nodes:
  n1:
    profiles: [default, gpu, ~old]
    comment: first
    cluster name: c1
    network devices:
      default: {device: eth0, hwaddr: '52:54:00:00:00:01', ipaddr: 10.0.0.1}
      ib: {hwaddr: '52:54:00:00:00:11', ipaddr: 10.9.0.1}
    kernel: {args: 'debug nmi_watchdog=0'}
    ipmi: {username: admin, password: secret}
  n2:
    profiles: [default]
    primary network: lan
    network devices:
      lan: {hwaddr: 52-54-00-00-00-02, ipaddr: 10.0.0.2, ipaddr6: fd00::2/64}
  n3:
";
    let all = one(text);
    let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
    assert_eq!(names, ["n1", "n2"]);
    let [n1, n2] = &all.machines[..] else { panic!("two machines") };
    assert_eq!((n1.macs.len(), n1.address), (2, "10.0.0.1".parse().ok()));
    assert_eq!(n1.cmdline, "debug nmi_watchdog=0");
    assert!(n1.unset.contains(&Setting::Cmdline) && n2.unset.is_empty());
    let labels: Vec<_> = n1.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["cluster", "comment", "profile-default", "profile-gpu"]);
    assert_eq!(n2.address6, "fd00::2".parse().ok());
    assert_eq!(all.shared.len(), 2);
    assert_eq!(all.shared[0].image, "rocky-9".parse().ok());
    assert_eq!(all.shared[0].cmdline, "quiet console=ttyS0,115200");
    assert_eq!((all.shared[0].priority, all.shared[1].priority), (0, 1));
    let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
    for (note, start) in notes.iter().zip([
        "line 10: the address of `ib` is left out",
        "line 10: `device` of a network is left out",
        "line 10: `ipmi` is left out",
        "line 24: n3 is left out",
    ]) {
        assert!(note.starts_with(start), "{start}: {notes:?}");
    }
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(!notes.join("\n").contains("secret"), "{notes:?}");
}

#[test]
fn a_later_profile_wins_and_the_node_over_all() {
    let all = one(r"
nodeprofiles:
  zeus: {image name: old, tags: {site: z, n: 5}, primary network: lan}
  apollo: {image name: new, kernel: {args: [quiet]}, cluster name: c2, resources: {fstab: [{spec: x}]}}
  odd: {profiles: [apollo], comment: x}
nodes:
  n1: {profiles: [zeus, apollo], network devices: {lan: {hwaddr: '52:54:00:00:00:01', ipaddr: 10.0.0.5/24}, a: {ipaddr: 10.9.0.5}}}
  n2: {profiles: [zeus, odd], image name: own, cluster name: c9, network devices: {default: {hwaddr: '52:54:00:00:00:02', ipaddr6: 'x'}}}
  n3: {profiles: [apollo, zeus, gone], network devices: {default: {hwaddr: '52:54:00:00:00:03'}}}
");
    let rank = |name: &str| all.shared.iter().find(|one| one.name == name).unwrap().priority;
    assert!(rank("apollo") < rank("odd"));
    let [n1, n2, n3] = &all.machines[..] else { panic!("three machines") };
    assert_eq!(n1.address, "10.0.0.5".parse().ok());
    assert_eq!((n2.image.clone(), n2.labels["cluster"].as_str()), ("own".parse().ok(), "c9"));
    let labels: Vec<_> = n2.labels.keys().map(String::as_str).collect();
    assert_eq!(labels, ["cluster", "profile-apollo", "profile-odd", "profile-zeus"]);
    // The groups are in the order of the third, and what the others get is said of themselves.
    assert!(rank("apollo") < rank("zeus"));
    assert_eq!((n3.image.as_ref(), n3.metadata.len()), (None, 0));
    assert_eq!((n1.image.clone(), n1.labels["cluster"].as_str()), ("new".parse().ok(), "c2"));
    let metadata = json!({"site": "z", "n": "5", "resources": {"fstab": [{"spec": "x"}]}});
    assert_eq!(serde_json::Value::from(n1.metadata.clone()), metadata);
    let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
    for start in [
        "line 5: `comment` of a profile",
        "line 7: its profiles come in another order",
        "line 7: the address of `a` is left out",
        "line 8: `x` is left out: it is no address",
        "line 9: the profile `gone` is in none",
    ] {
        assert!(notes.iter().any(|note| note.starts_with(start)), "{start}: {notes:?}");
    }
}

#[test]
fn what_has_no_counterpart_is_told_of_with_its_line() {
    let all = one(r"
WW_INTERNAL: 45
other: 1
nodeprofiles:
  default:
    kernel: {override: 5.14.0, version: 5, args: quiet}
    runtime overlay: [generic]
    ipmi password: geheim
    network devices: {default: {hwaddr: '52:54:00:00:00:09', gateway: 10.0.0.254}}
nodes:
  n1:
    discoverable: true
    asset key: geheim
    kernel args: debug
    network devices: {default: {hwaddr: '52:54:00:00:00:01', netmask: 255.255.255.0}}
  n2:
    discoverable: 'true'
    network devices: {default: {hwaddr: '52:54:00:00:00:02', netmask: 255.255.255.0}}
");
    assert_eq!(all.machines[0].cmdline, "debug");
    let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
    let starts = [
        "`other` is left out: Kiln has",
        "line 5: addresses in a profile",
        "line 5: `kernel override` is left out: the image",
        "line 5: `kernel version` is left out: the image",
        "line 5: `gateway` of a network is left out",
        "line 5: `ipmi password` is left out: Kiln does not",
        "line 5: `runtime overlay` is left out: put",
        "line 11: `discoverable` is left out: name",
        "line 11: `netmask` of a network is left out",
        "line 11: `asset key` is left out",
    ];
    assert_eq!(notes.len(), starts.len(), "{notes:?}");
    for (note, start) in notes.iter().zip(starts) {
        assert!(note.starts_with(start) && !note.contains("geheim"), "{start}: {notes:?}");
    }
    assert!(notes[7].ends_with("(also in line 16)"), "{notes:?}");
}

#[test]
fn what_is_no_file_of_nodes_is_refused() {
    for (text, start) in [
        ("a: [", "line "),
        ("nodeprofiles: {}\n", "there are no `nodes`"),
        ("nodes:\n  n1: {profiles: x}\n", "line 2: "),
    ] {
        let (_, error) = read(Source::Warewulf, &[text.to_owned()]).unwrap_err();
        assert!(error.to_string().starts_with(start), "{text}: {error}");
    }
}

#[test]
fn a_node_without_profiles_has_the_default_one_where_the_file_is_of_an_old_version() {
    for (form, cmdline, label) in [("WW_INTERNAL: 45\n", "own", 1), ("", "own", 0)] {
        let all = one(&format!(
            "{form}nodeprofiles: {{default: {{kernel: {{args: [quiet]}}}}, gpu: {{}}}}\nnodes:\n\
             {}  n2: {{profiles: [gpu], network devices: {{default: {{hwaddr: '52:54:00:00:00:02'}}}}}}\n",
            "  n1: {kernel: {args: [own]}, network devices: {default: {hwaddr: '52:54:00:00:00:01'}}}\n"
        ));
        let [n1, n2] = &all.machines[..] else { panic!("two machines") };
        assert_eq!((n1.cmdline.as_str(), n1.labels.len()), (cmdline, label), "{form}");
        assert_eq!(n2.labels.keys().next().map(String::as_str), Some("profile-gpu"));
    }
}

#[test]
fn many_nodes_are_read_and_profiles_that_multiply_are_refused() {
    use std::fmt::Write as _;
    let nodes = |count: u32, profiles: &str| {
        let mut text = "nodes:\n".to_owned();
        for number in 0..count {
            let [_, a, b, c] = number.to_be_bytes();
            let mac = format!("52:54:00:{a:02x}:{b:02x}:{c:02x}");
            // Names with an escape are not found in the text.
            writeln!(text, "  \"\\x6e{number}\":\n    profiles: [{profiles}]\n    network devices:\n      default:\n        hwaddr: {mac}\n        device: eth0")
                .unwrap();
        }
        text
    };
    assert_eq!(one(&nodes(20_000, "")).machines.len(), 20_000);
    let chain = |count: u32| {
        let mut text = "nodeprofiles:\n".to_owned();
        for number in 0..count {
            let before = number.saturating_sub(1);
            writeln!(text, "  p{number}: {{profiles: [p{before}]}}").unwrap();
        }
        text
    };
    for (text, start) in [
        (chain(10_000) + &nodes(1, "p9999"), "it has more than 1000 profiles"),
        (chain(1000) + &nodes(4000, "p999"), "its nodes have too many profiles"),
    ] {
        let (_, error) = read(Source::Warewulf, &[text]).unwrap_err();
        assert!(error.to_string().starts_with(start), "{error}");
    }
    let all = one(&(chain(1000) + &nodes(1, "p999")));
    assert_eq!((all.shared.len(), all.machines[0].labels.len()), (1000, 1000));
}
