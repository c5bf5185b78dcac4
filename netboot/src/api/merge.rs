//! Changes of a part (JSON merge patch, RFC 7396), and the difference of two documents field by field.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One field that changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct FieldChange {
    /// Where, as a JSON pointer.
    pub field: String,
    /// What is there now; nothing where it is new.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Value>,
    /// What would be there; nothing where it goes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// Applies a patch: `null` removes, an object is merged, anything else replaces.
pub(super) fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch {
        if value.is_null() {
            target.remove(&key);
        } else {
            merge(target.entry(key).or_insert(Value::Null), value);
        }
    }
}

/// Returns the fields in which two documents differ. Objects are looked into; lists are one value.
pub(super) fn differences(before: &Value, after: &Value) -> Vec<FieldChange> {
    let mut found = Vec::new();
    compare(String::new(), Some(before), Some(after), &mut found);
    found
}

fn compare(
    field: String,
    before: Option<&Value>,
    after: Option<&Value>,
    found: &mut Vec<FieldChange>,
) {
    if before == after {
        return;
    }
    let nothing = Map::new();
    let fields = |value: Option<&Value>| match value {
        Some(Value::Object(map)) => Some(map.clone()),
        Some(Value::Null) | None if field.is_empty() => Some(nothing.clone()),
        _ => None,
    };
    let (Some(old), Some(new)) = (fields(before), fields(after)) else {
        found.push(FieldChange { field, before: before.cloned(), after: after.cloned() });
        return;
    };
    let mut keys: Vec<&String> = old.keys().chain(new.keys()).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        let escaped = key.replace('~', "~0").replace('/', "~1");
        compare(format!("{field}/{escaped}"), old.get(key), new.get(key), found);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The examples of RFC 7396, appendix A.
    #[test]
    fn patches_are_merged_as_the_standard_shows() {
        for (target, patch, result) in [
            (json!({"a": "b"}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "b"}), json!({"b": "c"}), json!({"a": "b", "b": "c"})),
            (json!({"a": "b"}), json!({"a": null}), json!({})),
            (json!({"a": "b", "b": "c"}), json!({"a": null}), json!({"b": "c"})),
            (json!({"a": ["b"]}), json!({"a": "c"}), json!({"a": "c"})),
            (json!({"a": "c"}), json!({"a": ["b"]}), json!({"a": ["b"]})),
            (
                json!({"a": {"b": "c"}}),
                json!({"a": {"b": "d", "c": null}}),
                json!({"a": {"b": "d"}}),
            ),
            (json!({"a": [{"b": "c"}]}), json!({"a": [1]}), json!({"a": [1]})),
            (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
            (json!({"a": "b"}), json!(["c"]), json!(["c"])),
            (json!({"a": "foo"}), json!(null), json!(null)),
            (json!({"e": null}), json!({"a": 1}), json!({"e": null, "a": 1})),
            (json!([1, 2]), json!({"a": "b", "c": null}), json!({"a": "b"})),
            (json!({}), json!({"a": {"bb": {"ccc": null}}}), json!({"a": {"bb": {}}})),
        ] {
            let mut merged = target.clone();
            merge(&mut merged, patch.clone());
            assert_eq!(merged, result, "{target} {patch}");
        }
    }

    #[test]
    fn documents_differ_by_field() {
        let before = json!({"name": "n1", "macs": ["a"], "labels": {"rack": "r1", "a/b": "1"}});
        let after =
            json!({"name": "n1", "macs": ["a", "b"], "labels": {"rack": "r2"}, "image": "w"});
        let found = differences(&before, &after);
        let shown: Vec<_> = found.iter().map(|change| change.field.as_str()).collect();
        assert_eq!(shown, ["/image", "/labels/a~1b", "/labels/rack", "/macs"]);
        assert_eq!(found[1].after, None);
        assert_eq!(found[2].after, Some(json!("r2")));
        assert!(differences(&before, &before).is_empty());
        assert_eq!(differences(&Value::Null, &json!({"a": 1})).len(), 1);
    }
}
