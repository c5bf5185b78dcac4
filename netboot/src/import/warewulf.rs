//! Warewulf 4: `nodes.conf`, with its nodes and their profiles.

mod file;
mod left;
mod profiles;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_builder::spec::{SpecError, read_yaml};
use kiln_types::ImageRef;
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use self::file::{File, Node, some};
use self::left::{left, others};
use self::profiles::{DEFAULT, Profiles, expand, ranks};
use super::{Found, ImportError, Page, Shared, short};

/// The most profiles, each of which becomes a group.
const MOST_PROFILES: usize = 1000;
/// The most steps that it may take to find the profiles of all nodes.
const MOST_STEPS: usize = 4_000_000;
/// The name of a node is looked for in so many lines before what it names.
const NEAR: usize = 100;

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let file: File = read_yaml("nodes.conf", text).map_err(|error| match error {
        SpecError::Wrong { place, problem } => ImportError { line: place.line(), what: problem },
        other => ImportError::whole(other.to_string()),
    })?;
    let Some(nodes) = file.nodes else {
        return Err(ImportError::whole("there are no `nodes` in it"));
    };
    let mut page = Page::default();
    for key in file.rest.keys() {
        page.note(None, left(key));
    }
    let lines: Vec<&str> = text.lines().collect();
    let profiles = placed(file.nodeprofiles.unwrap_or_default(), &lines);
    let mut nodes = placed(nodes, &lines);
    if profiles.len() > MOST_PROFILES {
        let what =
            format!("it has more than {MOST_PROFILES} profiles; take out those that no node has");
        return Err(ImportError::whole(what));
    }
    // Until Warewulf 4.6, whose files do not say their form any more, a node without a profile had this one.
    if file.form.is_some() && profiles.contains_key(DEFAULT) {
        let bare = nodes.values_mut().map(|(_, node)| node.profiles.get_or_insert_default());
        bare.filter(|list| list.is_empty()).for_each(|list| list.push(DEFAULT.to_owned()));
    }
    let mut steps = MOST_STEPS;
    let lists: Vec<Vec<String>> = nodes
        .values()
        .chain(profiles.values())
        .map(|(_, node)| {
            expand(node.profiles.as_deref().unwrap_or_default(), &profiles, &mut steps)
        })
        .collect::<Option<_>>()
        .ok_or_else(|| {
            ImportError::whole("its nodes have too many profiles between them; read it in parts")
        })?;
    let ranks = ranks(profiles.keys().map(String::as_str), &lists);
    for (name, (line, node)) in &profiles {
        let priority = ranks.get(name).copied().unwrap_or_default();
        profile(name, *line, node, priority, &profiles, &mut page);
    }
    for ((name, (line, node)), list) in nodes.iter().zip(lists) {
        self::node(name, *line, node, list, &profiles, &ranks, &mut page);
    }
    Ok(page)
}

/// Finds the line of each name, which is at or before that of what it names.
fn placed(nodes: BTreeMap<String, Spanned<Option<Node>>>, lines: &[&str]) -> Profiles {
    let place = |(name, node): (String, Spanned<Option<Node>>)| {
        let near = usize::try_from(node.referenced.line()).ok().filter(|line| *line > 0);
        let end = near.unwrap_or_default();
        let start = end.saturating_sub(NEAR);
        let before = lines.get(start..end).unwrap_or_default();
        let is_it = |line: &&str| {
            let rest =
                line.trim_start().trim_start_matches(['"', '\'']).strip_prefix(name.as_str());
            rest.is_some_and(|rest| rest.starts_with([':', '"', '\'', ' ']))
        };
        let line = before.iter().rposition(is_it).map_or(near, |at| Some(start + at + 1));
        (name, (line, node.value.unwrap_or_default()))
    };
    nodes.into_iter().map(place).collect()
}

fn profile(
    name: &str,
    line: Option<usize>,
    node: &Node,
    priority: i32,
    all: &Profiles,
    page: &mut Page,
) {
    let mut shared = Shared { priority, ..Shared::of(name) };
    shared.image = image(node, line, page);
    let (cmdline, alone) = node.cmdline();
    shared.cmdline = cmdline.join(" ");
    shared.only_its_cmdline =
        alone && all.iter().any(|(other, (_, node))| other != name && !node.cmdline().0.is_empty());
    shared.metadata = metadata(node, line, page);
    if some(node.comment.as_ref()).is_some() {
        page.note(line, "`comment` of a profile is left out: groups have none");
    }
    for device in node.devices.iter().flat_map(BTreeMap::values).flatten() {
        if [&device.hwaddr, &device.ipaddr, &device.ipaddr6]
            .into_iter()
            .any(|text| some(text.as_ref()).is_some())
        {
            page.note(line, "addresses in a profile are left out: they are those of one machine; set them there");
        }
    }
    others(node, line, page);
    page.profile(name, shared);
}

fn node(
    name: &str,
    line: Option<usize>,
    node: &Node,
    list: Vec<String>,
    all: &Profiles,
    ranks: &BTreeMap<String, i32>,
    page: &mut Page,
) {
    let mut found = Found { line, name: Some(name.to_owned()), ..Found::default() };
    let of: Vec<&Node> =
        list.iter().filter_map(|name| all.get(name)).map(|(_, node)| node).collect();
    // What it says itself wins, then what a later profile does.
    let strongest = |get: fn(&Node) -> Option<&String>| {
        std::iter::once(node).chain(of.iter().rev().copied()).find_map(|node| some(get(node)))
    };
    addresses(&mut found, node, strongest(|node| node.primary.as_ref()), page);
    found.image = image(node, line, page);
    let (cmdline, alone) = node.cmdline();
    found.cmdline = cmdline;
    found.only_its_cmdline = alone && of.iter().any(|profile| !profile.cmdline().0.is_empty());
    found.metadata = metadata(node, line, page);
    let mut order = list.iter().filter_map(|name| ranks.get(name));
    if !order.clone().zip(order.by_ref().skip(1)).all(|(one, next)| one < next) {
        page.note(
            line,
            "its profiles come in another order than those of other nodes, which groups cannot have: image, tags and \
             resources of them are set on the machine itself, and look at its kernel arguments",
        );
        for profile in of.iter().rev() {
            found.image = found.image.take().or_else(|| parsed(profile));
            for (key, value) in tags(profile) {
                found.metadata.entry(key).or_insert(value);
            }
        }
    }
    for (key, value) in [
        ("cluster", strongest(|node| node.cluster.as_ref())),
        ("comment", some(node.comment.as_ref())),
    ] {
        if let Some(value) = value {
            found.labels.insert(key.to_owned(), value.to_owned());
        }
    }
    found.profiles = list;
    others(node, line, page);
    page.found.push(found);
}

/// Takes the hardware addresses of all interfaces, and the addresses of the one that boots, which DHCP has to give.
fn addresses(found: &mut Found, node: &Node, primary: Option<&str>, page: &mut Page) {
    let line = found.line;
    let none = BTreeMap::new();
    let devices = node.devices.as_ref().unwrap_or(&none);
    let first = primary.filter(|name| devices.contains_key(*name)).or_else(|| {
        devices
            .get_key_value("default")
            .or_else(|| devices.iter().next())
            .map(|(key, _)| key.as_str())
    });
    for (key, device) in devices {
        let Some(device) = device else { continue };
        if let Some(text) = some(device.hwaddr.as_ref()) {
            match text.parse() {
                Ok(mac) => drop(found.macs.insert(mac)),
                Err(error) => page.note(line, format!("{error}; it is left out")),
            }
        }
        if first == Some(key) {
            found.address = address::<Ipv4Addr>(device.ipaddr.as_ref(), line, page);
            found.address6 = address::<Ipv6Addr>(device.ipaddr6.as_ref(), line, page);
        } else if [&device.ipaddr, &device.ipaddr6]
            .into_iter()
            .any(|text| some(text.as_ref()).is_some())
        {
            page.note(
                line,
                format!(
                    "the address of `{}` is left out: write it as `network` of the image",
                    short(key)
                ),
            );
        }
    }
}

/// Reads an address with or without the length of its prefix.
fn address<T: std::str::FromStr>(
    text: Option<&String>,
    line: Option<usize>,
    page: &mut Page,
) -> Option<T> {
    let text = some(text)?;
    let address = text.split('/').next().and_then(|text| text.parse().ok());
    if address.is_none() {
        page.note(line, format!("`{}` is left out: it is no address", short(text)));
    }
    address
}

fn parsed(node: &Node) -> Option<ImageRef> {
    some(node.image.as_ref()).and_then(|name| name.to_ascii_lowercase().parse().ok())
}

fn image(node: &Node, line: Option<usize>, page: &mut Page) -> Option<ImageRef> {
    let image = parsed(node);
    if let (Some(name), None) = (some(node.image.as_ref()), &image) {
        let what = format!(
            "`{}` is left out: it is no name of an image here; set one with --image",
            short(name)
        );
        page.note(line, what);
    }
    image
}

fn tags(node: &Node) -> Map<String, Value> {
    let all = node.tags.iter().flatten();
    let mut all: Map<String, Value> =
        all.filter_map(|(key, value)| Some((key.clone(), Value::String(value.clone()?)))).collect();
    if let Some(resources) = node.resources.as_ref().filter(|all| !all.is_empty()) {
        let resources = resources.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        all.entry("resources").or_insert(Value::Object(resources));
    }
    all
}

/// Tags, and the resources below one key.
fn metadata(node: &Node, line: Option<usize>, page: &mut Page) -> Map<String, Value> {
    if node.resources.is_some()
        && node.tags.as_ref().is_some_and(|tags| tags.contains_key("resources"))
    {
        page.note(
            line,
            "`resources` is left out: a tag has that name, and metadata has one value for each",
        );
    }
    tags(node)
}

#[cfg(test)]
mod tests {
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
            ("nodes:\n  n1: {profiles: x}\n", "line 2: a list is expected here"),
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
}
