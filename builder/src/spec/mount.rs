//! What is mounted into a container.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::text::{as_text, short};

/// One mount, as it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MountSpec {
    /// Where in the container; the usual place of `proc`, `devpts`, `sysfs`, `cgroup` and `mqueue`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub destination: Option<String>,
    /// Type of file system; the source where that is the name of one.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// What: a device, a path, or for `bind` also the name of a volume; the type where that says enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Options.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub options: Option<Vec<String>>,
}

/// One mount with all that the runtime needs (OCI runtime specification, `mounts`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Mount {
    /// Where in the container.
    pub destination: String,
    /// Type of file system.
    #[serde(rename = "type")]
    pub kind: String,
    /// What; for a bind, a path of the machine or the name of a volume.
    pub source: String,
    /// Options.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

impl Mount {
    /// Returns the name of the volume, when it is a bind of one.
    pub fn volume(&self) -> Option<&str> {
        let word = |word: &&str| self.options.iter().any(|option| option == word);
        let bind = self.kind == "bind" || ["bind", "rbind"].iter().any(word);
        (bind && !self.source.starts_with('/')).then_some(self.source.as_str())
    }

    /// Returns whether the container can write through it.
    pub fn is_writable(&self) -> bool {
        // The last word counts.
        let word = self.options.iter().rev().find(|o| matches!(o.as_str(), "ro" | "rro" | "rw"));
        word.is_none_or(|word| word == "rw")
    }
}

impl MountSpec {
    /// Fills in what is not written.
    pub(super) fn settle(&self) -> Result<Mount, String> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let (source, destination) = (given(&self.source), given(&self.destination));
        let kind =
            given(&self.kind).or_else(|| match (source.as_deref(), destination.as_deref()) {
                (Some("mqueue" | "devpts" | "proc" | "sysfs" | "cgroup"), _) => source.clone(),
                (_, Some("/dev")) => Some("tmpfs".to_owned()),
                _ => None,
            });
        let kind = kind.ok_or_else(|| {
            let at = destination.as_deref().map(short).unwrap_or_default();
            format!("the mount on `{at}` has no `type`")
        })?;
        let usual = || match kind.as_str() {
            "proc" => Some("/proc"),
            "devpts" => Some("/dev/pts"),
            "sysfs" => Some("/sys"),
            "cgroup" | "cgroup2" => Some("/sys/fs/cgroup"),
            "mqueue" => Some("/dev/mqueue"),
            _ => None,
        };
        let destination = destination
            .or_else(|| usual().map(str::to_owned))
            .ok_or_else(|| format!("a mount of type `{}` has no `destination`", short(&kind)))?;
        let source = source.unwrap_or_else(|| kind.clone());
        Ok(Mount { destination, kind, source, options: self.options.clone().unwrap_or_default() })
    }
}

/// A path of the machine, or a volume, that a container sees: `source:destination[:options]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bind {
    /// An absolute path of the machine, or the name of a volume.
    pub source: String,
    /// An absolute path in the container.
    pub destination: String,
    /// Options as they are written.
    pub options: Option<Vec<String>>,
}

impl Bind {
    /// Returns the name of the volume, unless it is a path.
    pub fn volume(&self) -> Option<&str> {
        (!self.source.starts_with('/')).then_some(self.source.as_str())
    }

    pub(super) fn settle(&self) -> Mount {
        let options = match &self.options {
            None => ["rw", "rbind", "rshared"].map(str::to_owned).to_vec(),
            Some(given) => given.iter().cloned().chain(["rbind".to_owned()]).collect(),
        };
        Mount {
            destination: self.destination.clone(),
            kind: "bind".to_owned(),
            source: self.source.clone(),
            options,
        }
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(':').collect();
        let (source, destination, options) = match parts.as_slice() {
            [source, destination] => (source, destination, None),
            [source, destination, options] => (source, destination, Some(split(options))),
            _ => (&"", &"", None),
        };
        if source.is_empty() || !destination.starts_with('/') {
            return Err(format!(
                "bind `{}` is not `/source:/destination[:options]` or `volume:/destination[:options]`",
                short(text)
            ));
        }
        Ok(Self { source: (*source).to_owned(), destination: (*destination).to_owned(), options })
    }
}

impl fmt::Display for Bind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.destination)?;
        self.options.as_ref().map_or(Ok(()), |options| write!(f, ":{}", options.join(",")))
    }
}

/// A file system in memory: `destination[:options]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tmpfs {
    /// An absolute path in the container.
    pub destination: String,
    /// Options.
    pub options: Vec<String>,
}

impl Tmpfs {
    pub(super) fn settle(&self) -> Mount {
        Mount {
            destination: self.destination.clone(),
            kind: "tmpfs".to_owned(),
            source: "tmpfs".to_owned(),
            options: self.options.clone(),
        }
    }
}

impl FromStr for Tmpfs {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (destination, options) = text.split_once(':').unwrap_or((text, ""));
        if !destination.starts_with('/') || options.contains(':') {
            return Err(format!("tmpfs `{}` is not `/destination[:options]`", short(text)));
        }
        Ok(Self { destination: destination.to_owned(), options: split(options) })
    }
}

impl fmt::Display for Tmpfs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.destination)?;
        if self.options.is_empty() { Ok(()) } else { write!(f, ":{}", self.options.join(",")) }
    }
}

as_text!(Bind Tmpfs);

fn split(options: &str) -> Vec<String> {
    options.split(',').filter(|option| !option.is_empty()).map(str::to_owned).collect()
}
