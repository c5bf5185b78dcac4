//! What holds for a machine when its own settings and those of its groups are laid over each other, and who says it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use kiln_types::{Arch, ImageRef};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::settings::Layer;
use crate::{BootFrom, Group, LoaderChoice, Machine, OptionValue, Setting, StateDisk};

/// Who says a setting.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// The machine itself.
    Machine,
    /// A group, by its name.
    Group(Arc<str>),
    /// The image that it runs.
    Image,
    /// Nobody: it is so when nothing is said.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine => f.pad("machine"),
            Self::Group(name) => f.pad(&format!("group {name}")),
            Self::Image => f.pad("image"),
            Self::Default => f.pad("default"),
        }
    }
}

impl Serialize for Origin {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A value and who says it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said<T> {
    /// The value.
    pub value: T,
    /// Who says it.
    pub by: Origin,
}

/// The settings that hold for a machine. Machines for which the same holds share one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Effective {
    /// Names of its groups, the strongest first.
    pub groups: Vec<Arc<str>>,
    /// Architecture; machines of any other kind are refused.
    pub arch: Option<Said<Arch>>,
    /// Image that it runs.
    pub image: Option<Said<ImageRef>>,
    /// Image that it runs in maintenance.
    pub maintenance_image: Option<Said<ImageRef>>,
    /// Kernel arguments behind those of the image, the weakest first: of two that disagree the kernel takes the last.
    pub cmdline: Vec<Said<String>>,
    /// DHCP options by number.
    pub dhcp_options: BTreeMap<u8, Said<OptionValue>>,
    /// Disk on which a state partition may be made.
    pub state_disk: Option<Said<StateDisk>>,
    /// Which loader it gets.
    pub loader: Said<LoaderChoice>,
    /// Where it boots from.
    pub boot: Said<BootFrom>,
    /// What templates are filled with.
    pub metadata: Map<String, Value>,
    /// Who says each value of the metadata, by the names on the way to it with dots between them.
    pub metadata_by: BTreeMap<String, Origin>,
}

impl Default for Effective {
    fn default() -> Self {
        Self {
            groups: Vec::new(),
            arch: None,
            image: None,
            maintenance_image: None,
            cmdline: Vec::new(),
            dhcp_options: BTreeMap::new(),
            state_disk: None,
            loader: Said { value: LoaderChoice::Auto, by: Origin::Default },
            boot: Said { value: BootFrom::Net, by: Origin::Default },
            metadata: Map::new(),
            metadata_by: BTreeMap::new(),
        }
    }
}

/// One setting as people read it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct SettingRow {
    /// Its name.
    pub setting: String,
    /// Its value; what is secret is not shown.
    pub value: String,
    /// Who says it: `machine`, `group NAME`, `image` or `default`.
    pub from: String,
}

impl Effective {
    /// Returns the kernel arguments behind those of the image.
    pub fn arguments(&self) -> String {
        let parts: Vec<&str> = self.cmdline.iter().map(|part| part.value.as_str()).collect();
        parts.join(" ")
    }

    /// Lists every setting that is there, and who says it.
    pub fn rows(&self) -> Vec<SettingRow> {
        let mut rows = Vec::new();
        let mut row = |setting: Setting, value: String, by: &Origin| {
            let (setting, from) = (setting.to_string(), by.to_string());
            rows.push(SettingRow { setting, value, from });
        };
        if let Some(said) = &self.image {
            row(Setting::Image, said.value.to_string(), &said.by);
        }
        if let Some(said) = &self.maintenance_image {
            row(Setting::MaintenanceImage, said.value.to_string(), &said.by);
        }
        if let Some(said) = &self.arch {
            row(Setting::Arch, said.value.to_string(), &said.by);
        }
        row(Setting::Boot, self.boot.value.to_string(), &self.boot.by);
        row(Setting::Loader, self.loader.value.to_string(), &self.loader.by);
        for said in &self.cmdline {
            row(Setting::Cmdline, said.value.clone(), &said.by);
        }
        if let Some(said) = &self.state_disk {
            row(Setting::StateDisk, said.value.as_str().to_owned(), &said.by);
        }
        for (number, said) in &self.dhcp_options {
            row(Setting::DhcpOption(*number), said.value.clone().into(), &said.by);
        }
        for (path, by) in &self.metadata_by {
            let keys: Vec<String> = path.split('.').map(str::to_owned).collect();
            let value = match keys.first() {
                Some(first) if first == SECRETS => "(secret)".to_owned(),
                _ => found(&self.metadata, &keys).map_or_else(String::new, ToString::to_string),
            };
            rows.push(SettingRow {
                setting: format!("metadata.{path}"),
                value,
                from: by.to_string(),
            });
        }
        rows
    }

    /// Lays settings over what is there.
    fn apply(&mut self, layer: &Layer<'_>, by: &Origin) {
        for setting in layer.unset {
            self.unset(setting);
        }
        fn put<T: Clone>(field: &mut Option<Said<T>>, said: Option<&T>, by: &Origin) {
            if let Some(value) = said {
                *field = Some(Said { value: value.clone(), by: by.clone() });
            }
        }
        put(&mut self.arch, layer.arch.as_ref(), by);
        put(&mut self.image, layer.image, by);
        put(&mut self.maintenance_image, layer.maintenance_image, by);
        put(&mut self.state_disk, layer.state_disk, by);
        if let Some(value) = layer.loader {
            self.loader = Said { value, by: by.clone() };
        }
        if let Some(value) = layer.boot {
            self.boot = Said { value, by: by.clone() };
        }
        let cmdline = layer.cmdline.trim();
        if !cmdline.is_empty() {
            self.cmdline.push(Said { value: cmdline.to_owned(), by: by.clone() });
        }
        for (number, value) in layer.dhcp_options {
            let said = Said { value: value.clone(), by: by.clone() };
            self.dhcp_options.insert(*number, said);
        }
        merge(&mut self.metadata, layer.metadata);
        if !layer.metadata.is_empty() {
            claim(&self.metadata, layer.metadata, by, &mut self.metadata_by);
        }
    }

    fn unset(&mut self, setting: &Setting) {
        let nobody = Self::default();
        match setting {
            Setting::Arch => self.arch = None,
            Setting::Image => self.image = None,
            Setting::MaintenanceImage => self.maintenance_image = None,
            Setting::Cmdline => self.cmdline.clear(),
            Setting::DhcpOptions => self.dhcp_options.clear(),
            Setting::DhcpOption(number) => drop(self.dhcp_options.remove(number)),
            Setting::StateDisk => self.state_disk = None,
            Setting::Loader => self.loader = nobody.loader,
            Setting::Boot => self.boot = nobody.boot,
            Setting::Metadata => {
                self.metadata.clear();
                self.metadata_by.clear();
            }
            Setting::MetadataAt(keys) => {
                take(&mut self.metadata, keys);
                let (path, inside) = (keys.join("."), keys.join(".") + ".");
                self.metadata_by.retain(|key, _| *key != path && !key.starts_with(&inside));
            }
        }
    }
}

/// What is under this key of the metadata is given to the machine itself only.
const SECRETS: &str = "secrets";

fn found<'a>(map: &'a Map<String, Value>, keys: &[String]) -> Option<&'a Value> {
    // A key with a dot in it is found as a whole.
    if let Some(value) = map.get(&keys.join(".")) {
        return Some(value);
    }
    (1..keys.len()).find_map(|end| match map.get(&keys[..end].join("."))? {
        Value::Object(inside) => found(inside, &keys[end..]),
        _ => None,
    })
}

fn take(map: &mut Map<String, Value>, keys: &[String]) {
    match keys {
        [last] => drop(map.remove(last)),
        [first, rest @ ..] => {
            if let Some(Value::Object(inside)) = map.get_mut(first) {
                take(inside, rest);
            }
        }
        [] => {}
    }
}

/// Maps merge by key; everything else replaces what is there, and `null` takes it away.
fn merge(into: &mut Map<String, Value>, from: &Map<String, Value>) {
    for (key, value) in from {
        match value {
            Value::Null => drop(into.remove(key)),
            Value::Object(inner) => {
                let at = into.entry(key.as_str()).or_insert_with(|| Value::Object(Map::new()));
                if !at.is_object() {
                    *at = Value::Object(Map::new());
                }
                if let Value::Object(at) = at {
                    merge(at, inner);
                }
            }
            _ => drop(into.insert(key.clone(), value.clone())),
        }
    }
}

/// Writes down who says the values of a map that was just merged.
fn claim(
    merged: &Map<String, Value>,
    from: &Map<String, Value>,
    by: &Origin,
    all: &mut BTreeMap<String, Origin>,
) {
    let mut said = BTreeMap::new();
    leaves("", from, &mut |path, value| {
        said.insert(path.to_owned(), !value.is_null());
    });
    // A value takes the place of a map, and the other way round.
    let mut there = BTreeMap::new();
    leaves("", merged, &mut |path, _| {
        there.insert(path.to_owned(), ());
    });
    all.retain(|path, _| there.contains_key(path));
    for (path, is_value) in said {
        if is_value && there.contains_key(&path) {
            all.insert(path, by.clone());
        }
    }
}

fn leaves(prefix: &str, map: &Map<String, Value>, visit: &mut impl FnMut(&str, &Value)) {
    for (key, value) in map {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            Value::Object(inside) if !inside.is_empty() => leaves(&path, inside, visit),
            _ => visit(&path, value),
        }
    }
}

/// Finds the settings of many machines. Machines with equal settings in the same groups share the result.
#[derive(Debug)]
pub(crate) struct Resolver<'a> {
    /// The weakest first.
    groups: Vec<&'a Group>,
    names: Vec<Arc<str>>,
    index: crate::group_index::GroupIndex<'a>,
    sets: HashMap<Vec<u32>, usize>,
    bases: Vec<Arc<Effective>>,
    made: HashMap<(usize, Layer<'a>), Arc<Effective>>,
}

impl<'a> Resolver<'a> {
    pub(crate) fn new(groups: &'a [Group]) -> Self {
        let mut groups: Vec<&Group> = groups.iter().collect();
        groups.sort_by(|a, b| b.by_strength(a));
        let names = groups.iter().map(|group| group.name.as_str().into()).collect();
        let index = crate::group_index::GroupIndex::new(&groups);
        Self { groups, names, index, sets: HashMap::new(), bases: Vec::new(), made: HashMap::new() }
    }

    pub(crate) fn resolve(&mut self, machine: &'a Machine) -> Arc<Effective> {
        let set = self.index.matching(&self.groups, &machine.spec.labels);
        let set = match self.sets.get(&set) {
            Some(number) => *number,
            None => {
                let mut all = Effective::default();
                for &number in &set {
                    let number = number as usize;
                    let by = Origin::Group(self.names[number].clone());
                    all.apply(&self.groups[number].settings.layer(), &by);
                }
                let names = set.iter().rev().map(|&number| self.names[number as usize].clone());
                all.groups = names.collect();
                self.bases.push(Arc::new(all));
                self.sets.insert(set, self.bases.len() - 1);
                self.bases.len() - 1
            }
        };
        let layer = machine.spec.layer();
        let base = &self.bases[set];
        let made = self.made.entry((set, layer)).or_insert_with(|| {
            let mut own = base.clone();
            Arc::make_mut(&mut own).apply(&layer, &Origin::Machine);
            own
        });
        made.clone()
    }
}

pub(crate) mod beaten;
#[cfg(test)]
mod tests;
