//! The JSON schema of files, for editors; it is that of the types, as the document of the API has them.

use kiln_inventory::Wanted;
use serde_json::{Map, Value};
use utoipa::{PartialSchema as _, ToSchema as _};

/// Returns the schema.
pub fn json_schema() -> Value {
    let mut named = Vec::new();
    Wanted::schemas(&mut named);
    let definitions: Map<String, Value> = named
        .into_iter()
        .map(|(name, schema)| (name, serde_json::to_value(schema).unwrap_or_default()))
        .collect();
    let mut schema = serde_json::to_value(Wanted::schema()).unwrap_or_default();
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema".into();
    schema["title"] = "Kiln inventory".into();
    schema["$defs"] = Value::Object(definitions);
    local(&mut schema);
    schema
}

/// Makes references of the document of the API those of a schema by itself.
fn local(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if let Some(Value::String(target)) = map.get_mut("$ref") {
                *target = target.replace("#/components/schemas/", "#/$defs/");
            }
            map.values_mut().for_each(local);
        }
        Value::Array(list) => list.iter_mut().for_each(local),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_that_is_shipped_is_that_of_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/schema/inventory.json");
        let made = serde_json::to_string_pretty(&json_schema()).unwrap() + "\n";
        if std::env::var_os("KILN_UPDATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let hint = "test with KILN_UPDATE=1 to write it anew";
        let kept = std::fs::read_to_string(path).unwrap_or_default();
        assert!(kept == made, "config/schema/inventory.json is out of date: {hint}");
        let schema = json_schema();
        let mut stack = vec![&schema];
        while let Some(value) = stack.pop() {
            if let Some(target) = value.get("$ref").and_then(Value::as_str) {
                assert!(schema.pointer(target.trim_start_matches('#')).is_some(), "{target}");
            }
            match value {
                Value::Object(map) => stack.extend(map.values()),
                Value::Array(list) => stack.extend(list),
                _ => {}
            }
        }
    }
}
