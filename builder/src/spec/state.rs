//! The partition that is kept from image to image.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::health::Period;
use super::text::{as_text, short};
use super::{Container, InitSpec, Spec};

/// Where the partition is mounted.
const MOUNT_POINT: &str = "/var/lib/state";
/// How long disks are waited for; controllers with many of them take their time.
const TIMEOUT: u64 = 30_000;

/// A disk partition that is kept from image to image, mounted at `/var/lib/state`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub struct StateSpec {
    /// Name of the partition in the partition table (GPT) of its disk; `kiln-state`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label: Option<String>,
    /// File system; `ext4`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<StateFormat>,
    /// Least size, as in `2G`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_size: Option<ByteSize>,
    /// Number of the form in which the image keeps its data; 1. Data of a higher one is not touched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schema: Option<u32>,
    /// Lowest schema of an older image that can still use the data after this one; that of this image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compatible: Option<u32>,
    /// Whether what keeps something there must not run without it; `true`. Otherwise it gets memory instead.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<bool>,
    /// How long the disk is waited for; 30 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
}

/// The file systems that a state partition can have: the image carries what makes and checks them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum StateFormat {
    /// The fourth extended file system.
    #[default]
    Ext4,
}

/// A number of bytes, with K, M, G or T for powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteSize(u64);

impl ByteSize {
    /// Returns how many bytes it is.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for ByteSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let shift = match text.get(digits.len()..).unwrap_or_default() {
            "" => Some(0),
            "K" | "k" | "KiB" => Some(10),
            "M" | "MiB" => Some(20),
            "G" | "GiB" => Some(30),
            "T" | "TiB" => Some(40),
            _ => None,
        };
        let number = digits.parse::<u64>().ok().filter(|_| !digits.starts_with('+'));
        let bytes = number.zip(shift).and_then(|(n, shift)| n.checked_mul(1 << shift));
        bytes
            .map(Self)
            .ok_or_else(|| format!("`{}` is not a size such as `512M` or `4G`", short(text)))
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(40, "T"), (30, "G"), (20, "M"), (10, "K")];
        let fits = |(shift, _): &&(u32, &str)| self.0 > 0 && self.0.trailing_zeros() >= *shift;
        match units.iter().find(fits) {
            Some((shift, unit)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

as_text!(ByteSize);

/// The same, settled, as kiln-init reads it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct State {
    label: String,
    min_size: u64,
    schema: u32,
    compatible: u32,
    required: bool,
    /// In milliseconds.
    timeout: u64,
    /// Bundles of the containers that keep something there.
    containers: Vec<String>,
}

impl StateSpec {
    /// Returns what is wrong with it in this specification.
    pub(super) fn problem(&self, spec: &Spec) -> Option<String> {
        let label = self.label();
        // A partition of a GPT has 36 UTF-16 units for its name (UEFI specification §5.3.3).
        let good = (1..=36).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if !good {
            return Some(format!(
                "`{}` cannot be the label of a partition; use letters, digits, `-`, `_` and `.`, at most 36",
                short(label)
            ));
        }
        let (schema, compatible) = (self.schema(), self.compatible());
        if schema == 0 {
            return Some("`schema` is 0; it must be 1 at least".to_owned());
        }
        if compatible > schema {
            return Some(format!(
                "`compatible` is {compatible} and `schema` is {schema}; it names an older schema that can still use \
                 the data"
            ));
        }
        let kiln = spec.init.is_empty() || spec.init.iter().any(|it| **it == InitSpec::Kiln);
        (!kiln).then(|| "`state` is mounted by kiln-init; add `init: [kiln]`".to_owned())
    }

    fn label(&self) -> &str {
        self.label.as_deref().unwrap_or("kiln-state")
    }

    fn schema(&self) -> u32 {
        self.schema.unwrap_or(1)
    }

    fn compatible(&self) -> u32 {
        self.compatible.unwrap_or_else(|| self.schema())
    }

    /// Settles it for containers, each with the path of its bundle.
    pub fn settle<'a>(
        &self,
        containers: impl IntoIterator<Item = (String, &'a Container)>,
    ) -> State {
        let users = containers.into_iter().filter(|(_, container)| keeps_state(container));
        let timeout = self.timeout.map(|period| period.duration().as_millis());
        State {
            label: self.label().to_owned(),
            min_size: self.min_size.map_or(0, ByteSize::bytes),
            schema: self.schema(),
            compatible: self.compatible(),
            required: self.required.unwrap_or(true),
            timeout: timeout.map_or(TIMEOUT, |millis| u64::try_from(millis).unwrap_or(TIMEOUT)),
            containers: users.map(|(bundle, _)| bundle).collect(),
        }
    }
}

/// Returns whether a container names something below the mount point. One that sees it only because it sees all of
/// `/var` is not meant: where the state is missing, nothing can be written there anyway.
fn keeps_state(container: &Container) -> bool {
    let below = |path: &str| {
        let path: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
        let base: Vec<_> = MOUNT_POINT.split('/').skip(1).collect();
        path.starts_with(&base)
    };
    let runtime = &container.runtime;
    let prepared = runtime.mounts.iter().filter_map(|mount| mount.source.as_deref());
    let sources = container.mounts.iter().map(|mount| mount.source.as_str()).chain(prepared);
    sources.chain(runtime.mkdir.iter().map(String::as_str)).any(below)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::parse;

    #[test]
    fn sizes_are_read_and_written_with_their_units() {
        for (text, size, short) in [
            ("4096", 4096, "4K"),
            ("2G", 2 << 30, "2G"),
            ("512MiB", 512 << 20, "512M"),
            ("0", 0, "0"),
            ("1025", 1025, "1025"),
        ] {
            let read: ByteSize = text.parse().unwrap();
            assert_eq!((read.bytes(), read.to_string().as_str()), (size, short));
        }
        for bad in ["", "G", "4GB", "-1", "+1", "1.5G", "99999999999T"] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_not_said_is_settled() {
        let spec = parse("a.yml", "init: [kiln]\nstate: {}\n").unwrap();
        let state = serde_json::to_value(spec.state.unwrap().settle([])).unwrap();
        let whole = serde_json::json!({
            "label": "kiln-state", "min-size": 0, "schema": 1, "compatible": 1, "required": true,
            "timeout": 30000, "containers": [],
        });
        assert_eq!(state, whole);
    }

    #[test]
    fn containers_that_name_the_state_are_known_whichever_way_they_do() {
        let yaml = "init: [kiln]\nstate: {schema: 3, compatible: 2, required: false, timeout: 5s, min-size: 1G}\n\
                    services:\n\
                    - {name: a, image: x, binds: ['/var/lib/state:/data']}\n\
                    - {name: b, image: x, binds: ['/var/lib//state/web:/data:ro']}\n\
                    - {name: c, image: x, runtime: {mkdir: [/var/lib/state/c]}}\n\
                    - {name: d, image: x, mounts: [{type: bind, source: /var/lib/state/d, destination: /d}]}\n\
                    - {name: e, image: x, binds: ['/var:/var', '/var/lib/statement:/x']}\n";
        let spec = parse("a.yml", yaml).unwrap();
        let settled: Vec<_> = spec.services.iter().map(|it| it.settle(None, None)).collect();
        let bundles = settled.iter().map(|it| (it.name.to_string(), it));
        let state = spec.state.as_ref().unwrap().settle(bundles);
        assert_eq!(state.containers, ["a", "b", "c", "d"]);
        assert_eq!((state.schema, state.compatible, state.required), (3, 2, false));
        assert_eq!((state.min_size, state.timeout), (1 << 30, 5000));
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_place() {
        let refused = |state: &str| {
            parse("a.yml", &format!("init: [kiln]\nstate: {state}\n")).unwrap_err().to_string()
        };
        for (state, said) in [
            ("{label: 'a b'}", "`a b` cannot be the label of a partition"),
            ("{label: ''}", "`` cannot be the label of a partition"),
            ("{schema: 0}", "`schema` is 0; it must be 1 at least"),
            ("{schema: 1, compatible: 2}", "`compatible` is 2 and `schema` is 1"),
            ("{format: xfs}", "xfs"),
            ("{min-size: 2X}", "`2X` is not a size such as `512M` or `4G`"),
            ("{size: 2G}", "size"),
        ] {
            let error = refused(state);
            assert!(error.starts_with("a.yml:2:") && error.contains(said), "{error}");
        }
        let other = parse("a.yml", "init: [a/b:1]\nstate: {}\n").unwrap_err().to_string();
        assert!(other.contains("add `init: [kiln]`"), "{other}");
    }
}
