//! What the words of a command line name, and where the names are.

use std::collections::BTreeMap;

use clap::Arg;
use serde_json::Value;

use crate::api::{NOUNS, Noun, Scope};

/// What a word of a command line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named {
    Machine,
    Group,
    Image,
    Boot,
    Token,
    User,
    Lease,
    Discovered,
    Webhook,
    Rule,
    Expected,
    Secret,
    /// Labels of machines, as `rack` or `rack=r1`.
    Label,
    /// The kinds of what events and changes are of.
    Noun,
    /// What a token may do.
    Scope,
}

/// Says what an argument names, by where it is and what it is called.
pub(super) fn named(words: &[String], arg: &Arg) -> Option<Named> {
    let (noun, below) = match words {
        [noun, below, _] => (noun.as_str(), below.as_str()),
        [noun, ..] => (noun.as_str(), ""),
        [] => ("", ""),
    };
    let verb = words.last().map_or("", String::as_str);
    let is_value = arg.get_value_names().and_then(|names| names.first());
    let is_machine = is_value.is_some_and(|name| name.as_str() == "MACHINE");
    Some(match (noun, arg.get_id().as_str()) {
        // A new name is nobody's yet, and what a rule looks at is no label.
        (_, "name") if matches!(verb, "add" | "create") => return None,
        ("discovery", "selector") => return None,
        (_, "selector") => Named::Label,
        (_, "scope") => Named::Scope,
        ("events" | "audit", "noun") | ("webhook", "event") => Named::Noun,
        ("events" | "audit", "name") => Named::Machine,
        ("secret", "owner") => Named::Machine,
        ("secret", "secret") => Named::Secret,
        ("webhook", "name") => Named::Webhook,
        ("discovery", "name") if below == "rule" => Named::Rule,
        ("discovery", "name") if below == "expected" => Named::Expected,
        _ if is_machine => Named::Machine,
        ("machine" | "discovery" | "secret", "machine" | "from") => Named::Machine,
        ("secret", "group") => Named::Group,
        ("discovery", "entry") => Named::Discovered,
        ("image", "image") | (_, "maintenance_image") => Named::Image,
        ("machine" | "group", "image" | "to") => Named::Image,
        ("group", "name") => Named::Group,
        ("boot", "boot") => Named::Boot,
        ("token", "name") => Named::Token,
        ("user", "name") => Named::User,
        ("lease", "key") => Named::Lease,
        _ => return None,
    })
}

impl Named {
    /// Returns where the server has them. Some need no server.
    pub(super) const fn path(self) -> Option<&'static str> {
        Some(match self {
            Self::Machine => "/api/v1/machines?fields=name,image",
            Self::Label => "/api/v1/machines?fields=labels",
            Self::Group => "/api/v1/groups",
            Self::Image => "/api/v1/images",
            Self::Boot => "/api/v1/boots?limit=50&verdict=false",
            Self::Token => "/api/v1/tokens",
            Self::User => "/api/v1/users",
            Self::Lease => "/api/v1/leases",
            Self::Discovered => "/api/v1/discovery",
            Self::Webhook => "/api/v1/webhooks",
            Self::Rule => "/api/v1/discovery/rules",
            Self::Expected => "/api/v1/discovery/expected",
            Self::Secret => "/api/v1/secrets",
            Self::Noun | Self::Scope => return None,
        })
    }

    /// Returns those that need no server.
    pub(super) fn words(self) -> Vec<(String, String)> {
        let words: Vec<String> = match self {
            Self::Noun => NOUNS.map(str::to_owned).to_vec(),
            Self::Scope => {
                let of =
                    |noun: Noun| ["read", "write"].map(|verb| format!("{}:{verb}", noun.as_str()));
                let all = ["admin", "read", "write"].map(str::to_owned).into_iter();
                // There is no scope for some of them.
                all.chain(Noun::ALL.into_iter().flat_map(of))
                    .filter(|word| word.parse::<Scope>().is_ok())
                    .collect()
            }
            _ => Vec::new(),
        };
        words.into_iter().map(|word| (word, String::new())).collect()
    }

    /// Finds the names in an answer, with a word about each.
    pub(super) fn names(self, answer: &Value) -> Vec<(String, String)> {
        let (name, help) = match self {
            Self::Image => return images(answer),
            Self::Label => return labels(answer),
            Self::Machine => ("/name", "/image"),
            Self::Group => ("/group/name", "/group/selector"),
            Self::Boot => ("/id", "/machine_name"),
            Self::Lease => ("/address", "/machine"),
            Self::Discovered => ("/id", "/vendor"),
            Self::Rule => ("/rule/name", "/rule/selector"),
            Self::Secret => ("/name", "/owner"),
            Self::Webhook => ("/name", "/url"),
            _ => ("/name", ""),
        };
        let items = answer.as_array().into_iter().flatten();
        let mut pairs: Vec<(String, String)> =
            items.map(|item| (word(item, name), word(item, help))).collect();
        pairs.retain(|(name, _)| !name.is_empty());
        // The same secret of many machines.
        if self == Self::Secret {
            pairs.sort();
            pairs.dedup_by(|one, other| one.0 == other.0);
        }
        pairs
    }
}

fn word(item: &Value, pointer: &str) -> String {
    match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    }
}

/// Images, and their channels.
fn images(answer: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (image, arches) in answer.get("images").and_then(Value::as_object).into_iter().flatten() {
        found.push((image.clone(), String::new()));
        let arches = arches.as_object().into_iter().flat_map(|arches| arches.values());
        for channels in arches.filter_map(|arch| arch.get("channels")?.as_object()) {
            found.extend(channels.keys().map(|it| (format!("{image}:{it}"), String::new())));
        }
    }
    found.sort();
    found.dedup();
    found
}

/// Keys of labels, and keys with their values, each with how many machines have it.
fn labels(answer: &Value) -> Vec<(String, String)> {
    let mut found: BTreeMap<String, u64> = BTreeMap::new();
    let items = answer.as_array().into_iter().flatten();
    for (key, value) in items.filter_map(|item| item.get("labels")?.as_object()).flatten() {
        *found.entry(key.clone()).or_default() += 1;
        if let Some(value) = value.as_str() {
            *found.entry(format!("{key}={value}")).or_default() += 1;
        }
    }
    let count = |count| match count {
        1 => "1 machine".to_owned(),
        many => format!("{many} machines"),
    };
    found.into_iter().map(|(label, machines)| (label, count(machines))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(named: Named, answer: &Value) -> Vec<String> {
        named.names(answer).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn names_are_found_in_what_the_server_answers() {
        let images = json!({"images": {"web": {"x86_64": {"channels": {"stable": "d", "edge": "d"}},
            "arm64": {"channels": {"stable": "d"}}}}});
        assert_eq!(found(Named::Image, &images), ["web", "web:edge", "web:stable"]);
        let boots = json!([{"id": 7, "machine_name": "n1"}, {}]);
        assert_eq!(Named::Boot.names(&boots), [("7".to_owned(), "n1".to_owned())]);
        assert_eq!(Named::Group.names(&json!("what")), []);
        let secrets = json!([{"name": "key", "owner": "n2"}, {"name": "key", "owner": "n1"}]);
        assert_eq!(Named::Secret.names(&secrets), [("key".to_owned(), "n1".to_owned())]);
        let machines =
            json!([{"labels": {"rack": "r1", "role": "db"}}, {"labels": {"rack": "r1"}}, {}]);
        let pair = |label: &str, count: &str| (label.to_owned(), count.to_owned());
        assert_eq!(
            Named::Label.names(&machines),
            [
                pair("rack", "2 machines"),
                pair("rack=r1", "2 machines"),
                pair("role", "1 machine"),
                pair("role=db", "1 machine"),
            ]
        );
    }

    #[test]
    fn a_scope_that_there_is_not_is_not_offered() {
        let scopes: Vec<String> = Named::Scope.words().into_iter().map(|(word, _)| word).collect();
        for (scope, is_there) in
            [("admin", true), ("machine:write", true), ("audit:read", true), ("token:write", false)]
        {
            assert_eq!(scopes.iter().any(|it| it == scope), is_there, "{scope}");
        }
    }
}
