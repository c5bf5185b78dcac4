//! The schema that editors complete from is the one of the types, and takes what they take.

use std::path::Path;

use serde_json::{Value, json};

use super::corpus::{EVERYTHING, files};
use super::*;

#[test]
fn the_schema_that_is_shipped_is_that_of_the_types() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../config/schema/image.json");
    let schema = serde_json::to_string_pretty(&Spec::json_schema()).unwrap() + "\n";
    if std::env::var_os("KILN_UPDATE").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &schema).unwrap();
    }
    let shipped = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        shipped == schema,
        "config/schema/image.json is out of date: test with KILN_UPDATE=1 to write it anew"
    );
}

/// Checks a value against the part of JSON Schema that the schema uses, and fails at words beyond it.
fn check(root: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else {
        return if *schema == json!(true) {
            Ok(())
        } else {
            Err(format!("{at}: nothing can be here"))
        };
    };
    let fail = |what: String| Err(format!("{at}: {value} {what}"));
    for (word, rule) in schema {
        match word.as_str() {
            "$ref" => {
                let rule = root.pointer(&rule.as_str().unwrap()[1..]).unwrap();
                check(root, rule, value, at)?;
            }
            "anyOf" | "oneOf" => {
                let good = |rule: &&Value| check(root, rule, value, at).is_ok();
                let good = rule.as_array().unwrap().iter().filter(good).count();
                if good == 0 || (word == "oneOf" && good > 1) {
                    return fail(format!("fits {good} of {rule}"));
                }
            }
            "type" => {
                let is = |kind: &Value| match kind.as_str().unwrap() {
                    "object" => value.is_object(),
                    "array" => value.is_array(),
                    "string" => value.is_string(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    "boolean" => value.is_boolean(),
                    "null" => value.is_null(),
                    other => panic!("{other}"),
                };
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                if !kinds.iter().any(is) {
                    return fail(format!("is not {rule}"));
                }
            }
            "enum" if !rule.as_array().unwrap().contains(value) => {
                return fail(format!("is not in {rule}"));
            }
            "const" if rule != value => return fail(format!("is not {rule}")),
            "minimum" if value.as_f64() < rule.as_f64() => return fail(format!("is below {rule}")),
            "maximum" if value.as_f64() > rule.as_f64() => return fail(format!("is above {rule}")),
            // The one pattern there is.
            "pattern" => {
                let word = value.as_str().unwrap_or_default().to_ascii_lowercase();
                if !["all", "none"].contains(&&*word) {
                    return fail(format!("is not like {rule}"));
                }
            }
            "items" => {
                for (n, item) in value.as_array().into_iter().flatten().enumerate() {
                    check(root, rule, item, &format!("{at}/{n}"))?;
                }
            }
            "required" => {
                for key in rule.as_array().unwrap() {
                    if value.is_object() && value.get(key.as_str().unwrap()).is_none() {
                        return fail(format!("has no {key}"));
                    }
                }
            }
            "properties" | "additionalProperties" => {
                for (key, value) in value.as_object().into_iter().flatten() {
                    let known = schema.get("properties").and_then(|known| known.get(key));
                    let rule =
                        if word == "properties" { known } else { known.is_none().then_some(rule) };
                    if let Some(rule) = rule {
                        check(root, rule, value, &format!("{at}/{key}"))?;
                    }
                }
            }
            "enum" | "const" | "minimum" | "maximum" | "$schema" | "$defs" | "title"
            | "description" | "default" | "format" | "deprecated" => {}
            other => panic!("the schema has `{other}`, which this test does not know"),
        }
    }
    Ok(())
}

fn accepts(yaml: &str) -> Result<(), String> {
    let schema = Spec::json_schema().to_value();
    let value: Value = serde_saphyr::from_str_with_options(yaml, load::options()).unwrap();
    check(&schema, &schema, &value, "")
}

#[test]
fn the_schema_accepts_what_the_reader_accepts() {
    accepts(EVERYTHING).unwrap();
    accepts(&parse("all.yml", EVERYTHING).unwrap().to_yaml().unwrap()).unwrap();
    let mut seen = 0;
    for dir in ["../config/images", "../../shared/corpus/linuxkit-yaml"] {
        for path in files(dir) {
            let text = std::fs::read_to_string(&path).unwrap();
            if parse("x.yml", &text).is_ok() {
                accepts(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                seen += 1;
            }
        }
    }
    assert!(seen > 0);
}

#[test]
fn the_schema_refuses_what_an_editor_should_underline() {
    for (yaml, text) in [
        ("kernl: {}", "/kernl: nothing can be here"),
        ("services: [{image: a}]", "/services/0: {\"image\":\"a\"} has no \"name\""),
        ("services: [{name: a, restart: sometimes}]", "/services/0/restart: "),
        ("services: [{name: a, capabilities: [NET_ADMIN]}]", "/services/0/capabilities"),
        ("kernel: {cmdline: {riscv: a}}", "/kernel/cmdline: "),
        ("files: [{path: a, metadata: xml}]", "/files/0/metadata: "),
        ("services: [{name: a, resources: {memory: {limit: 1G}}}]", "/services/0/resources"),
    ] {
        let error = accepts(yaml).unwrap_err();
        assert!(error.starts_with(text), "{error}");
    }
}

#[test]
fn every_key_has_a_description() {
    fn walk(value: &Value, at: &str, missing: &mut Vec<String>) {
        for (key, rule) in value.get("properties").and_then(Value::as_object).into_iter().flatten()
        {
            if rule.get("description").is_none() {
                missing.push(format!("{at}.{key}"));
            }
        }
    }
    let schema = Spec::json_schema().to_value();
    let mut missing = Vec::new();
    walk(&schema, "", &mut missing);
    for (name, definition) in schema["$defs"].as_object().unwrap() {
        walk(definition, name, &mut missing);
    }
    assert!(missing.is_empty(), "{missing:?}");
}
