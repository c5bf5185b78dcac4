//! Manual pages of files, of what their JSON schemas say: each kind of object has a section, in the order in which the
//! file comes to it.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::man_tests::escaped;

/// A page that is to be made.
pub(super) struct FilePage {
    pub(super) name: &'static str,
    pub(super) about: &'static str,
    /// What the schema does not say.
    pub(super) words: &'static str,
    pub(super) schema: &'static str,
    pub(super) see: &'static str,
}

/// The files that have a page.
pub(super) const FILES: [FilePage; 2] = [
    FilePage {
        name: "kiln-inventory",
        about: "files that describe machines, groups and discovery rules",
        words: "Files of kiln apply, kiln diff and kiln export, and of [inventory] files in kiln.toml: YAML or TOML, as many as \
                there are in a directory. A list may go on in another file.",
        schema: include_str!("../../../config/schema/inventory.json"),
        see: "\\fBkiln\\-apply\\fR(1), \\fBkiln\\-diff\\fR(1), \\fBkiln\\-export\\fR(1), \\fBkiln.toml\\fR(5)",
    },
    FilePage {
        name: "kiln-image",
        about: "specification of an image",
        words: "A file of YAML that kiln build makes an image of, in the format of LinuxKit. Several files are laid one over \
                the other.",
        schema: include_str!("../../../config/schema/image.json"),
        see: "\\fBkiln\\-build\\fR(1), \\fBkiln\\-image\\fR(1)",
    },
];

impl FilePage {
    pub(super) fn parsed(&self) -> Value {
        serde_json::from_str(self.schema).unwrap()
    }

    pub(super) fn page(&self) -> String {
        let schema = self.parsed();
        let name = escaped(self.name);
        let mut page = format!(
            ".TH {name} 5 \"\" \"Kiln\" \"Kiln\"\n.SH NAME\n{name} \\- {}\n.SH DESCRIPTION\n{}\n.SH KEYS\n{}\n",
            self.about,
            escaped(self.words),
            text(&schema),
        );
        body(&schema, &mut page);
        for def in order(&schema) {
            let _ = writeln!(page, ".SH \"{}\"", escaped(&words(&def).to_uppercase()));
            if let Some(schema) = schema.pointer(&format!("/$defs/{def}")) {
                let _ = writeln!(page, "{}", text(schema));
                body(schema, &mut page);
            }
        }
        let _ = writeln!(page, ".SH \"SEE ALSO\"\n{}", self.see);
        page
    }
}

/// Writes the keys of an object, or what a value may be instead.
fn body(schema: &Value, page: &mut String) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let needed = if required.contains(&key.as_str()) { ", required" } else { "" };
        let (key, kind) = (escaped(key), kind(value));
        let _ = writeln!(page, ".TP\n\\fB{key}\\fR ({kind}{needed})\n{}", text(value));
        let items = &value["items"];
        for object in [value, items].into_iter().chain(choices(value)).chain(choices(items)) {
            keys_within(object, page);
        }
    }
    for choice in choices(schema) {
        let _ = writeln!(page, ".TP\n{}\n{}", kind(choice), text(choice));
        keys_within(choice, page);
    }
    if schema["properties"].is_null() && choices(schema).is_empty() {
        let _ = writeln!(page, ".PP\nIt is written as {}.", kind(schema));
    }
}

/// Writes the keys of an object that has no name of its own.
fn keys_within(schema: &Value, page: &mut String) {
    if schema["properties"].is_object() {
        page.push_str(".RS\n");
        body(schema, page);
        page.push_str(".RE\n");
    }
}

/// Returns what a value may be, where there is a choice.
fn choices(schema: &Value) -> Vec<&Value> {
    let all = ["oneOf", "anyOf"].into_iter().filter_map(|key| schema[key].as_array());
    let mut found = Vec::new();
    for choice in all.flatten().filter(|it| it["type"] != "null") {
        match choices(choice) {
            within if within.is_empty() => found.push(choice),
            within => found.extend(within),
        }
    }
    found
}

/// Says what a key is for, by its own words or those of what it may be.
fn text(schema: &Value) -> String {
    let own = schema["description"].as_str();
    // Where there is but one choice, its words are those of the key.
    let own = own.or_else(|| match choices(schema).as_slice() {
        [only] => only["description"].as_str(),
        _ => None,
    });
    let mut lines: Vec<String> = own.map(escaped).into_iter().collect();
    if let Some(examples) = schema["examples"].as_array() {
        let examples: Vec<String> = examples.iter().map(plain).collect();
        lines.push(format!("As {}.", escaped(&examples.join(", "))));
    }
    if schema["deprecated"] == true {
        lines.push("An old way to write it.".to_owned());
    }
    // A line has to be there.
    if lines.is_empty() { "\\&".to_owned() } else { lines.join("\n") }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Says how a value is written.
fn kind(schema: &Value) -> String {
    if let Some(def) = schema["$ref"].as_str() {
        let def = def.rsplit('/').next().unwrap_or_default();
        return format!("\\fI{}\\fR", escaped(&words(def)));
    }
    if let Some(word) = schema.get("const") {
        return format!("\\fB{}\\fR", escaped(&plain(word)));
    }
    if let Some(all) = schema["enum"].as_array() {
        let all: Vec<String> = all.iter().map(plain).collect();
        return escaped(&all.join(" | "));
    }
    let several: Vec<String> = choices(schema).into_iter().map(kind).collect();
    if !several.is_empty() {
        return several.join(" or ");
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => vec!["any value"],
    };
    let types = types.into_iter().filter(|it| *it != "null").map(|it| match it {
        "array" => format!("list of {}", kind(&schema["items"])),
        "object" if schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        "object" => "map".to_owned(),
        "integer" => "whole number".to_owned(),
        "boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    });
    types.collect::<Vec<_>>().join(" or ")
}

/// Returns the words of a kind of object: `ContainerSpec` is a container.
fn words(def: &str) -> String {
    let def = def.strip_suffix("Spec").unwrap_or(def);
    let def = def.strip_prefix("New").unwrap_or(def);
    let mut words = String::new();
    for c in def.chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    words
}

/// Returns the kinds of objects in the order in which the file comes to them.
fn order(schema: &Value) -> Vec<String> {
    fn walk(value: &Value, defs: &Map<String, Value>, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                let def = map.get("$ref").and_then(Value::as_str);
                if let Some(def) = def.and_then(|def| def.rsplit('/').next())
                    && !found.iter().any(|it| it == def)
                {
                    found.push(def.to_owned());
                    if let Some(schema) = defs.get(def) {
                        walk(schema, defs, found);
                    }
                }
                map.iter()
                    .filter(|(key, _)| *key != "$defs")
                    .for_each(|(_, it)| walk(it, defs, found));
            }
            Value::Array(list) => list.iter().for_each(|it| walk(it, defs, found)),
            _ => {}
        }
    }
    let empty = Map::new();
    let mut found = Vec::new();
    walk(schema, schema["$defs"].as_object().unwrap_or(&empty), &mut found);
    found
}

/// Returns every key that an object of the schema has, wherever it is.
fn keys(value: &Value, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let properties = map.get("properties").and_then(Value::as_object);
            found.extend(properties.into_iter().flatten().map(|(key, _)| key.clone()));
            map.values().for_each(|it| keys(it, found));
        }
        Value::Array(list) => list.iter().for_each(|it| keys(it, found)),
        _ => {}
    }
}

#[test]
fn every_key_of_a_schema_is_in_the_page_of_its_file_with_what_it_is_for() {
    for file in &FILES {
        let page = file.page();
        let (mut all, schema) = (Vec::new(), file.parsed());
        keys(&schema, &mut all);
        assert!(all.len() > 30, "{}: {}", file.name, all.len());
        for key in all {
            assert!(
                page.contains(&format!(".TP\n\\fB{}\\fR (", escaped(&key))),
                "{}: {key}",
                file.name
            );
        }
        let lines: Vec<&str> = page.lines().collect();
        // An architecture needs no word about it.
        let is_arch = |line: &str| line.contains("\\fBarm64") || line.contains("\\fBx86_64");
        let bare = lines
            .windows(2)
            .find(|two| two[0].ends_with(')') && two[1] == "\\&" && !is_arch(two[0]));
        assert_eq!(bare, None, "{}: a key without a word about it", file.name);
    }
}

#[test]
fn what_a_schema_says_of_a_value_is_said_in_words() {
    let schema = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (text, expected) in [
        (r#"{"type": ["string", "null"]}"#, "string"),
        (
            r##"{"type": "array", "items": {"$ref": "#/$defs/BindNsSpec"}}"##,
            "list of \\fIbind ns\\fR",
        ),
        (
            r#"{"type": "object", "additionalProperties": {"type": "integer"}}"#,
            "map to whole number",
        ),
        (r##"{"oneOf": [{"$ref": "#/$defs/NewMachine"}, {"type": "null"}]}"##, "\\fImachine\\fR"),
        (r#"{"enum": ["net", "disk-1"]}"#, "net | disk\\-1"),
        (r#"{"const": "cpio"}"#, "\\fBcpio\\fR"),
        ("true", "any value"),
    ] {
        assert_eq!(kind(&schema(text)), expected, "{text}");
    }
}
