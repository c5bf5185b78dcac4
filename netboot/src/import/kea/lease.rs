//! The leases of the memfile (CSV).
//!
//! Kea cleans up now and then: all leases are then in a file with `.2` behind its name, and what changed since in the one
//! without. Which of two rows in different files is the newer is told by when the client was last heard of.

use std::net::{Ipv4Addr, Ipv6Addr};

use kiln_inventory::{Lease, Lease6};

use super::super::told::Since;
use super::super::{ImportError, Page, duid, mac, short};

/// A memfile: the first line names the columns; a later line about an address replaces an earlier one.
struct Table<'a> {
    head: Vec<&'a str>,
    text: &'a str,
}

/// The columns that say how long a lease lasts.
struct Times {
    expire: usize,
    state: usize,
    lifetime: Option<usize>,
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

    fn times(&self) -> Result<Times, ImportError> {
        let (expire, state) = (self.column("expire")?, self.column("state")?);
        Ok(Times { expire, state, lifetime: self.column("valid_lifetime").ok() })
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

    /// Reads when the lease ends, since when the row counts, and whether there still is a lease.
    fn times(&self, columns: &Times) -> Result<(i64, Since, bool), ImportError> {
        let expires: i64 = self.read(columns.expire, "time in seconds since 1970")?;
        let lifetime = columns.lifetime.and_then(|at| self.fields.get(at)?.parse::<u32>().ok());
        // Other states: declined, and given back. A lease that is deleted is written with a lifetime of 0.
        let lasts = self.field(columns.state)? == "0" && lifetime != Some(0);
        let heard = expires.saturating_sub(i64::from(lifetime.unwrap_or_default()));
        Ok((expires, (heard, !lasts), lasts))
    }

    fn wrong(&self, what: String) -> ImportError {
        ImportError::at(self.number, what)
    }
}

/// Reads the leases of DHCPv4.
pub(super) fn leases(text: &str) -> Result<Page, ImportError> {
    let (mut page, table) = (Page::default(), Table::new(text));
    let (address, hwaddr) = (table.column("address")?, table.column("hwaddr")?);
    let times = table.times()?;
    let hostname = table.column("hostname")?;
    for row in table.rows() {
        let ip: Ipv4Addr = row.read(address, "address")?;
        let (expires, since, lasts) = row.times(&times)?;
        if !lasts {
            page.leases.say(ip, None, since);
            continue;
        }
        let who = row.field(hwaddr)?;
        let Ok(mac) = who.parse() else {
            let what = if who.is_empty() {
                format!("{ip} is left out: the hardware address of who has it is not said")
            } else {
                format!("{ip} is left out: `{}` is no address of Ethernet", short(who))
            };
            page.note(row.number, what);
            page.leases.say(ip, None, since);
            continue;
        };
        let name = row.field(hostname)?.trim_end_matches('.');
        let hostname = (!name.is_empty()).then(|| name.to_owned());
        page.leases.say(ip, Some(Lease { address: ip, mac, expires, hostname }), since);
    }
    Ok(page)
}

/// Reads the leases of DHCPv6. Of the types of leases only the first is one that Kiln gives: 1 is a temporary address, 2 a
/// prefix.
pub(super) fn leases6(text: &str) -> Result<Page, ImportError> {
    let (mut page, table) = (Page::default(), Table::new(text));
    let (address, client) = (table.column("address")?, table.column("duid")?);
    let times = table.times()?;
    let (iaid, kind) = (table.column("iaid")?, table.column("lease_type")?);
    let hwaddr = table.column("hwaddr").ok();
    for row in table.rows() {
        let ip: Ipv6Addr = row.read(address, "address of IPv6")?;
        let kind = row.field(kind)?;
        if kind != "0" {
            page.note(row.number, format!("{ip} is left out: it is temporary, or a prefix"));
            continue;
        }
        let (expires, since, lasts) = row.times(&times)?;
        if !lasts {
            page.leases6.say(ip, None, since);
            continue;
        }
        let text = row.field(client)?;
        let duid = duid(text).ok_or_else(|| row.wrong(format!("`{}` is no DUID", short(text))))?;
        let iaid = row.read(iaid, "IAID, which is a number of 32 bits")?;
        let told = hwaddr.map(|at| row.field(at)).transpose()?;
        let mac = told.and_then(|text| mac(text).ok()).or_else(|| duid.mac());
        page.leases6.say(ip, Some(Lease6 { address: ip, duid, iaid, mac, expires }), since);
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::lease6;
    use super::super::super::{Source, read};
    use super::super::tests::one;

    #[test]
    fn the_last_line_of_an_address_is_its_lease() {
        let all = one(
            "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state,user_context,pool_id\n\
             10.0.0.50,52:54:00:00:00:01,,3600,1700000000,1,0,0,n1.,0,,0\n\
             10.0.0.51,52:54:00:00:00:02,,3600,1700000001,1,0,0,,0,,0\n\
             10.0.0.50,52:54:00:00:00:01,,3600,1700009999,1,0,0,n1.,0,,0\n\
             10.0.0.51,52:54:00:00:00:02,,0,1700000001,1,0,0,,2,,0\n\
             10.0.0.52,,,3600,1700000001,1,0,0,,1,,0\n\
             10.0.0.53,,01:02:03,3600,1700000001,1,0,0,,0,,0\n\
             10.0.0.54,00:11:22:33:44:55:66:77,,3600,1700000001,1,0,0,,0,,0\n",
        );
        let seen: Vec<_> = all
            .leases
            .iter()
            .map(|l| (l.address.to_string(), l.expires, l.hostname.as_deref()))
            .collect();
        assert_eq!(seen, [("10.0.0.50".to_owned(), 1_700_009_999, Some("n1"))]);
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        let expected = [
            "line 7: 10.0.0.53 is left out: the hardware address of who has it is not said",
            "line 8: 10.0.0.54 is left out: `00:11:22:33:44:55:66:77` is no address of Ethernet",
        ];
        assert_eq!(notes[1..], expected);
    }

    #[test]
    fn of_two_files_the_later_row_counts_in_whatever_order_they_are_named() {
        let head = "address,hwaddr,client_id,valid_lifetime,expire,subnet_id,fqdn_fwd,fqdn_rev,hostname,state\n";
        let row = |last: u8, lifetime: u32, heard: i64, state: u8| {
            let expire = heard + i64::from(lifetime);
            format!("10.0.0.{last},52:54:00:00:00:01,,{lifetime},{expire},1,0,0,,{state}\n")
        };
        let mut before = head.to_owned();
        (1..=5).for_each(|last| before.push_str(&row(last, 3600, 1_700_000_000, 0)));
        let mut since = head.to_owned();
        for row in [
            row(1, 3600, 1_700_000_500, 0),
            row(2, 600, 1_700_000_500, 1),
            row(3, 3600, 1_700_000_000, 2),
            // Deleted: its end is when it was last heard of.
            row(4, 0, 1_700_000_000, 0),
        ] {
            since.push_str(&row);
        }
        for texts in [[before.clone(), since.clone()], [since, before]] {
            let all = read(Source::Kea, &texts).unwrap();
            let seen: Vec<_> =
                all.leases.iter().map(|l| (l.address.octets()[3], l.expires)).collect();
            assert_eq!(seen, [(1, 1_700_004_100), (5, 1_700_003_600)]);
            assert_eq!(all.notes, []);
        }
    }

    #[test]
    fn a_file_of_leases_alone_is_said_to_be_perhaps_not_all() {
        let four = "address,hwaddr,expire,hostname,state\n".to_owned();
        let told = |texts: &[&String]| {
            let texts: Vec<String> = texts.iter().map(|text| (*text).clone()).collect();
            let notes = read(Source::Kea, &texts).unwrap().notes;
            notes.iter().map(|note| (note.file, note.to_string())).collect::<Vec<_>>()
        };
        let six = HEAD6.to_owned();
        let notes = told(&[&four, &six, &six]);
        assert_eq!((notes.len(), notes[0].0), (1, 0), "{notes:?}");
        assert!(notes[0].1.contains("FILE.2"), "{notes:?}");
        assert_eq!(told(&[&four, &six, &four, &six]), []);
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
            all.notes[1].to_string(),
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
    fn a_table_that_is_torn_is_refused_with_its_line() {
        for (text, start) in [
            ("address,x\n", "line 1: there is no column `hwaddr`"),
            ("address,duid\n", "line 1: there is no column `expire`"),
            ("address,hwaddr,expire,hostname,state\n\n10.0.0.1,x\n", "line 3: only 2 columns"),
            ("address,hwaddr,expire,hostname,state\nx,y,1,n,0\n", "line 2: `x` is no address"),
            (
                "address,hwaddr,expire,hostname,state\n10.0.0.1,52:54:00:00:00:01,x,n,0\n",
                "line 2: `x` is no time",
            ),
        ] {
            let (_, error) = read(Source::Kea, &[text.to_owned()]).unwrap_err();
            assert!(error.to_string().starts_with(start), "{text}: {error}");
        }
    }
}
