//! The JSON schema of specifications (draft 2020-12), for editors.

use schemars::{Schema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::Spec;

/// Keys of limits that LinuxKit reads in lower case only, and their right form.
const LOWER_CASE: [&str; 18] = [
    "blockIO",
    "checkBeforeUpdate",
    "classID",
    "containerID",
    "disableOOMKiller",
    "hostID",
    "hugepageLimits",
    "kernelTCP",
    "leafWeight",
    "pageSize",
    "realtimePeriod",
    "realtimeRuntime",
    "throttleReadBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteBpsDevice",
    "throttleWriteIOPSDevice",
    "useHierarchy",
    "weightDevice",
];

impl Spec {
    /// Returns the JSON schema of specifications.
    pub fn json_schema() -> Schema {
        let mut schema =
            SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<Self>();
        schema.insert("title".to_owned(), "Kiln image specification".into());
        if let Some(definitions) = schema.get_mut("$defs").and_then(Value::as_object_mut) {
            definitions.values_mut().for_each(other_keys);
        }
        schema
    }
}

/// Adds what is accepted beside the names of the fields.
fn other_keys(definition: &mut Value) {
    let Some(properties) = definition.get_mut("properties").and_then(Value::as_object_mut) else {
        return;
    };
    for key in LOWER_CASE {
        if let Some(mut value) = properties.get(key).cloned() {
            if let Some(value) = value.as_object_mut() {
                value.insert("deprecated".to_owned(), json!(true));
            }
            properties.insert(key.to_ascii_lowercase(), value);
        }
    }
    // Either form will do, so neither can be required; the reader says when both are missing.
    if let Some(required) = definition.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|key| !key.as_str().is_some_and(|key| LOWER_CASE.contains(&key)));
    }
}
