//! What a machine is told of itself by templates: NoCloud, Ignition, plain keys and values.
//!
//! Templates are files of the operator, and what they are filled with is the machine as the inventory has it. What is
//! under `secrets` in a machine's metadata is there only for whoever proves with the token of a boot to be that
//! machine; to everyone else, who may know no more than a MAC, a template that asks for it is refused.

mod find;
mod render;

use std::path::Path;

use kiln_inventory::{Effective, Machine};
use kiln_types::Mac;
use serde_json::{Map, Value, json};

pub use self::find::TemplateError;

/// The key of a machine's metadata whose values are for that machine only.
pub const SECRETS: &str = "secrets";

/// Which file is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Document {
    /// cloud-init's `user-data` (NoCloud).
    UserData,
    /// cloud-init's `meta-data`.
    MetaData,
    /// cloud-init's `network-config`.
    NetworkConfig,
    /// cloud-init's `vendor-data`.
    VendorData,
    /// The configuration of Ignition.
    Ignition,
}

impl Document {
    /// Returns the one that has this name under `/nocloud`.
    pub fn nocloud(name: &str) -> Option<Self> {
        Some(match name {
            "user-data" => Self::UserData,
            "meta-data" => Self::MetaData,
            "network-config" => Self::NetworkConfig,
            "vendor-data" => Self::VendorData,
            _ => return None,
        })
    }

    /// Returns the name of its template.
    pub const fn template(self) -> &'static str {
        match self {
            Self::UserData => "user-data",
            Self::MetaData => "meta-data",
            Self::NetworkConfig => "network-config",
            Self::VendorData => "vendor-data",
            Self::Ignition => "config.ign",
        }
    }

    /// Returns what is told where no template is: cloud-init goes on only when it has the first two.
    const fn default_template(self) -> Option<&'static str> {
        match self {
            Self::UserData => Some("#cloud-config\n{}\n"),
            Self::MetaData => Some(
                "instance-id: {{ instance_id | tojson }}\nlocal-hostname: {{ machine.name | tojson }}\n",
            ),
            Self::VendorData => Some("#cloud-config\n{}\n"),
            Self::NetworkConfig | Self::Ignition => None,
        }
    }
}

/// Who asks, and how far it is believed.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a> {
    /// The machine.
    pub machine: &'a Machine,
    /// What holds for it.
    pub settings: &'a Effective,
    /// The interface that was named, or that it boots from.
    pub mac: Mac,
    /// Whether it has proved to be the machine.
    pub proven: bool,
    /// Secrets besides those of its metadata, for a machine that has proved to be the one.
    pub secrets: &'a Map<String, Value>,
    /// Where it reaches this server, as a URL.
    pub server: &'a str,
}

impl Asker<'_> {
    /// Returns what may be told: the metadata without its secrets, and these apart.
    fn metadata(&self) -> (Value, Option<Value>) {
        let mut open: Map<String, Value> = self.settings.metadata.clone();
        let mut secrets = open.remove(SECRETS).unwrap_or_else(|| json!({}));
        if let Some(all) = secrets.as_object_mut() {
            all.extend(self.secrets.clone());
        }
        (open.into(), self.proven.then_some(secrets))
    }

    /// Returns what templates are filled with.
    fn context(&self) -> Value {
        let spec = &self.machine.spec;
        let image = self.settings.image.as_ref().map(|said| &said.value);
        let (metadata, secrets) = self.metadata();
        let mut context = json!({
            "machine": {
                "id": self.machine.id,
                "name": spec.name,
                "macs": spec.macs,
                "uuid": spec.uuid,
                "arch": self.settings.arch.as_ref().map(|said| said.value),
                "address": spec.address,
                "image": image,
                "labels": spec.labels,
            },
            "mac": self.mac,
            "server": self.server,
            // It changes when the machine is to be set up anew: when it is another one, or runs another image.
            "instance_id": format!(
                "{}-{}",
                spec.name,
                image.map_or("none", kiln_types::ImageRef::name)
            ),
            "metadata": metadata,
        });
        if let (Some(secrets), Some(map)) = (secrets, context.as_object_mut()) {
            map.insert(SECRETS.to_owned(), secrets);
        }
        context
    }
}

/// Returns a document for a machine, or nothing when there is no template for it.
///
/// # Errors
///
/// When the template cannot be read, asks for what there is not or not for this asker, or goes beyond a bound.
pub fn document(
    dir: Option<&Path>,
    document: Document,
    asker: &Asker<'_>,
) -> Result<Option<String>, TemplateError> {
    let found = match dir {
        Some(dir) => {
            let image = asker.settings.image.as_ref().map(|said| &said.value);
            find::template(dir, document, &asker.machine.spec.name, image)?
        }
        None => None,
    };
    let (name, text) = match (found, document.default_template()) {
        (Some(found), _) => found,
        (None, Some(text)) => (document.template().to_owned(), text.to_owned()),
        (None, None) => return Ok(None),
    };
    let rendered = render::render(&name, &text, &asker.context(), asker.proven)?;
    if document == Document::Ignition
        && let Err(source) = serde_json::from_str::<serde::de::IgnoredAny>(&rendered)
    {
        return Err(TemplateError::NotJson { name, source });
    }
    Ok(Some(rendered))
}

/// Returns one value of a machine's metadata by the names on the way to it: text as it is, a map as the list of its
/// keys, everything else as JSON. Secrets are not there for those who have not proved to be the machine.
pub fn value<'a>(asker: &Asker<'_>, path: impl Iterator<Item = &'a str>) -> Option<String> {
    let (mut at, secrets) = asker.metadata();
    if let (Some(secrets), Some(map)) = (secrets, at.as_object_mut())
        && (asker.settings.metadata.contains_key(SECRETS) || !asker.secrets.is_empty())
    {
        map.insert(SECRETS.to_owned(), secrets);
    }
    for key in path.filter(|key| !key.is_empty()) {
        at = match at {
            Value::Object(mut map) => map.remove(key)?,
            Value::Array(mut list) => {
                let index = key.parse().ok().filter(|index| *index < list.len())?;
                list.swap_remove(index)
            }
            _ => return None,
        };
    }
    Some(match at {
        Value::String(text) => text,
        Value::Object(map) => map.into_iter().map(|(key, _)| key + "\n").collect(),
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests;
