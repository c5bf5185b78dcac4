//! Kea: reservations of its settings (JSON with comments), and the leases of its memfile (CSV).

mod lease;
mod reservation;
mod text;

use serde_json::{Map, Value};

use self::text::LINE;
use super::note::Notes;
use super::{ImportError, Page, short};

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    match Kind::of(text) {
        Kind::Settings => settings(text),
        Kind::Leases => lease::leases(text),
        Kind::Leases6 => lease::leases6(text),
    }
}

/// What a file holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Settings,
    Leases,
    Leases6,
}

impl Kind {
    fn of(text: &str) -> Self {
        let head = text.lines().next().unwrap_or_default();
        match head.starts_with("address,") {
            false => Self::Settings,
            true if head.split(',').any(|column| column == "duid") => Self::Leases6,
            true => Self::Leases,
        }
    }
}

/// Tells of leases whose other file may be missing.
pub(super) fn alone(texts: &[String], notes: &mut Notes) {
    for kind in [Kind::Leases, Kind::Leases6] {
        let mut all = texts.iter().enumerate().filter(|(_, text)| Kind::of(text) == kind);
        if let (Some((at, _)), None) = (all.next(), all.next()) {
            let what = "these may be only the leases that changed since Kea last cleaned up; where FILE.2 is beside it, \
                        with all leases from before, name both";
            notes.add(at, None, what.to_owned());
        }
    }
}

fn settings(text: &str) -> Result<Page, ImportError> {
    let whole: Value = serde_json::from_str(&text::json(text)?).map_err(|error| {
        let mut error = ImportError::json(&error);
        if text.contains("<?include") {
            error.what.push_str("; files that are included have to be put in first");
        }
        error
    })?;
    let mut page = Page::default();
    let mut servers = 0;
    for (key, value) in whole.as_object().into_iter().flatten() {
        match (key.as_str(), value) {
            ("Dhcp4" | "Dhcp6", Value::Object(server)) => {
                servers += 1;
                scope(server, &mut page);
            }
            (LINE, _) => {}
            (key, value) => page.note(line_of(value), left(key)),
        }
    }
    if servers == 0 {
        return Err(ImportError::whole("there is neither `Dhcp4` nor `Dhcp6` in it"));
    }
    page.found.sort_by_key(|found| found.line);
    Ok(page)
}

/// Reads a server, whose own settings are told of one by one.
fn scope(server: &Map<String, Value>, page: &mut Page) {
    for (key, value) in server {
        match key.as_str() {
            LINE => {}
            "reservations" => reservations(value, page),
            "shared-networks" | "subnet4" | "subnet6" => networks(value, page),
            _ => page.note(line_of(value), left(key)),
        }
    }
}

/// Reads networks or subnets. What they say themselves is left out as a whole.
fn networks(list: &Value, page: &mut Page) {
    for network in list.as_array().into_iter().flatten() {
        page.note(
            line_of(network),
            "this network is left out, but for its reservations; write it as a `[[subnet]]` in kiln.toml",
        );
        for (key, value) in network.as_object().into_iter().flatten() {
            match key.as_str() {
                "reservations" => reservations(value, page),
                "subnet4" | "subnet6" => networks(value, page),
                _ => {}
            }
        }
    }
}

fn reservations(list: &Value, page: &mut Page) {
    for entry in list.as_array().into_iter().flatten() {
        match entry {
            Value::Object(entry) => reservation::read(entry, page),
            _ => page.note(None, "a reservation is left out: it is not written in `{` and `}`"),
        }
    }
}

/// The line in which an object begins.
fn line(object: &Map<String, Value>) -> Option<usize> {
    object.get(LINE).and_then(Value::as_u64).and_then(|line| line.try_into().ok())
}

/// The line of a value, where it is an object or has one.
fn line_of(value: &Value) -> Option<usize> {
    match value {
        Value::Object(object) => line(object),
        Value::Array(list) => list.first().and_then(line_of),
        _ => None,
    }
}

fn left(key: &str) -> String {
    let what = match key {
        "hosts-database" | "hosts-databases" => {
            "what it holds is not read; put its reservations (Kea's `reservation-get-all`) into the file first"
        }
        "lease-database" => {
            "its leases are taken over from the memfile, with --leases FILE --leases FILE.2"
        }
        "boot-file-name" | "next-server" | "server-hostname" => {
            "Kiln finds the loader by the firmware"
        }
        "client-classes" => {
            "what a machine gets depends on its labels and groups, not on how it asks"
        }
        "option-data" | "option-def" => {
            "options are set by `options` of a `[[subnet]]` in kiln.toml, or with --dhcp-option of machines and groups"
        }
        _ => "it says nothing of a machine, and what Kiln has of it is set in kiln.toml",
    };
    format!("`{}` is left out: {what}", short(key))
}

#[cfg(test)]
mod tests {
    use super::super::{Imported, Source, read};

    pub(super) fn one(text: &str) -> Imported {
        read(Source::Kea, &[text.to_owned()]).unwrap()
    }

    #[test]
    fn reservations_of_every_place_become_machines() {
        let all = one(r#"{ // of the site
          "Dhcp4": { /* a
             long one */
            "reservations": [ { "hw-address": "52:54:00:00:00:01", "hostname": "n1 # no comment" } ],
            "shared-networks": [ { "subnet4": [ { "subnet": "10.1.0.0/16", "reservations": [
               { "hw-address": "52:54:00:00:00:02", "ip-address": "10.1.0.2", "hostname": "n2.example.org", "client-classes": ["Red Hat"] } ] } ] } ],
            "subnet4": [ { "reservations": [
               { "circuit-id": "'port 7'", "ip-address": "10.0.0.7", "hostname": "n7", "hw-address": "52:54:00:00:00:07" },
               { "client-id": "01:02:ff", "hw-address": "52:54:00:00:00:03", "boot-file-name": "x", "next-server": "0.0.0.0" } ] } ]
          },
          "Dhcp6": { "subnet6": [ { "reservations": [ { "hw-address": "52:54:00:00:00:02", "ip-addresses": ["fd00::2", "fd00::3"] } ] } ] }
        }"#);
        let names: Vec<_> = all.machines.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["m-52-54-00-00-00-01", "n2", "n7", "m-52-54-00-00-00-03"]);
        assert_eq!(all.machines[1].address6, "fd00::2".parse().ok());
        assert_eq!(all.machines[1].labels.keys().next().map(String::as_str), Some("kea-red-hat"));
        assert_eq!(all.machines[2].circuit_id, "port 7".parse().ok());
        assert_eq!(all.machines[3].client_id, "hex:0102ff".parse().ok());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let starts = [
            "line 4: `n1 # no comment` is left out",
            "line 5: this network is left out",
            "line 9: `boot-file-name` of a reservation",
            "line 11: `ip-addresses` of a reservation",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for (note, start) in notes.iter().zip(starts) {
            assert!(note.starts_with(start), "{notes:?}");
        }
    }

    #[test]
    fn what_stands_around_the_reservations_is_told_of() {
        let all = one("{ \"Dhcp4\": {\n\"hosts-database\": {\n\"password\": \"geheim\" },\n\
             \"next-server\": \"10.0.0.9\",\n\"valid-lifetime\": 600,\n\
             \"option-data\": [\n{ \"name\": \"routers\", \"data\": \"10.0.0.1\" } ],\n\
             \"subnet4\": [ {\n\"pools\": [ { \"pool\": \"10.0.0.9-10.0.0.99\" } ], },\n{ \"id\": 2 } ],\n\
             \"reservations\": [ 7 ] },\n\"Control-agent\": {} }");
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let starts = [
            "`next-server` is left out: Kiln finds",
            "`valid-lifetime` is left out: it says",
            "a reservation is left out: it is not",
            "line 2: `hosts-database` is left out: what it holds",
            "line 7: `option-data` is left out: options",
            "line 8: this network is left out, but",
            "line 12: `Control-agent` is left out: it says",
        ];
        assert_eq!(notes.len(), starts.len(), "{notes:?}");
        for start in starts {
            assert!(notes.iter().any(|note| note.starts_with(start)), "{start}: {notes:?}");
        }
        assert!(notes.iter().any(|note| note.ends_with("(also in line 10)")), "{notes:?}");
        assert!(!notes.join("\n").contains("geheim"), "{notes:?}");
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for (text, start) in [
            ("{\n\"Dhcp4\": {\n", "line 3: "),
            ("{}", "there is neither"),
            ("{ \"Dhcp4\": \n /* x", "line 2: a comment"),
            (
                "{\n\"Dhcp4\": { <?include \"x\"?> } }",
                "line 2: key must be a string; files that are",
            ),
        ] {
            let (_, error) = read(Source::Kea, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
    }
}
