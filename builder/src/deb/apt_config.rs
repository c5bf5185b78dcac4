use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::error::DebError;
use super::stanza;
use crate::fetch::AptSettings;

/// What Kiln takes over from the apt configuration of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AptConfig {
    /// The base address of a Debian archive, without a slash at its end.
    pub(crate) mirror: Option<String>,
    /// Where security updates are.
    pub(crate) security: Option<Security>,
    /// Whether the dates in signed indexes count. Hosts that use a frozen mirror switch it off.
    pub(crate) check_dates: bool,
}

/// The archive of security updates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Security {
    /// Its base address, without a slash at its end.
    pub(crate) mirror: String,
    /// The suites that the host uses of it.
    pub(crate) suites: Vec<String>,
}

/// One source of packages, of either notation (sources.list(5)).
#[derive(Debug, Default)]
struct Source {
    uris: Vec<String>,
    suites: Vec<String>,
    signed_by: String,
}

const SUITES: [&str; 13] = [
    "trixie",
    "forky",
    "duke",
    "bookworm",
    "bullseye",
    "stable",
    "testing",
    "oldstable",
    "unstable",
    "sid",
    "oldoldstable",
    "buster",
    "experimental",
];

impl AptConfig {
    /// Reads a configuration directory such as `/etc/apt`. What is not there is skipped.
    pub(crate) fn read(dir: &Path, suite: &str) -> Result<Self, DebError> {
        let mut sources = Vec::new();
        let mut files = vec![dir.join("sources.list")];
        files.extend(listing(&dir.join("sources.list.d"))?);
        for path in files {
            let Some(text) = text(&path)? else { continue };
            match path.extension().and_then(|it| it.to_str()) {
                Some("list") => sources.extend(text.lines().filter_map(one_line)),
                Some("sources") => sources.extend(deb822(&text)),
                _ => {}
            }
        }
        // The first of the best ones; `max_by_key` would take the last.
        let best =
            sources.iter().rev().filter(|it| it.rank(suite) > 0).max_by_key(|it| it.rank(suite));
        let mirror = match best.and_then(|source| source.uris.first()) {
            Some(uri) => address(uri)?,
            None => None,
        };
        let security = security(&sources, suite)?;
        let settings = AptSettings::read(dir)
            .map_err(|(path, source)| DebError::ReadConfig { path, source })?;
        let check = settings.get("Acquire::Check-Valid-Until");
        let check_dates = !check.is_some_and(|value| matches!(value, "false" | "0" | "no" | "off"));
        Ok(Self { mirror, security, check_dates })
    }
}

impl Source {
    /// How sure it is that this is the mirror of Debian's main archive; 0 when it is not.
    fn rank(&self, suite: &str) -> u8 {
        if !self.uris.first().is_some_and(|uri| is_remote(uri)) {
            return 0;
        }
        if self.suites.iter().any(|it| it.contains("security") || it.ends_with('/')) {
            return 0;
        }
        let debian = |name: &String| SUITES.contains(&name.as_str());
        let part =
            |name: &String| name.split_once('-').is_some_and(|(base, _)| SUITES.contains(&base));
        let keyring = self.signed_by.contains("debian-archive");
        if !self.suites.iter().any(|it| debian(it) || part(it)) && !keyring {
            return 0;
        }
        match self.suites.iter().any(|it| it == suite) {
            // Another distribution's archive may have a suite of the same name, such as `stable`.
            true if keyring => 5,
            true => 3,
            false if keyring && self.suites.iter().any(debian) => 4,
            false if self.suites.iter().any(debian) => 2,
            false => 1,
        }
    }
}

/// Finds the security updates of Debian: those of the suite that is wanted, else of any other.
fn security(sources: &[Source], suite: &str) -> Result<Option<Security>, DebError> {
    let fits = |name: &String, suite: &dyn Fn(&str) -> bool| {
        let base = name.strip_suffix("-security").or_else(|| name.strip_suffix("/updates"));
        base.is_some_and(suite)
    };
    let find = |suite: &dyn Fn(&str) -> bool| {
        let mut fitting =
            sources.iter().filter(|it| it.suites.iter().any(|name| fits(name, suite)));
        fitting.find(|it| it.uris.iter().any(|uri| is_remote(uri)))
    };
    let found = find(&|base| base == suite).or_else(|| find(&|base| SUITES.contains(&base)));
    let Some(source) = found else { return Ok(None) };
    let uri = source.uris.iter().find(|uri| is_remote(uri));
    let mirror = uri.map(|uri| address(uri)).transpose()?.flatten();
    Ok(mirror.map(|mirror| Security { mirror, suites: source.suites.clone() }))
}

fn is_remote(uri: &str) -> bool {
    ["http://", "https://", "mirror+file:"].iter().any(|scheme| uri.starts_with(scheme))
}

/// Reads `deb [options] URI SUITE COMPONENT…`.
fn one_line(line: &str) -> Option<Source> {
    let line = line.split('#').next()?.trim();
    let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
    let (options, rest) = match rest.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => ("", rest),
    };
    let mut words = rest.split_whitespace().map(str::to_owned);
    let signed_by = options.split_whitespace().find_map(|it| it.strip_prefix("signed-by="));
    let (uri, suite) = (words.next()?, words.next()?);
    // Other archives often have a suite called `stable`; those that are Debian's have `main`.
    words.any(|component| component == "main").then(|| Source {
        uris: vec![uri],
        suites: vec![suite],
        signed_by: signed_by.unwrap_or_default().to_owned(),
    })
}

/// Reads the stanzas of a `.sources` file.
fn deb822(text: &str) -> Vec<Source> {
    let words = |value: Option<&str>| {
        value.unwrap_or_default().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let mut sources = Vec::new();
    let clean: String =
        text.lines().filter(|it| !it.starts_with('#')).fold(String::new(), |mut all, line| {
            all.push_str(line.trim_end());
            all.push('\n');
            all
        });
    for stanza in clean.split("\n\n").map(|it| it.trim_start_matches('\n')) {
        let field = |name| stanza::field(stanza, name);
        let enabled = !matches!(field("Enabled"), Some("no" | "false" | "0"));
        let types = words(field("Types"));
        if !enabled
            || !types.iter().any(|it| it == "deb")
            || !words(field("Components")).iter().any(|it| it == "main")
        {
            continue;
        }
        sources.push(Source {
            uris: words(field("URIs")),
            suites: words(field("Suites")),
            signed_by: field("Signed-By").unwrap_or_default().to_owned(),
        });
    }
    sources
}

/// Returns the address that a source's URI stands for. Debian's cloud images keep it in a file of its own.
fn address(uri: &str) -> Result<Option<String>, DebError> {
    let Some(file) = uri.strip_prefix("mirror+file:") else {
        return Ok(Some(uri.trim_end_matches('/').to_owned()));
    };
    let path = PathBuf::from(format!("/{}", file.trim_start_matches('/')));
    let list = text(&path)?.unwrap_or_default();
    let first = list.lines().filter_map(|it| it.split_whitespace().next());
    let mut first = first.filter(|it| it.starts_with("http://") || it.starts_with("https://"));
    Ok(first.next().map(|it| it.trim_end_matches('/').to_owned()))
}

fn text(path: &Path) -> Result<Option<String>, DebError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DebError::ReadConfig { path: path.to_owned(), source }),
    }
}

/// Returns the files of a directory in the order in which apt reads them.
fn listing(dir: &Path) -> Result<Vec<PathBuf>, DebError> {
    let failed = |source| DebError::ReadConfig { path: dir.to_owned(), source };
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(failed(source)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirror(files: &[(&str, &str)]) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        AptConfig::read(dir.path(), "trixie").unwrap().mirror
    }

    #[test]
    fn both_notations_of_apt_name_the_mirror() {
        let deb822 = "# comment\nTypes: deb deb-src\nURIs: http://mirror.example/debian/\nSuites: bookworm\n \
             bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let security = "Types: deb\nURIs: http://mirror.example/debian-security\nSuites: bookworm-security\n\
                        Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        let want = Some("http://mirror.example/debian".to_owned());
        let both = format!("{security}\n{deb822}");
        assert_eq!(mirror(&[("sources.list.d/debian.sources", &both)]), want);
        assert_eq!(
            mirror(&[(
                "sources.list",
                "deb [arch=amd64] http://mirror.example/debian trixie main # x\n"
            )]),
            want
        );
        let disabled = deb822.replace("Types", "Enabled: no\nTypes");
        assert_eq!(mirror(&[("sources.list.d/debian.sources", &disabled)]), None);
    }

    #[test]
    fn the_suite_that_is_wanted_and_the_debian_keyring_win() {
        let list = "deb http://backports.example/debian bookworm-backports main\n\
                    deb http://old.example/debian bookworm main\n\
                    deb https://other.example/tool stable tool\n\
                    deb http://new.example/debian trixie main\n\
                    deb http://late.example/debian trixie main\n\
                    deb-src http://source.example/debian trixie main\n";
        assert_eq!(mirror(&[("sources.list", list)]).unwrap(), "http://new.example/debian");
    }

    #[test]
    fn the_archive_of_security_updates_is_found() {
        let security = |list: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("sources.list"), list).unwrap();
            AptConfig::read(dir.path(), "trixie").unwrap().security.map(|it| it.mirror)
        };
        let old = "deb http://old.example/debian-security bookworm-security main\n";
        let new = "deb http://new.example/s/ trixie-security main\n";
        assert_eq!(security(&format!("{old}{new}")).unwrap(), "http://new.example/s");
        assert_eq!(security(old).unwrap(), "http://old.example/debian-security");
        let other = "deb http://x.example/ubuntu noble-security main\n";
        assert_eq!(security(other), None);
    }

    #[test]
    fn other_distributions_and_local_disks_are_not_a_mirror() {
        let list = "deb http://archive.example/ubuntu noble main\n\
                    deb cdrom:[Debian]/ trixie main\n\
                    deb file:/srv/debian trixie main\ndeb\n[\ndeb [x http://a trixie main\n";
        assert_eq!(mirror(&[("sources.list", list)]), None);
        assert_eq!(mirror(&[]), None);
    }

    #[test]
    fn a_host_with_a_frozen_mirror_can_switch_dates_off() {
        let dir = tempfile::tempdir().unwrap();
        assert!(AptConfig::read(dir.path(), "trixie").unwrap().check_dates);
        fs::create_dir(dir.path().join("apt.conf.d")).unwrap();
        let text = "// x\nAcquire { Check-Valid-Until \"false\"; };\n";
        fs::write(dir.path().join("apt.conf.d/99frozen"), text).unwrap();
        assert!(!AptConfig::read(dir.path(), "trixie").unwrap().check_dates);
    }
}
