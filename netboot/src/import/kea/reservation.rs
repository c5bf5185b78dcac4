//! Reservations of hosts.

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_inventory::Identifier;
use serde_json::{Map, Value};

use super::super::{Found, Page, identifier, letters, mac, octets, plain, short};
use super::line;
use super::text::LINE;

/// Takes over what a reservation says. What it is behind has been told of by the place that it lies in.
pub(super) fn read(entry: &Map<String, Value>, page: &mut Page) {
    let at = line(entry);
    let mut found = Found { line: at, ..Found::default() };
    for (key, value) in entry.iter().filter(|(_, value)| says_something(value)) {
        let text = value.as_str().unwrap_or_default();
        let taken = match key.as_str() {
            LINE => true,
            "hostname" => put(&mut found.name, Some(text.to_owned())),
            "hw-address" => mac(text).is_ok_and(|mac| found.macs.insert(mac)),
            "client-id" => put(&mut found.client_id, quoted_or_hex(text)),
            "circuit-id" => put(&mut found.circuit_id, quoted_or_hex(text)),
            "ip-address" => put(&mut found.address, text.parse::<Ipv4Addr>().ok()),
            "ip-addresses" => addresses6(value, &mut found),
            "client-classes" => {
                let classes = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                let label = |class: &str| (format!("kea-{}", plain(class)), "yes".to_owned());
                found.labels.extend(classes.map(label));
                true
            }
            _ => false,
        };
        if !taken {
            page.note(at, left(key));
        }
    }
    page.found.push(found);
}

/// What is empty is as if it were not there.
fn says_something(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::String(text) => !matches!(text.as_str(), "" | "0.0.0.0"),
        Value::Array(list) => !list.is_empty(),
        _ => true,
    }
}

fn put<T>(place: &mut Option<T>, value: Option<T>) -> bool {
    *place = value;
    place.is_some()
}

/// Returns whether all of them could be taken.
fn addresses6(list: &Value, found: &mut Found) -> bool {
    let list = list.as_array().into_iter().flatten();
    let all: Vec<Option<Ipv6Addr>> =
        list.map(|address| address.as_str().and_then(|text| text.parse().ok())).collect();
    found.address6 = all.iter().flatten().next().copied();
    matches!(all[..], [Some(_)])
}

/// Reads `'text'` (a text in quotes inside of the string), or bytes in hexadecimal digits.
fn quoted_or_hex(text: &str) -> Option<Identifier> {
    match text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inside) => letters(inside.as_bytes()),
        None => identifier(&octets(text.trim_start_matches("0x"))?),
    }
}

fn left(key: &str) -> String {
    let why = match key {
        "hw-address" => "it is no hardware address of Ethernet",
        "client-id" | "circuit-id" => "it is neither bytes nor a text in quotes",
        "ip-address" => "it is no address of IPv4",
        "ip-addresses" => "of these only the first address is kept",
        "duid" => "Kiln finds the hardware address behind a DUID",
        "flex-id" => "Kiln has no such identifier",
        "prefixes" => "Kiln delegates none",
        "boot-file-name" | "server-hostname" => "Kiln finds the loader by the firmware",
        "next-server" => "Kiln is that",
        "option-data" => "set options with --dhcp-option",
        _ => "Kiln has nothing of the kind for a machine",
    };
    format!("`{}` of a reservation is left out: {why}", short(key))
}

#[cfg(test)]
mod tests {
    use super::super::tests::one;

    #[test]
    fn what_a_reservation_says_and_has_no_counterpart_is_told_of_with_its_line() {
        for (said, why) in [
            (r#""ip-address": "10.0.0""#, "`ip-address` of a reservation is left out: it is no"),
            (
                r#""ip-addresses": ["fd00::1", "fd00::2"]"#,
                "`ip-addresses` of a reservation is left out: of",
            ),
            (r#""ip-addresses": ["x"]"#, "`ip-addresses` of a reservation is left out: of"),
            (r#""client-id": "xyz""#, "`client-id` of a reservation is left out: it"),
            (r#""duid": "01:02""#, "`duid` of a reservation is left out: Kiln"),
            (
                r#""option-data": [{"data": "geheim"}]"#,
                "`option-data` of a reservation is left out: set",
            ),
            (r#""user-context": {"a": 1}"#, "`user-context` of a reservation is left out: Kiln"),
        ] {
            let all = one(&format!(
                "{{\"Dhcp4\": {{\"reservations\": [\n{{\"hw-address\": \"52:54:00:00:00:01\", {said}}}]}}}}"
            ));
            let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
            assert_eq!((all.machines.len(), notes.len()), (1, 1), "{said}: {notes:?}");
            assert!(notes[0].starts_with(&format!("line 2: {why}")), "{notes:?}");
            assert!(!notes[0].contains("geheim"), "{notes:?}");
        }
        let empty = r#"{"Dhcp4": {"reservations": [{"hw-address": "52:54:00:00:00:01",
            "hostname": "", "next-server": "0.0.0.0", "option-data": [], "boot-file-name": ""}]}}"#;
        assert_eq!(one(empty).notes, []);
        let other =
            one(r#"{"Dhcp4": {"reservations": [{"hw-address": "00:11", "hostname": "n1"}]}}"#);
        assert_eq!((other.machines.len(), other.notes.len()), (0, 2), "{:?}", other.notes);
    }
}
