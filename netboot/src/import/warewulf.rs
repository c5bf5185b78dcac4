//! Warewulf 4: `nodes.conf`, with its nodes and their profiles.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_types::{ImageRef, Mac};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Found, ImportError, Note, Page, Shared, short};

/// A file of nodes. What a node and a profile do not share is little, so both have one type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct File {
    nodeprofiles: Option<BTreeMap<String, Option<Node>>>,
    nodes: Option<BTreeMap<String, Option<Node>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    profiles: Option<Vec<String>>,
    comment: Option<String>,
    #[serde(rename = "cluster name")]
    cluster: Option<String>,
    #[serde(rename = "image name", alias = "container name")]
    image: Option<String>,
    kernel: Option<Kernel>,
    #[serde(rename = "network devices")]
    devices: Option<BTreeMap<String, Option<Device>>>,
    #[serde(rename = "primary network")]
    primary: Option<String>,
    tags: Option<BTreeMap<String, Option<String>>>,
    ipmi: Option<Value>,
    disks: Option<Value>,
    #[serde(rename = "asset key")]
    asset_key: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Kernel {
    args: Option<Words>,
}

/// Kernel arguments: one text in old versions, a list since 4.6.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Device {
    hwaddr: Option<String>,
    ipaddr: Option<String>,
    ipaddr6: Option<String>,
}

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let file: File = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().and_then(|place| usize::try_from(place.line()).ok());
        let text = error.to_string();
        ImportError { line, what: text.lines().next().unwrap_or("no YAML").to_owned() }
    })?;
    let Some(nodes) = file.nodes else {
        return Err(ImportError::whole("there are no `nodes` in it"));
    };
    let mut page = Page::default();
    for (name, profile) in file.nodeprofiles.unwrap_or_default() {
        let profile = profile.unwrap_or_default();
        let mut notes = Vec::new();
        let image = image(profile.image.as_deref(), &name, &mut notes);
        page.shared.push(Shared {
            label: label(&name),
            image,
            cmdline: words(profile.kernel).join(" "),
            metadata: tags(profile.tags),
            name: super::name::label(&name).unwrap_or_else(|| "profile".to_owned()),
        });
        page.notes.extend(notes);
    }
    for (name, node) in nodes {
        self::node(&name, node.unwrap_or_default(), &mut page);
    }
    Ok(page)
}

fn node(name: &str, node: Node, page: &mut Page) {
    let mut found = Found { name: Some(name.to_owned()), ..Found::default() };
    let mut left =
        |what: &str| page.notes.push(Note { line: None, what: format!("{}: {what}", short(name)) });
    let primary = node.primary.as_deref().unwrap_or("default");
    let devices = node.devices.unwrap_or_default();
    // The address of the interface that boots is the one that DHCP has to give.
    let first = devices
        .get_key_value(primary)
        .or_else(|| devices.iter().next())
        .map(|(key, _)| key.clone());
    for (key, device) in &devices {
        let Some(device) = device else { continue };
        if let Some(mac) = device.hwaddr.as_deref().filter(|text| !text.is_empty()) {
            match mac.parse::<Mac>() {
                Ok(mac) => {
                    found.macs.insert(mac);
                }
                Err(error) => left(&format!("{error}; it is left out")),
            }
        }
        if first.as_ref() == Some(key) {
            found.address = device.ipaddr.as_deref().and_then(|text| text.parse::<Ipv4Addr>().ok());
            found.address6 = device.ipaddr6.as_deref().and_then(address6);
        } else if device.ipaddr.is_some() {
            left(&format!(
                "the address of `{}` is left out: write it as `network` of the image",
                short(key)
            ));
        }
    }
    if node.ipmi.is_some() {
        left("its IPMI is left out: Kiln does not switch machines on");
    }
    if node.disks.is_some() {
        left("its disks are left out: Kiln writes to no disk but that of `state-disk`");
    }
    if node.asset_key.is_some() {
        left("its asset key is left out");
    }
    let mut notes = Vec::new();
    found.image = image(node.image.as_deref(), name, &mut notes);
    found.cmdline = words(node.kernel);
    found.metadata = tags(node.tags);
    for profile in node.profiles.unwrap_or_default() {
        if let Some(profile) = profile.strip_prefix('~') {
            let what = format!(
                "{}: that it is not in the profile {} is left out",
                short(name),
                short(profile)
            );
            notes.push(Note { line: None, what });
        } else {
            found.labels.extend([label(&profile)]);
        }
    }
    found.labels.extend(
        node.cluster.filter(|text| !text.is_empty()).map(|text| ("cluster".to_owned(), text)),
    );
    found.labels.extend(
        node.comment.filter(|text| !text.is_empty()).map(|text| ("comment".to_owned(), text)),
    );
    page.notes.extend(notes);
    page.found.push(found);
}

fn label(profile: &str) -> (String, String) {
    let plain = super::name::label(profile).unwrap_or_else(|| "profile".to_owned());
    (format!("profile-{plain}"), "yes".to_owned())
}

fn image(name: Option<&str>, whose: &str, notes: &mut Vec<Note>) -> Option<ImageRef> {
    let name = name.filter(|name| !name.is_empty())?;
    let image = name.to_ascii_lowercase().parse().ok();
    if image.is_none() {
        let what = format!(
            "{}: `{}` is no name of an image here; set one with --image",
            short(whose),
            short(name)
        );
        notes.push(Note { line: None, what });
    }
    image
}

fn words(kernel: Option<Kernel>) -> Vec<String> {
    match kernel.and_then(|kernel| kernel.args) {
        None => Vec::new(),
        Some(Words::One(text)) => text.split_ascii_whitespace().map(str::to_owned).collect(),
        Some(Words::Many(list)) => list.into_iter().filter(|word| !word.is_empty()).collect(),
    }
}

fn tags(tags: Option<BTreeMap<String, Option<String>>>) -> Map<String, Value> {
    let all = tags.unwrap_or_default().into_iter();
    all.filter_map(|(key, value)| Some((key, Value::String(value?)))).collect()
}

/// Reads an address with or without the length of its prefix.
fn address6(text: &str) -> Option<Ipv6Addr> {
    text.split('/').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Source, read};

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
        let all = read(Source::Warewulf, &[text.to_owned()]).unwrap();
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["n1", "n2"]);
        let [n1, n2] = &all.machines[..] else { panic!("two machines") };
        assert_eq!((n1.macs.len(), n1.address), (2, "10.0.0.1".parse().ok()));
        assert_eq!(n1.cmdline, "debug nmi_watchdog=0");
        let labels: Vec<_> = n1.labels.keys().map(String::as_str).collect();
        assert_eq!(labels, ["cluster", "comment", "profile-default", "profile-gpu"]);
        assert_eq!(n2.address6, "fd00::2".parse().ok());
        assert_eq!(all.shared.len(), 2);
        assert_eq!(all.shared[0].image, "rocky-9".parse().ok());
        assert_eq!(all.shared[0].cmdline, "quiet console=ttyS0,115200");
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 4, "{notes:?}");
        assert!(!notes.join("\n").contains("secret"), "{notes:?}");
    }

    #[test]
    fn what_is_no_file_of_nodes_is_refused() {
        for (text, start) in [("a: [", "line "), ("nodeprofiles: {}\n", "there are no `nodes`")] {
            let (_, error) = read(Source::Warewulf, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
    }
}
