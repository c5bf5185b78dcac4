//! Warewulf 4: `nodes.conf`, with its nodes and their profiles.

mod file;
mod left;
mod profiles;
#[cfg(test)]
mod tests;

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
