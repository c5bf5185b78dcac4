//! Lines of the file of leases.

use std::net::Ipv6Addr;

use kiln_inventory::{Lease, Lease6};

use super::super::{FOR_EVER, duid, short};
use super::hardware;

/// What a line about a lease gives.
pub(super) enum Given {
    Four(Lease),
    Six(Lease6),
    /// Something that there is no place for.
    Left(String),
}

/// Reads `TIME MAC ADDRESS NAME CLIENT-ID`; the time is in seconds, 0 for ever. Behind the line with `duid` it is
/// `TIME IAID ADDRESS NAME DUID`, with a `T` before the IAID of a temporary address (lease.c of dnsmasq). Returns nothing
/// where it is no lease.
pub(super) fn read(line: &str) -> Option<Result<Given, String>> {
    let mut words = line.split_ascii_whitespace();
    let until: i64 = words.next()?.parse().ok()?;
    let (who, address, name) = (words.next()?, words.next()?, words.next()?);
    let expires = if until == 0 { FOR_EVER } else { until };
    if let Ok(address) = address.parse::<Ipv6Addr>() {
        return Some(lease6(who, address, words.next(), expires));
    }
    let Ok(address) = address.parse() else {
        return Some(Err(format!("`{}` is no address", short(address))));
    };
    // A hardware type other than Ethernet stands before the address.
    let Some(Ok(mac)) = hardware(who) else {
        let what = format!("{address} is left out: `{}` is no address of Ethernet", short(who));
        return Some(Ok(Given::Left(what)));
    };
    let hostname = (name != "*").then(|| name.to_owned());
    Some(Ok(Given::Four(Lease { address, mac, expires, hostname })))
}

fn lease6(
    who: &str,
    address: Ipv6Addr,
    client: Option<&str>,
    expires: i64,
) -> Result<Given, String> {
    if who.starts_with('T') {
        let what = format!("{address} is left out: it is temporary, and Kiln gives no such ones");
        return Ok(Given::Left(what));
    }
    let iaid = who
        .parse()
        .map_err(|_| format!("`{}` is no IAID, which is a number of 32 bits", short(who)))?;
    let client = client.unwrap_or("*");
    if client == "*" {
        return Ok(Given::Left(format!("{address} is left out: it is not said whose it is")));
    }
    let duid = duid(client).ok_or_else(|| format!("`{}` is no DUID", short(client)))?;
    let mac = duid.mac();
    Ok(Given::Six(Lease6 { address, duid, iaid, mac, expires }))
}

#[cfg(test)]
mod tests {
    use super::super::super::tests::lease6;
    use super::super::super::{FOR_EVER, Source, read};
    use super::super::tests::one;

    #[test]
    fn leases_are_read_with_their_end() {
        let all = one("1700000000 52:54:00:00:00:01 10.0.0.50 n1 01:52:54:00:00:00:01\n\
             0 52:54:00:00:00:02 10.0.0.51 * *\nduid 00:01\n1700000000 123 fd00::5 * 00:01:02\n");
        let seen: Vec<_> = all
            .leases
            .iter()
            .map(|l| (l.address.to_string(), l.expires, l.hostname.as_deref()))
            .collect();
        let expected = [
            ("10.0.0.50".to_owned(), 1_700_000_000, Some("n1")),
            ("10.0.0.51".to_owned(), FOR_EVER, None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn leases_of_ipv6_are_read_with_who_has_them() {
        let all = one(
            "1700000000 52:54:00:00:00:01 10.0.0.50 n1 *\nduid 00:01:00:01:2a:00:00:00:52:54:00:00:00:09\n\
             1700000001 16777216 fd00::5 n5 00:03:00:01:52:54:00:00:00:05\n\
             0 4294967295 fd00::6 * 00:04:aa:bb\n1700000003 T7 fd00::7 * 00:04:aa:bb\n1700000004 8 fd00::8 * *\n",
        );
        let expected = [
            lease6(
                "fd00::5",
                "00030001525400000005",
                0x0100_0000,
                "52:54:00:00:00:05",
                1_700_000_001,
            ),
            lease6("fd00::6", "0004aabb", u32::MAX, "", FOR_EVER),
        ];
        assert_eq!((all.leases.len(), all.leases6), (1, expected.into()));
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert!(
            notes.len() == 3 && notes[1].starts_with("line 5: fd00::7 is left out"),
            "{notes:?}"
        );
        for (line, part) in [
            ("1 x fd00::5 * 00:04:aa", "`x` is no IAID"),
            ("1 4294967296 fd00::5 * 00:04:aa", "`4294967296` is no IAID"),
            ("1 -1 fd00::5 * 00:04:aa", "`-1` is no IAID"),
            ("1 1 fd00::5 * 00:04", "`00:04` is no DUID"),
            ("1 1 fd00::5 * zz", "`zz` is no DUID"),
            (&*format!("1 1 fd00::5 * {}", "00:".repeat(200)), "is no DUID"),
        ] {
            let text = format!("duid 00:04:01\n{line}\n");
            let (_, error) = read(Source::Dnsmasq, &[text]).unwrap_err();
            let error = error.to_string();
            assert!(error.starts_with("line 2: ") && error.contains(part), "{line}: {error}");
        }
    }

    #[test]
    fn leases_that_cannot_be_taken_are_told_of() {
        let all = one("duid 00:01:02\n0 06-00:11:22:33:44:55 10.0.0.52 * *\n");
        assert!(all.leases.is_empty());
        let notes: Vec<_> = all.notes.iter().map(ToString::to_string).collect();
        assert!(notes[0].starts_with("line 1: the server's own DUID is left out"), "{notes:?}");
        assert!(notes[1].starts_with("line 2: 10.0.0.52 is left out: `06-00"), "{notes:?}");
    }
}
