use std::collections::BTreeMap;

use kiln_types::Digest;

use super::stanza::field;

/// The signed text of a suite's `InRelease` file.
#[derive(Clone, Debug)]
pub(crate) struct Release {
    /// Size and hash of each file of the suite.
    files: BTreeMap<String, (u64, Digest)>,
    /// `Suite` and `Codename`.
    pub(crate) names: Vec<String>,
    /// Whether files can be fetched by their hash, which does not race with an update of the mirror.
    pub(crate) by_hash: bool,
    /// `Date` as written.
    pub(crate) date: Option<String>,
    /// `Valid-Until` as written.
    pub(crate) valid_until: Option<String>,
}

impl Release {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let names = ["Codename", "Suite"].iter().filter_map(|it| field(text, it));
        let mut files = BTreeMap::new();
        for line in field(text, "SHA256").ok_or("it has no SHA256 hashes")?.lines() {
            let mut words = line.split_whitespace();
            let (Some(hash), Some(size), Some(path)) = (words.next(), words.next(), words.next())
            else {
                return Err(format!("`{line}` is not hash, size and path"));
            };
            let hash = hash.parse().map_err(|_| format!("`{hash}` is not a SHA256 hash"))?;
            let size = size.parse().map_err(|_| format!("`{size}` is not a size"))?;
            files.insert(path.to_owned(), (size, hash));
        }
        Ok(Self {
            files,
            names: names.map(str::to_owned).collect(),
            by_hash: field(text, "Acquire-By-Hash") == Some("yes"),
            date: field(text, "Date").map(str::to_owned),
            valid_until: field(text, "Valid-Until").map(str::to_owned),
        })
    }

    /// Returns whether it was made before another one. Where a date is missing, nobody knows.
    pub(crate) fn is_older_than(&self, other: &Self) -> bool {
        let seconds = |it: &Self| it.date.as_deref().and_then(parse_date);
        seconds(self).zip(seconds(other)).is_some_and(|(ours, others)| ours < others)
    }

    pub(crate) fn file(&self, path: &str) -> Option<(u64, Digest)> {
        self.files.get(path).copied()
    }
}

/// Parses a date such as `Sat, 22 Nov 2026 08:15:00 UTC` into seconds since 1970.
pub(crate) fn parse_date(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let text = text.split_once(',').map_or(text, |(_, rest)| rest);
    let words: Vec<_> = text.split_whitespace().collect();
    let [day, month, year, time, zone] = words[..] else { return None };
    if !matches!(zone, "UTC" | "GMT" | "+0000" | "Z") {
        return None;
    }
    let month = MONTHS.iter().position(|it| *it == month)?;
    let (day, year): (u64, u64) = (day.parse().ok()?, year.parse().ok()?);
    let clock: Vec<u64> = time.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [hours, minutes, seconds] = clock[..] else { return None };
    if !(1970..10_000).contains(&year) || !(1..=31).contains(&day) {
        return None;
    }
    if hours > 23 || minutes > 59 || seconds > 60 {
        return None;
    }
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    let mut days: u64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    days += lengths.iter().take(month).sum::<u64>() + day - 1;
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_seconds() {
        for (text, want) in [
            ("Thu, 01 Jan 1970 00:00:01 UTC", Some(1)),
            ("Tue, 29 Feb 2000 12:00:00 +0000", Some(951_825_600)),
            ("Sat, 21 Nov 2026 02:39:58 GMT", Some(1_795_228_798)),
            ("21 Nov 2026 02:39:58 CET", None),
            ("Sat, 32 Nov 2026 02:39:58 UTC", None),
            ("Sat, 21 Nov 99999999999 02:39:58 UTC", None),
            ("", None),
        ] {
            assert_eq!(parse_date(text), want, "{text}");
        }
    }

    #[test]
    fn a_release_lists_files() {
        let hash = "ab".repeat(32);
        let text = format!(
            "Suite: stable\nCodename: trixie\nAcquire-By-Hash: yes\nMD5Sum:\n 00 1 main/x\nSHA256:\n {hash} \
             17 main/Packages.xz\n"
        );
        let release = Release::parse(&text).unwrap();
        assert_eq!(release.names, ["trixie", "stable"]);
        assert_eq!(release.file("main/Packages.xz").unwrap().0, 17);
        assert!(
            release.by_hash && release.valid_until.is_none() && release.file("main/x").is_none()
        );
        let dated = |date: &str| Release::parse(&format!("{date}\n{text}")).unwrap();
        let (old, new) =
            ("Date: Sat, 21 Nov 2026 02:39:58 UTC", "Date: Sat, 21 Nov 2026 08:39:58 UTC");
        assert!(dated(old).is_older_than(&dated(new)));
        for (one, other) in [(new, old), (old, old), ("X: y", new), (old, "X: y")] {
            assert!(!dated(one).is_older_than(&dated(other)), "{one}");
        }
        for bad in ["", "SHA256:\n zz 1 x", "SHA256:\n 00", "Suite: x"] {
            assert!(Release::parse(bad).is_err());
        }
    }

    #[test]
    fn fuzzed_releases_are_read_or_refused() {
        let zeros = "0".repeat(64);
        let release = format!(
            "Suite: stable\nCodename: trixie\nDate: Sat, 22 Nov 2026 08:15:00 UTC\nAcquire-By-Hash: yes\n\
             Valid-Until: Tue, 29 Feb 2000 12:00:00 +0000\nSHA256:\n {zeros} 12 main/binary-amd64/Packages\n"
        );
        kiln_fuzz::check("deb-release", &[release.as_bytes()], |bytes| {
            if let Ok(release) = Release::parse(&String::from_utf8_lossy(bytes)) {
                assert!(!release.is_older_than(&release));
                let _ = release.valid_until.as_deref().and_then(parse_date);
            }
        });
    }
}
