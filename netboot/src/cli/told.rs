//! What a row of the log of changes says, in a few words.

use std::collections::BTreeSet;

use serde_json::Value;

/// Says which fields a change changed; of an order, a lease or a build what was asked; of a refusal why. Nothing where the
/// noun, the verb and the name say all.
pub(super) fn words(
    (noun, verb): (&str, &str),
    (before, after): (Option<&Value>, Option<&Value>),
) -> String {
    let nothing = Value::Null;
    let (before, after) = (before.unwrap_or(&nothing), after.unwrap_or(&nothing));
    match (noun, verb) {
        (_, "deny") => text(after, "/why"),
        ("order", _) => order(after),
        ("lease", "remove") => {
            join([text(before, "/machine"), text(before, "/mac"), text(before, "/duid")])
        }
        ("lease", _) => match after.pointer("/taken") {
            Some(taken) => format!("{taken} taken over"),
            None => String::new(),
        },
        ("build", _) => text(after, "/arch"),
        (_, "change") => changed(before, after),
        _ => String::new(),
    }
}

/// Writes an order as it was asked for.
fn order(after: &Value) -> String {
    let of = |field: &str| text(after, &format!("/command/{field}"));
    let program = after.pointer("/command/program").and_then(Value::as_array);
    let program = program.into_iter().flatten().filter_map(Value::as_str);
    let words = [of("kind"), of("service"), of("name"), of("image")];
    join(words.into_iter().chain(program.map(str::to_owned)))
}

/// Names the fields that a change changed.
fn changed(before: &Value, after: &Value) -> String {
    let (Some(before), Some(after)) = (before.as_object(), after.as_object()) else {
        return String::new();
    };
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let keys = keys.into_iter().filter(|key| before.get(*key) != after.get(*key));
    keys.map(String::as_str).collect::<Vec<_>>().join(", ")
}

fn text(of: &Value, pointer: &str) -> String {
    of.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn join(words: impl IntoIterator<Item = String>) -> String {
    let words: Vec<String> = words.into_iter().filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_says_what_was_asked_or_which_fields_are_others() {
        let run = json!({"id": 1, "command": {"kind": "run", "service": "web", "program": ["/bin/ls", "-l"]}});
        let kexec =
            json!({"command": {"kind": "kexec", "image": "web:stable", "version": "sha256:00"}});
        let lease = json!({"address": "10.0.0.7", "mac": "52:54:00:00:00:07", "machine": "n7"});
        let six = json!({"address": "fd00::7", "duid": "0004aabb", "iaid": 1});
        let taken = json!({"taken": 3, "skipped": 0, "addresses": ["10.0.0.7-10.0.0.9"]});
        for (noun, verb, before, after, expected) in [
            ("order", "add", None, Some(&run), "run web /bin/ls -l"),
            ("order", "add", None, Some(&kexec), "kexec web:stable"),
            ("lease", "remove", Some(&lease), None, "n7 52:54:00:00:00:07"),
            ("lease", "remove", Some(&six), None, "0004aabb"),
            ("lease", "add", None, Some(&taken), "3 taken over"),
            ("build", "add", None, Some(&json!({"arch": "arm64"})), "arm64"),
            ("build", "add", None, Some(&json!({"arch": null})), ""),
            ("access", "deny", None, Some(&json!({"why": "no token"})), "no token"),
            ("machine", "change", Some(&json!({"a": 1})), Some(&json!({"a": 2, "b": 1})), "a, b"),
            ("machine", "add", None, Some(&json!({"a": 1})), ""),
            ("machine", "change", None, Some(&json!("x")), ""),
        ] {
            assert_eq!(words((noun, verb), (before, after)), expected, "{noun} {verb}");
        }
    }
}
