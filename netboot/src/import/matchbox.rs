//! matchbox: one group or one profile, each a JSON file of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use super::{Found, ImportError, Page, Shared, plain, short};

/// A group: which machines, by a selector, and what they get. A profile has `boot` instead.
#[derive(Debug, Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
    #[serde(default)]
    boot: Option<Boot>,
    #[serde(default)]
    ignition_id: Option<String>,
    #[serde(default)]
    cloud_id: Option<String>,
    #[serde(default)]
    generic_id: Option<String>,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Boot {
    kernel: Option<String>,
    initrd: Option<Vec<String>>,
    args: Option<Vec<String>>,
    #[serde(flatten)]
    rest: BTreeMap<String, IgnoredAny>,
}

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let mut item: Item = serde_json::from_str(text).map_err(|error| ImportError::json(&error))?;
    let mut page = Page::default();
    let kind = if item.boot.is_some() { "profile" } else { "group" };
    let whose = format!("{kind} {}", short(&item.id));
    for key in item.rest.keys() {
        page.note(
            None,
            format!("{whose}: `{}` is left out: Kiln has nothing of the kind", short(key)),
        );
    }
    if let Some(boot) = item.boot.take() {
        profile(&item, boot, &whose, &mut page);
        return Ok(page);
    }
    let Some(profile) = item.profile.take() else {
        return Err(ImportError::whole(
            "it has neither `profile` (a group) nor `boot` (a profile)",
        ));
    };
    group(item, profile, &whose, &mut page);
    Ok(page)
}

fn profile(item: &Item, boot: Boot, whose: &str, page: &mut Page) {
    let shared = Shared::of(&item.id);
    let files: Vec<String> = boot
        .kernel
        .iter()
        .chain(boot.initrd.iter().flatten())
        .filter(|file| !file.is_empty())
        .map(|file| format!("`{}`", short(file)))
        .collect();
    if !files.is_empty() {
        let what = format!(
            "{whose}: its kernel and initrds ({}) are left out: machines run an image, which brings both; bake one, then \
             kiln group set {} --image NAME",
            files.join(", "),
            shared.name
        );
        page.note(None, what);
    }
    for (key, id) in [
        ("ignition_id", &item.ignition_id),
        ("cloud_id", &item.cloud_id),
        ("generic_id", &item.generic_id),
    ] {
        if let Some(id) = id.as_deref().filter(|id| !id.is_empty()) {
            let what = format!(
                "{whose}: `{key}` ({}) is left out: put what it writes into the image, and what differs by machine into \
                 metadata",
                short(id)
            );
            page.note(None, what);
        }
    }
    for key in boot.rest.keys() {
        page.note(
            None,
            format!("{whose}: `{}` is left out: Kiln has nothing of the kind", short(key)),
        );
    }
    if let Some(name) = item.name.as_deref().filter(|name| *name != item.id && !name.is_empty()) {
        let what =
            format!("{whose}: its title `{}` is left out: groups have a name only", short(name));
        page.note(None, what);
    }
    // What matchbox fills in by itself has no meaning here.
    let (kept, left): (Vec<_>, Vec<_>) =
        boot.args.unwrap_or_default().into_iter().partition(|word| {
            !word.contains("${") && !word.contains("{{") && !word.starts_with("initrd=")
        });
    for word in left {
        let what = format!(
            "{whose}: the kernel argument `{}` is left out: matchbox fills it in",
            short(&word)
        );
        page.note(None, what);
    }
    page.profile(&item.id, Shared { cmdline: kept.join(" "), ..shared });
}

fn group(item: Item, profile: String, whose: &str, page: &mut Page) {
    let selector = item.selector.unwrap_or_default();
    if !["mac", "uuid", "serial"].iter().any(|key| selector.contains_key(*key)) {
        let what = format!(
            "{whose} is left out, for it names no machine; make a group with a selector of labels of it, \
             which gives what the group {} does",
            plain(&profile)
        );
        page.note(None, what);
        return;
    }
    let mut found = Found {
        name: Some(item.id.clone()),
        metadata: item.metadata.unwrap_or_default(),
        ..Found::default()
    };
    found.profiles.push(profile);
    if let Some(name) = item.name.filter(|name| *name != item.id && !name.is_empty()) {
        found.labels.insert("comment".to_owned(), name);
    }
    for (key, value) in selector {
        match key.as_str() {
            "mac" => match value.parse() {
                Ok(mac) => drop(found.macs.insert(mac)),
                Err(error) => page.note(None, format!("{whose}: {error}")),
            },
            "uuid" => found.uuid = Some(value),
            "serial" => found.serial = Some(value),
            // Labels of a machine that are no more than that.
            _ => drop(found.labels.insert(key, value)),
        }
    }
    page.found.push(found);
}

#[cfg(test)]
mod tests {
    use super::super::{Imported, Source, read};

    fn all(texts: &[&str]) -> Imported {
        let texts: Vec<String> = texts.iter().map(|text| (*text).to_owned()).collect();
        read(Source::Matchbox, &texts).unwrap()
    }

    fn notes(all: &Imported) -> Vec<(usize, String)> {
        all.notes.iter().map(|note| (note.file, note.to_string())).collect()
    }

    #[test]
    fn groups_become_machines_and_profiles_what_they_share() {
        let all = all(&[
            r#"{"id":"node1","name":"Node 1","profile":"etcd","selector":{"mac":"52:54:00:00:00:01","serial":"S1","os":"installed"},"metadata":{"role":"db"}}"#,
            r#"{"id":"etcd","name":"etcd","boot":{"args":["quiet","initrd=main","x=${uuid:uristring}"]}}"#,
            r#"{"id":"default","profile":"etcd","selector":{}}"#,
        ]);
        assert_eq!(all.machines.len(), 1);
        let node = &all.machines[0];
        assert_eq!((node.name.as_str(), node.serial.as_deref()), ("node1", Some("S1")));
        assert_eq!(node.metadata.get("role").and_then(|role| role.as_str()), Some("db"));
        let labels: Vec<_> = node.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [("comment", "Node 1"), ("os", "installed"), ("profile-etcd", "yes")]);
        assert_eq!(all.shared[0].cmdline, "quiet");
        let notes = notes(&all);
        assert_eq!(notes.iter().map(|(file, _)| *file).collect::<Vec<_>>(), [1, 1, 2], "{notes:?}");
    }

    #[test]
    fn what_a_profile_boots_is_told_of_for_an_image_has_its_place() {
        let all = all(&[
            r#"{"id":"etcd.v3","name":"etcd 3","ignition_id":"etcd.yaml","cloud_id":"c.yaml","generic_id":"","x":1,
            "boot":{"kernel":"/assets/k","initrd":["/assets/i","/assets/j"],"y":1}}"#,
        ]);
        assert_eq!(all.shared[0].name, "etcd.v3");
        assert_eq!(all.shared[0].label.0, "profile-etcd.v3");
        let notes = notes(&all);
        let starts = [
            "profile etcd.v3: `x` is left out",
            "profile etcd.v3: its kernel and initrds (`/assets/k`, `/assets/i`, `/assets/j`) are left out",
            "profile etcd.v3: `ignition_id` (etcd.yaml) is left out",
            "profile etcd.v3: `cloud_id` (c.yaml) is left out",
            "profile etcd.v3: `y` is left out",
            "profile etcd.v3: its title `etcd 3` is left out",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for ((_, note), start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start), "{notes:?}");
        }
        assert!(notes[1].1.ends_with("kiln group set etcd.v3 --image NAME"), "{notes:?}");
    }

    #[test]
    fn a_profile_that_is_missing_is_told_of_once() {
        let all = all(&[
            r#"{"id":"n1","profile":"etcd","selector":{"mac":"52:54:00:00:00:01"}}"#,
            r#"{"id":"n2","profile":"etcd","selector":{"mac":"52:54:00:00:00:02"}}"#,
            r#"{"id":"n3","profile":"web","selector":{"mac":"52:54:00:00:00:03"}}"#,
            r#"{"id":"web","boot":{}}"#,
        ]);
        let notes = notes(&all);
        assert_eq!(notes.len(), 1, "{notes:?}");
        let start = "the profile `etcd` is in none of the files; name its file too";
        assert!(notes[0].0 == 0 && notes[0].1.starts_with(start), "{notes:?}");
    }

    #[test]
    fn what_is_neither_is_refused_with_its_line() {
        for (text, start) in [("{\n\"id\": 1}", "line 2: "), (r#"{"id":"x"}"#, "it has neither")] {
            let (at, error) =
                read(Source::Matchbox, &["{\"id\":\"p\",\"boot\":{}}".to_owned(), text.to_owned()])
                    .unwrap_err();
            assert_eq!(at, 1);
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
    }
}
