//! What `nodes.conf` holds.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::Spanned;

/// Keys that nothing is done with, to be told of.
pub(super) type Rest = BTreeMap<String, IgnoredAny>;

/// A file of nodes. What a node and a profile do not share is little, so both have one type.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct File {
    pub(super) nodeprofiles: Option<BTreeMap<String, Spanned<Option<Node>>>>,
    pub(super) nodes: Option<BTreeMap<String, Spanned<Option<Node>>>>,
    /// The form of the file, which only old versions write.
    #[serde(rename = "WW_INTERNAL")]
    pub(super) form: Option<IgnoredAny>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Node {
    pub(super) profiles: Option<Vec<String>>,
    pub(super) comment: Option<String>,
    #[serde(rename = "cluster name")]
    pub(super) cluster: Option<String>,
    #[serde(rename = "image name", alias = "container name")]
    pub(super) image: Option<String>,
    pub(super) kernel: Option<Kernel>,
    /// The same in old versions.
    #[serde(rename = "kernel args")]
    pub(super) kernel_args: Option<String>,
    #[serde(rename = "network devices")]
    pub(super) devices: Option<BTreeMap<String, Option<Device>>>,
    #[serde(rename = "primary network")]
    pub(super) primary: Option<String>,
    pub(super) tags: Option<BTreeMap<String, Option<String>>>,
    /// What overlays are filled with, in any form.
    pub(super) resources: Option<BTreeMap<String, Value>>,
    pub(super) discoverable: Option<Value>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kernel {
    pub(super) args: Option<Words>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

/// Kernel arguments: one text in old versions, a list since 4.6.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Words {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Device {
    pub(super) hwaddr: Option<String>,
    #[serde(alias = "ipcidr")]
    pub(super) ipaddr: Option<String>,
    #[serde(alias = "ip6addr")]
    pub(super) ipaddr6: Option<String>,
    #[serde(flatten)]
    pub(super) rest: Rest,
}

impl Node {
    /// Returns the kernel arguments, and whether they stand in the place of those of profiles: a text does, a list is
    /// put behind theirs.
    pub(super) fn cmdline(&self) -> (Vec<String>, bool) {
        let words = |text: &str| text.split_ascii_whitespace().map(str::to_owned).collect();
        let args = self.kernel.as_ref().and_then(|kernel| kernel.args.as_ref());
        match (args, &self.kernel_args) {
            (Some(Words::Many(list)), _) => {
                (list.iter().filter(|word| !word.is_empty()).cloned().collect(), false)
            }
            (Some(Words::One(text)), _) | (None, Some(text)) => {
                let words: Vec<String> = words(text);
                let some = !words.is_empty();
                (words, some)
            }
            (None, None) => (Vec::new(), false),
        }
    }
}

/// The text, unless it is empty.
pub(super) fn some(text: Option<&String>) -> Option<&str> {
    text.map(String::as_str).filter(|text| !text.is_empty())
}
