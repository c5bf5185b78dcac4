//! Where packages come from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::place::Placed;
use super::text::{as_text, short};

/// Where packages come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct DebianSpec {
    /// Release, by its code name.
    pub suite: String,
    /// Parts of the archive.
    pub components: Vec<String>,
    /// Moment of an archive of snapshots to take packages from, as in `20261101T000000Z`, instead of the mirror of
    /// today. `snapshot-mirror` in kiln.toml names that archive.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Moment>,
    /// Suites to use beside that one, its updates and its security updates.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<Placed<DebianSource>>,
}

/// A suite that is used beside the main one. Of several versions of a package, the newest is taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DebianSource {
    /// Base address of its mirror; that of the main suite.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mirror: Option<String>,
    /// Its name.
    pub suite: String,
    /// Parts of the archive; `main`.
    #[serde(default = "main")]
    pub components: Vec<String>,
    /// File of this computer with the keys that may sign it; those of the Debian archive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring: Option<PathBuf>,
}

impl Default for DebianSpec {
    fn default() -> Self {
        let suite = "trixie".to_owned();
        Self { suite, components: main(), snapshot: None, sources: Vec::new() }
    }
}

fn main() -> Vec<String> {
    vec!["main".to_owned()]
}

impl DebianSpec {
    /// Returns what a lock file calls it: the same packages cannot be expected under another name.
    pub fn archive_name(&self) -> String {
        let mut name = format!("{} {}", self.suite, self.components.join(" "));
        if let Some(moment) = &self.snapshot {
            name.push_str(&format!(" snapshot {moment}"));
        }
        for source in &self.sources {
            let DebianSource { mirror, suite, components, .. } = &**source;
            name.push_str(&format!("; {suite} {}", components.join(" ")));
            if let Some(mirror) = mirror {
                name.push_str(&format!(" at {}", mirror.trim_end_matches('/')));
            }
        }
        name
    }

    /// Returns what is wrong with the main suite.
    pub(super) fn problem(&self) -> Option<String> {
        words(&self.suite, &self.components)
    }
}

impl DebianSource {
    /// Returns what is wrong with it.
    pub(super) fn problem(&self) -> Option<String> {
        let odd = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '?' | '#' | '@');
        let remote = |url: &&String| url.starts_with("http://") || url.starts_with("https://");
        if let Some(url) = self.mirror.as_ref().filter(|url| !remote(url) || url.contains(odd)) {
            return Some(format!(
                "`{}` is not the address of a mirror, as in `https://mirror.example/debian`",
                short(url)
            ));
        }
        if let Some(path) = self.keyring.as_ref().filter(|path| !path.is_absolute()) {
            let path = short(&path.display().to_string());
            return Some(format!("the keyring `{path}` is not named by its whole path"));
        }
        words(&self.suite, &self.components)
    }
}

/// Finds what cannot be part of an address of an archive.
fn words(suite: &str, components: &[String]) -> Option<String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '+' | '~' | '-');
    let good = |text: &str| {
        text.split('/').all(|part| !matches!(part, "" | "." | "..") && part.chars().all(plain))
    };
    if !good(suite) {
        return Some(format!("`{}` is not the name of a suite, as in `trixie`", short(suite)));
    }
    if components.is_empty() {
        return Some(format!(
            "`components` of the suite `{suite}` is empty; `main` has most packages"
        ));
    }
    let bad = components.iter().find(|it| !good(it))?;
    Some(format!("`{}` is not a component of an archive, as in `main`", short(bad)))
}

/// A moment, to the second, in UTC: `20261101T000000Z`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Moment(String);

as_text!(Moment);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |range: std::ops::Range<usize>| {
            let digits = text.get(range)?;
            digits.bytes().all(|it| it.is_ascii_digit()).then(|| digits.parse::<u32>().ok())?
        };
        let parse = || {
            let fits = text.len() == 16 && text.get(8..9)? == "T" && text.get(15..)? == "Z";
            let (month, day) = (number(4..6)?, number(6..8)?);
            let (hour, minute, second) = (number(9..11)?, number(11..13)?, number(13..15)?);
            let date = number(0..4)? > 0 && (1..=12).contains(&month) && (1..=31).contains(&day);
            (fits && date && hour < 24 && minute < 60 && second < 61).then_some(())
        };
        match parse() {
            Some(()) => Ok(Self(text.to_owned())),
            None => Err(format!(
                "`{}` is not the moment of a snapshot, as in `20261101T000000Z`",
                short(text)
            )),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Spec, parse};

    fn spec(debian: &str) -> Result<Spec, String> {
        let text = format!("debian: {debian}\n");
        parse("a.yml", &text).map_err(|error| error.to_string())
    }

    #[test]
    fn the_lock_tells_archives_apart() {
        for (debian, name) in [
            ("{}", "trixie main"),
            ("{suite: forky, components: [main, contrib]}", "forky main contrib"),
            ("{snapshot: 20261101T000000Z}", "trixie main snapshot 20261101T000000Z"),
            (
                "{sources: [{suite: trixie-backports}, {mirror: 'http://a/b/', suite: x, components: [y]}]}",
                "trixie main; trixie-backports main; x y at http://a/b",
            ),
        ] {
            let spec = spec(debian).unwrap();
            assert_eq!(spec.debian.archive_name(), name);
            let again = parse("b.yml", &spec.to_yaml().unwrap());
            assert_eq!(again.unwrap().debian, spec.debian);
        }
    }

    #[test]
    fn what_names_no_archive_is_refused_at_its_place() {
        for (debian, text) in [
            ("{snapshot: yesterday}", "a.yml:1:20: `yesterday` is not the moment of a snapshot"),
            ("{snapshot: 20261301T000000Z}", "is not the moment"),
            ("{snapshot: 20261101T000000}", "is not the moment"),
            ("{suite: ../x}", "`../x` is not the name of a suite"),
            ("{components: []}", "`components` of the suite `trixie` is empty"),
            ("{components: [a b]}", "`a b` is not a component"),
            (
                "{sources: [{suite: x, mirror: 'ftp://a'}]}",
                "a.yml:1:20: `ftp://a` is not the address",
            ),
            (
                "{sources: [{suite: x, keyring: keys}]}",
                "the keyring `keys` is not named by its whole",
            ),
            ("{sources: [{mirror: 'http://a'}]}", "`suite`"),
        ] {
            let error = spec(debian).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }
}
