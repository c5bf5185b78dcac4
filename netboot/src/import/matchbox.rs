//! matchbox: one group or one profile, each a JSON file of its own.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Found, ImportError, Note, Page, Shared, short};

/// A group: which machines, by a selector, and what they get. A profile has `boot` instead.
#[derive(Debug, Deserialize)]
struct Item {
    id: String,
    #[serde(default)]
    profile: Option<String>,
    #[serde(default)]
    selector: Option<BTreeMap<String, String>>,
    #[serde(default)]
    metadata: Option<Map<String, Value>>,
    #[serde(default)]
    boot: Option<Boot>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Boot {
    args: Option<Vec<String>>,
}

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    let item: Item = serde_json::from_str(text)
        .map_err(|error| ImportError::at(error.line(), error.to_string()))?;
    let mut page = Page::default();
    if let Some(boot) = item.boot {
        let cmdline = boot.args.unwrap_or_default();
        // What matchbox fills in by itself has no meaning here.
        let (kept, left): (Vec<_>, Vec<_>) = cmdline.into_iter().partition(|word| {
            !word.contains("${") && !word.contains("{{") && !word.starts_with("initrd=")
        });
        for word in left {
            let what = format!(
                "profile {}: the kernel argument `{}` is left out",
                short(&item.id),
                short(&word)
            );
            page.notes.push(Note { line: None, what });
        }
        page.shared.push(Shared {
            name: super::name::label(&item.id).unwrap_or_else(|| "profile".to_owned()),
            label: label(&item.id),
            image: None,
            cmdline: kept.join(" "),
            metadata: Map::new(),
        });
        return Ok(page);
    }
    let Some(profile) = item.profile else {
        return Err(ImportError::whole(
            "it has neither `profile` (a group) nor `boot` (a profile)",
        ));
    };
    let selector = item.selector.unwrap_or_default();
    let metadata = item.metadata.unwrap_or_default();
    if !["mac", "uuid"].iter().any(|key| selector.contains_key(*key)) {
        let what = format!(
            "group {}: it is left out, for it names no machine; make a group with a selector of labels of it",
            short(&item.id)
        );
        page.notes.push(Note { line: None, what });
        return Ok(page);
    }
    let mut found = Found { name: Some(item.id.clone()), metadata, ..Found::default() };
    found.labels.extend([label(&profile)]);
    for (key, value) in selector {
        match key.as_str() {
            "mac" => match value.parse() {
                Ok(mac) => {
                    found.macs.insert(mac);
                }
                Err(error) => page
                    .notes
                    .push(Note { line: None, what: format!("group {}: {error}", short(&item.id)) }),
            },
            "uuid" => found.uuid = Some(value),
            // Labels of a machine that are no more than that.
            _ => {
                found.labels.insert(key, value);
            }
        }
    }
    page.found.push(found);
    Ok(page)
}

fn label(profile: &str) -> (String, String) {
    let plain = super::name::label(profile).unwrap_or_else(|| "profile".to_owned());
    (format!("profile-{plain}"), "yes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::{Source, read};

    #[test]
    fn groups_become_machines_and_profiles_what_they_share() {
        let texts = [
            r#"{"id":"node1","name":"Node 1","profile":"etcd","selector":{"mac":"52:54:00:00:00:01","os":"installed"},"metadata":{"role":"db"}}"#,
            r#"{"id":"etcd","name":"etcd","boot":{"kernel":"/assets/k","initrd":["/assets/i"],"args":["quiet","initrd=main","x=${uuid:uristring}"]}}"#,
            r#"{"id":"default","profile":"etcd","selector":{}}"#,
        ];
        let all = read(Source::Matchbox, &texts.map(str::to_owned)).unwrap();
        assert_eq!(all.machines.len(), 1);
        let node = &all.machines[0];
        assert_eq!(node.name, "node1");
        assert_eq!(node.metadata.get("role").and_then(|role| role.as_str()), Some("db"));
        let labels: Vec<_> = node.labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(labels, [("os", "installed"), ("profile-etcd", "yes")]);
        assert_eq!(all.shared[0].cmdline, "quiet");
        assert_eq!(all.notes.len(), 3, "{:?}", all.notes);
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
