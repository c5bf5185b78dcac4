//! What may be in an archive that is given away. What is not listed here stays out.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::super::table::plain;

/// Stands for what stays out.
const LEFT_OUT: &str = "(left out)";
/// The longest text.
const LONGEST: usize = 2000;

/// Keys of kiln.toml that can be told, by their section.
const SETTINGS: &[(&str, &[&str])] = &[
    ("server", &["data-dir", "socket"]),
    ("inventory", &["keep-boots", "keep-sightings", "keep-changes"]),
    ("store", &["dir"]),
    ("trust", &["require-signature", "keys"]),
    ("http", &["port"]),
    ("https", &["port", "urls", "names"]),
    ("api", &["listen", "names"]),
    ("transfers", &["at-once", "bandwidth", "bandwidth-per-client"]),
    (
        "tftp",
        &[
            "port",
            "block-size",
            "window-size",
            "transfers",
            "transfers-per-client",
            "rollover",
            "engine",
        ],
    ),
    ("discovery", &["unknown"]),
    ("loaders", &["dir", "secure-boot", "raspberry-pi"]),
    ("metadata", &["dir"]),
    ("debian", &["mirror", "snapshot-mirror"]),
    ("registry", &["host", "plain-http"]),
    ("images", &["dir", "build", "every", "update", "arch", "release", "jobs", "timeout"]),
    ("image", &["name", "build", "every", "update", "arch", "release", "jobs", "timeout"]),
    ("metrics", &["listen"]),
    ("syslog", &["listen", "port"]),
    ("netconsole", &["listen", "port", "every-kernel"]),
    ("log", &["format"]),
    ("agent", &["run"]),
    (
        "subnet",
        &[
            "network",
            "interface",
            "address",
            "dhcp",
            "boot-server",
            "relay",
            "pool",
            "router",
            "dns",
            "domain",
            "lease-time",
            "min-lease-time",
            "max-lease-time",
            "authoritative",
            "conflict-probe",
            "shared-network",
            "ntp",
            "search",
            "routes",
            "mtu",
            "hostnames",
        ],
    ),
    (
        "subnet6",
        &[
            "network",
            "interface",
            "address",
            "dhcp",
            "relay",
            "pool",
            "dns",
            "domain",
            "lease-time",
            "preference",
            "rapid-commit",
            "advertise",
            "managed",
            "other",
            "autonomous",
            "default-router",
            "prefix-lifetime",
            "mtu",
        ],
    ),
];

/// Fields of a boot; those of its verdict, too.
pub(super) const BOOT: &[&str] = &[
    "id",
    "machine",
    "machine_name",
    "mac",
    "firmware",
    "image",
    "version",
    "arch",
    "address",
    "started",
    "outcome",
    "ended",
    "kernel_start",
    "verdict",
    "cause",
    "phase",
];
/// Fields of a step of a boot. Its detail is of the machine.
pub(super) const STEP: &[&str] = &["name", "from", "to", "share", "bytes", "rate", "usual"];
/// Fields of what `kiln doctor` found.
pub(super) const FINDING: &[&str] = &["check", "subject", "verdict", "found", "remedy"];
/// Fields of a change; of what it was before and after only which fields differ.
const CHANGE: &[&str] = &["id", "at", "actor", "noun", "name", "verb"];

/// Returns the settings. Of a key that is not listed it is told that it is there.
pub(super) fn settings(text: &str) -> Value {
    let Ok(all) = text.parse::<toml::Table>() else { return Value::Null };
    let mut shown = Map::new();
    for (section, value) in all {
        let keys =
            SETTINGS.iter().find(|(name, _)| *name == section).map_or(&[][..], |(_, keys)| keys);
        let shown_one = |value: &toml::Value| match value {
            toml::Value::Table(table) => {
                let value = |(key, value): (&String, &toml::Value)| {
                    let value = match keys.contains(&key.as_str()) {
                        true => serde_json::to_value(value).map_or(Value::Null, |it| scalars(&it)),
                        false => LEFT_OUT.into(),
                    };
                    (plain(key), value)
                };
                Value::Object(table.iter().map(value).collect())
            }
            _ => LEFT_OUT.into(),
        };
        let value = match &value {
            toml::Value::Array(all) => all.iter().map(shown_one).collect(),
            one => shown_one(one),
        };
        shown.insert(plain(&section), value);
    }
    Value::Object(shown)
}

/// Keeps values and lists of them, and nothing that is nested.
fn scalars(value: &Value) -> Value {
    match value {
        Value::String(it) => text(it).into(),
        Value::Array(all) => all.iter().map(scalars).collect(),
        Value::Object(_) => LEFT_OUT.into(),
        other => other.clone(),
    }
}

/// Returns the objects of a list with these fields only, on every level.
pub(super) fn list(value: &Value, fields: &[&str]) -> Value {
    match value {
        Value::Array(all) => all.iter().map(|it| list(it, fields)).collect(),
        Value::Object(map) => {
            let kept = map.iter().filter(|(key, _)| fields.contains(&key.as_str()));
            Value::Object(kept.map(|(key, value)| (key.clone(), list(value, fields))).collect())
        }
        Value::String(it) => text(it).into(),
        other => other.clone(),
    }
}

/// Returns who changed what: the names of the fields, never what is in them.
pub(super) fn change(change: &Value) -> Value {
    let mut shown = list(change, CHANGE);
    let empty = Map::new();
    let document = |key: &str| change.get(key).and_then(Value::as_object).unwrap_or(&empty);
    let (before, after) = (document("before"), document("after"));
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let keys = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    if let Value::Object(shown) = &mut shown {
        shown.insert("fields".to_owned(), keys.map(|key| Value::from(plain(key))).collect());
    }
    shown
}

/// Returns a text that can be told. One with a URL that names a user may have a password in it.
pub(super) fn text(text: &str) -> String {
    if text.contains("://") && text.contains('@') || text.contains("PRIVATE KEY") {
        return LEFT_OUT.to_owned();
    }
    plain(text).chars().take(LONGEST).collect()
}

/// The same for each line.
pub(super) fn lines(all: &str) -> String {
    all.lines().map(|line| text(line) + "\n").collect()
}
