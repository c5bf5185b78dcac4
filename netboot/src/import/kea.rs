//! Kea: reservations of its settings (JSON with comments), and the leases of its memfile (CSV).

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_inventory::{Identifier, Lease, Lease6};
use kiln_types::Mac;
use serde_json::{Map, Value};

use super::{Found, ImportError, Page, duid, identifier, octets, short};

pub(super) fn read(text: &str) -> Result<Page, ImportError> {
    if !text.starts_with("address,") {
        return settings(text);
    }
    let head = text.lines().next().unwrap_or_default();
    if head.split(',').any(|column| column == "duid") { leases6(text) } else { leases(text) }
}

fn settings(text: &str) -> Result<Page, ImportError> {
    let plain = without_comments(text)?;
    let whole: Value = serde_json::from_str(&plain).map_err(|error| {
        let hint = if text.contains("<?include") {
            "; files that are included have to be put in first"
        } else {
            ""
        };
        ImportError::at(error.line(), format!("{error}{hint}"))
    })?;
    let mut page = Page::default();
    let servers: Vec<_> = ["Dhcp4", "Dhcp6"].iter().filter_map(|key| whole.get(*key)).collect();
    if servers.is_empty() {
        return Err(ImportError::whole("there is neither `Dhcp4` nor `Dhcp6` in it"));
    }
    for server in servers {
        let networks = list(server, "shared-networks");
        let subnets = std::iter::once(server)
            .chain(networks)
            .flat_map(|place| list(place, "subnet4").chain(list(place, "subnet6")));
        for place in std::iter::once(server).chain(subnets) {
            for entry in list(place, "reservations") {
                if let Value::Object(entry) = entry {
                    reservation(entry, &mut page);
                }
            }
        }
    }
    Ok(page)
}

fn list<'a>(place: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    place.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn reservation(entry: &Map<String, Value>, page: &mut Page) {
    let mut found = Found::default();
    let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
    found.name = text("hostname").map(str::to_owned);
    let who = || {
        text("hostname")
            .or_else(|| text("hw-address"))
            .map_or_else(|| "a reservation".to_owned(), short)
    };
    let mut left = |what: &str| {
        page.notes.push(super::Note { line: None, what: format!("{}: {what}", who()) })
    };
    if let Some(mac) = text("hw-address") {
        match mac.parse::<Mac>() {
            Ok(mac) => {
                found.macs.insert(mac);
            }
            Err(_) => left("its hardware address is left out: it is not one of Ethernet"),
        }
    }
    found.client_id = text("client-id").and_then(quoted_or_hex);
    found.circuit_id = text("circuit-id").and_then(quoted_or_hex);
    if let Some(address) = text("ip-address") {
        found.address = address.parse::<Ipv4Addr>().ok();
    }
    let mut addresses = list6(entry);
    found.address6 = addresses.next();
    if addresses.next().is_some() {
        left("only its first address of IPv6 is kept");
    }
    for (key, what) in [
        ("duid", "its DUID is left out: Kiln finds the hardware address behind it"),
        ("flex-id", "its flexible identifier is left out"),
        ("prefixes", "its prefixes are left out: Kiln delegates none"),
        ("boot-file-name", "its boot file is left out: Kiln finds the loader by the firmware"),
        ("next-server", "its next server is left out: Kiln is that"),
    ] {
        if entry
            .get(key)
            .is_some_and(|value| !matches!(value, Value::Null) && value != "" && value != "0.0.0.0")
        {
            left(what);
        }
    }
    if entry.get("option-data").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
        left("its options are left out; set them with --dhcp-option");
    }
    for class in entry.get("client-classes").and_then(Value::as_array).into_iter().flatten() {
        if let Some(class) = class.as_str() {
            let plain: String = class
                .chars()
                .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
                .take(60)
                .collect();
            found.labels.insert(format!("kea-{plain}"), "yes".to_owned());
        }
    }
    page.found.push(found);
}

fn list6(entry: &Map<String, Value>) -> impl Iterator<Item = Ipv6Addr> {
    let all = entry.get("ip-addresses").and_then(Value::as_array).into_iter().flatten();
    all.filter_map(Value::as_str).filter_map(|text| text.parse().ok())
}

/// Reads `'text'` (a text in quotes inside of the string), or bytes in hexadecimal digits.
fn quoted_or_hex(text: &str) -> Option<Identifier> {
    match text.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')) {
        Some(inside) => inside.parse().ok(),
        None => identifier(&octets(text.trim_start_matches("0x"))?),
    }
}

/// Puts blanks where comments are (`#`, `//`, `/* */`), so that lines stay where they were.
fn without_comments(text: &str) -> Result<String, ImportError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(c) = rest.chars().next() {
        let length = if in_string {
            in_string = c != '"';
            let escaped = rest.strip_prefix('\\').and_then(|rest| rest.chars().next());
            escaped.map_or_else(|| c.len_utf8(), |next| 1 + next.len_utf8())
        } else if rest.starts_with('#') || rest.starts_with("//") {
            rest = rest.split_at(rest.find('\n').unwrap_or(rest.len())).1;
            continue;
        } else if let Some(inside) = rest.strip_prefix("/*") {
            let line = 1 + out.bytes().filter(|b| *b == b'\n').count();
            let end = inside
                .find("*/")
                .ok_or_else(|| ImportError::at(line, "a comment without an end"))?;
            out.extend(inside.chars().take(end).filter(|c| *c == '\n'));
            rest = inside.split_at(end + 2).1;
            continue;
        } else {
            in_string = c == '"';
            c.len_utf8()
        };
        let (kept, after) = rest.split_at_checked(length).unwrap_or((rest, ""));
        out.push_str(kept);
        rest = after;
    }
    Ok(out)
}

/// A memfile: the first line names the columns; a later line about an address replaces an earlier one.
struct Table<'a> {
    head: Vec<&'a str>,
    text: &'a str,
}

/// One line of a memfile.
struct Row<'a> {
    number: usize,
    fields: Vec<&'a str>,
    columns: usize,
}

impl<'a> Table<'a> {
    fn new(text: &'a str) -> Self {
        let head = text.lines().next().unwrap_or_default().split(',').collect();
        Self { head, text }
    }

    fn column(&self, name: &str) -> Result<usize, ImportError> {
        self.head.iter().position(|column| *column == name).ok_or_else(|| {
            ImportError::at(1, format!("there is no column `{name}`; are these leases of Kea?"))
        })
    }

    fn rows(&self) -> impl Iterator<Item = Row<'a>> {
        let columns = self.head.len();
        let lines = self.text.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty());
        lines.map(move |(at, line)| Row {
            number: at + 1,
            fields: line.split(',').collect(),
            columns,
        })
    }
}

impl<'a> Row<'a> {
    fn field(&self, at: usize) -> Result<&'a str, ImportError> {
        self.fields.get(at).copied().ok_or_else(|| {
            let (there, all) = (self.fields.len(), self.columns);
            self.wrong(format!("only {there} columns instead of {all}"))
        })
    }

    /// Reads a field, or says what it is not.
    fn read<T: std::str::FromStr>(&self, at: usize, what: &str) -> Result<T, ImportError> {
        let text = self.field(at)?;
        text.parse().map_err(|_| self.wrong(format!("`{}` is no {what}", short(text))))
    }

    fn wrong(&self, what: String) -> ImportError {
        ImportError::at(self.number, what)
    }
}

/// Reads the leases of DHCPv4.
fn leases(text: &str) -> Result<Page, ImportError> {
    let (mut page, table) = (Page::default(), Table::new(text));
    let (address, hwaddr) = (table.column("address")?, table.column("hwaddr")?);
    let (expire, hostname) = (table.column("expire")?, table.column("hostname")?);
    let state = table.column("state")?;
    for row in table.rows() {
        let ip: Ipv4Addr = row.read(address, "address")?;
        page.leases.remove(&ip);
        // Other states: declined, and given back.
        let (Ok(mac), Ok(expires), "0") =
            (row.field(hwaddr)?.parse(), row.field(expire)?.parse(), row.field(state)?)
        else {
            continue;
        };
        let name = row.field(hostname)?.trim_end_matches('.');
        let hostname = (!name.is_empty()).then(|| name.to_owned());
        page.leases.insert(ip, Lease { address: ip, mac, expires, hostname });
    }
    Ok(page)
}

/// Reads the leases of DHCPv6. Of the types of leases only the first is one that Kiln gives: 1 is a temporary address, 2 a
/// prefix.
fn leases6(text: &str) -> Result<Page, ImportError> {
    let (mut page, table) = (Page::default(), Table::new(text));
    let (address, client) = (table.column("address")?, table.column("duid")?);
    let (expire, kind) = (table.column("expire")?, table.column("lease_type")?);
    let (iaid, state) = (table.column("iaid")?, table.column("state")?);
    let hwaddr = table.column("hwaddr").ok();
    for row in table.rows() {
        let ip: Ipv6Addr = row.read(address, "address of IPv6")?;
        let kind = row.field(kind)?;
        if kind != "0" {
            page.note(row.number, format!("{ip} is left out: it is temporary, or a prefix"));
            continue;
        }
        page.leases6.remove(&ip);
        if row.field(state)? != "0" {
            continue;
        }
        let text = row.field(client)?;
        let duid = duid(text).ok_or_else(|| row.wrong(format!("`{}` is no DUID", short(text))))?;
        let iaid = row.read(iaid, "IAID, which is a number of 32 bits")?;
        let expires = row.read(expire, "time in seconds since 1970")?;
        let told = hwaddr.map(|at| row.field(at)).transpose()?;
        let mac = told.and_then(|text| text.parse::<Mac>().ok()).or_else(|| duid.mac());
        page.leases6.insert(ip, Lease6 { address: ip, duid, iaid, mac, expires });
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::super::tests::lease6;
    use super::super::{Imported, Source, read};

    fn one(text: &str) -> Imported {
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
        assert_eq!(names, ["m-52-54-00-00-00-01", "n7", "m-52-54-00-00-00-03", "n2"]);
        assert_eq!(all.machines[3].address6, "fd00::2".parse().ok());
        assert_eq!(all.machines[3].labels.keys().next().map(String::as_str), Some("kea-red-hat"));
        assert_eq!(all.machines[1].circuit_id, "port 7".parse().ok());
        assert_eq!(all.machines[2].client_id, "hex:0102ff".parse().ok());
        assert_eq!(all.notes.len(), 3, "{:?}", all.notes);
    }

    #[test]
    fn the_last_line_of_an_address_is_its_lease() {
        let all = one(
            "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n\
             10.0.0.50,52:54:00:00:00:01,,3600,1700000000,1,0,0,n1.,0,,0\n\
             10.0.0.51,52:54:00:00:00:02,,3600,1700000001,1,0,0,,0,,0\n\
             10.0.0.50,52:54:00:00:00:01,,3600,1700009999,1,0,0,n1.,0,,0\n\
             10.0.0.51,52:54:00:00:00:02,,0,1700000001,1,0,0,,2,,0\n\
             10.0.0.52,,,3600,1700000001,1,0,0,,1,,0\n",
        );
        let seen: Vec<_> = all
            .leases
            .iter()
            .map(|l| (l.address.to_string(), l.expires, l.hostname.as_deref()))
            .collect();
        assert_eq!(seen, [("10.0.0.50".to_owned(), 1_700_009_999, Some("n1"))]);
    }

    const HEAD6: &str = "address,duid,valid_lifetime,expire,subnet_id,pref_lifetime,lease_type,iaid,prefix_len,\
        fqdn_fwd,fqdn_rev,hostname,hwaddr,state,user_context,hwtype,hwaddr_source,pool_id\n";

    #[test]
    fn leases_of_ipv6_are_read_with_who_has_them() {
        let all = one(&format!(
            "{HEAD6}\
             fd00::5,00:04:aa:bb,3600,1700000000,1,1800,0,7,128,0,0,n5.,52:54:00:00:00:05,0,,1,2,0\n\
             fd00::6,00:03:00:01:52:54:00:00:00:06,3600,1700000001,1,1800,0,4294967295,128,0,0,,,0,,,,0\n\
             fd00::7,00:04:aa:bb,3600,1700000002,1,1800,0,8,128,0,0,,,0,,,,0\n\
             fd00::7,00:04:aa:bb,0,1700000002,1,0,0,8,128,0,0,,,2,,,,0\n\
             fd00::8,00,3600,1700000003,1,1800,0,9,128,0,0,,,1,,,,0\n\
             fd01::,00:04:aa:bb,3600,1700000004,1,1800,2,7,64,0,0,,,0,,,,0\n"
        ));
        let expected = [
            lease6("fd00::5", "0004aabb", 7, "52:54:00:00:00:05", 1_700_000_000),
            lease6("fd00::6", "00030001525400000006", u32::MAX, "52:54:00:00:00:06", 1_700_000_001),
        ];
        assert_eq!(all.leases6, expected);
        assert_eq!(
            all.notes[0].to_string(),
            "line 7: fd01:: is left out: it is temporary, or a prefix"
        );
        for (line, start) in [
            ("fd00::5,00:04:aa", "line 2: only 2 columns"),
            (
                "10.0.0.1,00:04:aa,1,2,1,1,0,7,128,0,0,,,0",
                "line 2: `10.0.0.1` is no address of IPv6",
            ),
            ("fd00::5,zz,1,2,1,1,0,7,128,0,0,,,0", "line 2: `zz` is no DUID"),
            (
                "fd00::5,00:04:aa,1,2,1,1,0,4294967296,128,0,0,,,0",
                "line 2: `4294967296` is no IAID",
            ),
            ("fd00::5,00:04:aa,1,x,1,1,0,7,128,0,0,,,0", "line 2: `x` is no time"),
        ] {
            let (_, error) = read(Source::Kea, &[format!("{HEAD6}{line}\n")]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{line}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused_with_its_line() {
        for (text, start) in [
            ("{\n\"Dhcp4\": {\n", "line 3: "),
            ("{}", "there is neither"),
            ("{ \"Dhcp4\": \n /* x", "line 2: a comment"),
            ("address,x\n", "line 1: there is no column `hwaddr`"),
            ("address,duid\n", "line 1: there is no column `expire`"),
            ("address,hwaddr,expire,hostname,state\n\n10.0.0.1,x\n", "line 3: only 2 columns"),
            ("address,hwaddr,expire,hostname,state\nx,y,1,n,0\n", "line 2: `x` is no address"),
        ] {
            let (_, error) = read(Source::Kea, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
    }
}
