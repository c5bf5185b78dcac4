//! The document of the API (OpenAPI 3.1), made from the routes.

mod headers;

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde_json::{Map, Value, json};

use super::access::Access;
use super::problem::{PROBLEM_JSON, Problem, kind};
use super::route::{Route, Shape};
use super::scope::Scope;

/// Returns the document.
pub(super) fn document(routes: &[Route]) -> Value {
    let mut schemas: BTreeMap<String, Value> = BTreeMap::new();
    schemas.insert("Problem".to_owned(), value(&<Problem as utoipa::PartialSchema>::schema()));
    let mut paths: Map<String, Value> = Map::new();
    let mut problems: Map<String, Value> = Map::new();
    for route in routes {
        problems.extend(route.refusals().map(|status| (problem_name(status), problem(status))));
        for shape in route.body.iter().chain(&route.answer).chain(&route.preview) {
            for (name, schema) in &shape.named {
                schemas.entry(name.clone()).or_insert_with(|| value(schema));
            }
        }
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_owned(), operation(route));
        }
    }
    let known = schemas.clone();
    for schema in schemas.values_mut() {
        unfold(schema, &known);
        let_repeat(schema);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kiln",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Control of a Kiln server: machines, images, boots. See docs/api.md.",
            "license": {"name": "MIT OR Apache-2.0", "identifier": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"token": {
                "type": "http", "scheme": "bearer",
                "description": "A token of `kiln token create`, or of POST /api/v1/login. \
                    On the unix socket nobody asks for one.",
            }},
            "responses": problems,
        },
    })
}

fn value(of: &impl serde::Serialize) -> Value {
    serde_json::to_value(of).unwrap_or_default()
}

/// Describes the answer that says that something went wrong.
fn problem(status: StatusCode) -> Value {
    let mut problem = json!({
        "description": kind(status).1,
        "content": {PROBLEM_JSON: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    });
    put_headers(&mut problem, headers::of_problem(status));
    problem
}

/// Names it by the word of its kind: `not-found` is `NotFound`.
fn problem_name(status: StatusCode) -> String {
    kind(status).0.split('-').map(capital).collect()
}

fn put_headers(answer: &mut Value, headers: Map<String, Value>) {
    if !headers.is_empty() {
        answer["headers"] = headers.into();
    }
}

fn operation(route: &Route) -> Value {
    let tag = route.path.trim_start_matches("/api/v1/").split('/').next().unwrap_or("api");
    let mut parameters: Vec<Value> = route
        .path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    parameters.extend(route.params.iter().cloned());
    parameters.extend(headers::of_request(route));
    let content = |shape: &Shape| {
        let content = json!({"schema": shape.schema});
        json!({shape.media: content})
    };
    let mut good = json!({"description": "Done"});
    if let Some(answer) = &route.answer {
        good["content"] = content(answer);
    }
    put_headers(&mut good, headers::of_answer(route, route.status));
    let mut operation = json!({
        "operationId": id(route),
        "summary": route.summary,
        "description": match Scope::least(route.access) {
            None => "Needs no scope.".to_owned(),
            Some(needed) => format!("Needs the scope `{needed}`."),
        },
        "tags": [tag],
        "parameters": parameters,
        "responses": {
            route.status.as_str(): good,
        },
    });
    for status in route.refusals() {
        let reference = format!("#/components/responses/{}", problem_name(status));
        operation["responses"][status.as_str()] = json!({"$ref": reference});
    }
    // What a dry run says instead.
    if let Some(preview) = &route.preview {
        let shape = match route.answer.as_ref().filter(|_| route.status == StatusCode::OK) {
            Some(answer) => {
                let schema = json!({"anyOf": [answer.schema, preview.schema]});
                Shape { schema, ..answer.clone() }
            }
            None => preview.clone(),
        };
        let description = match route.status {
            StatusCode::OK => "Done, or what would be done (`dry_run`)",
            _ => "What would be done (`dry_run`)",
        };
        let mut tried = json!({"description": description, "content": content(&shape)});
        put_headers(&mut tried, headers::of_answer(route, StatusCode::OK));
        operation["responses"]["200"] = tried;
    }
    if let Some(body) = &route.body {
        operation["requestBody"] = json!({"required": true, "content": content(body)});
    }
    if route.access == Access::Anyone {
        operation["security"] = json!([]);
    }
    operation
}

/// Names an operation by its method and the words of its path.
fn id(route: &Route) -> String {
    let words = route.path.trim_start_matches("/api/v1/").split(['/', '.', '-']);
    words.fold(route.method.to_owned(), |id, word| id + &capital(word.trim_matches(['{', '}'])))
}

/// Writes a word with a capital letter.
fn capital(word: &str) -> String {
    let mut letters = word.chars();
    let first = letters.next().map(|letter| letter.to_ascii_uppercase());
    first.into_iter().chain(letters).collect()
}

/// Lets sets be lists: what is said twice in one counts once, and is no error.
fn let_repeat(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.remove("uniqueItems");
            map.values_mut().for_each(let_repeat);
        }
        Value::Array(list) => list.iter_mut().for_each(let_repeat),
        _ => {}
    }
}

/// Makes one object of a type that has another one folded in: as parts of their own, each would refuse what belongs to
/// the other.
fn unfold(schema: &mut Value, known: &BTreeMap<String, Value>) {
    let Some(parts) = schema.get("allOf").and_then(Value::as_array).cloned() else { return };
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for mut part in parts {
        let target = part.get("$ref").and_then(Value::as_str);
        if let Some(name) = target.and_then(|target| target.rsplit('/').next()) {
            part = known.get(name).cloned().unwrap_or_default();
        }
        unfold(&mut part, known);
        if let Some(Value::Object(own)) = part.get("properties") {
            properties.extend(own.clone());
        }
        if let Some(Value::Array(own)) = part.get("required") {
            required.extend(own.iter().cloned());
        }
    }
    let mut whole = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        whole["required"] = Value::Array(required);
    }
    if let Some(description) = schema.get("description") {
        whole["description"] = description.clone();
    }
    *schema = whole;
}

#[cfg(test)]
mod tests {
    use super::super::routes::routes;
    use super::*;

    #[test]
    fn the_document_in_config_is_that_of_the_routes() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../config/openapi.json");
        let mut made = serde_json::to_string_pretty(&document(&routes())).unwrap();
        made.push('\n');
        if std::env::var_os("KILN_UPDATE").is_some() {
            std::fs::write(path, &made).unwrap();
        }
        let kept = std::fs::read_to_string(path).unwrap();
        let hint = "run KILN_UPDATE=1 cargo test -p kiln --lib api::openapi";
        assert!(kept == made, "config/openapi.json is another document; {hint}");
    }

    #[test]
    fn every_type_that_is_named_is_described_and_every_operation_has_its_own_name() {
        let mut document = document(&routes());
        let mut ids = std::collections::BTreeSet::new();
        let mut stack = vec![&document];
        while let Some(value) = stack.pop() {
            match value {
                Value::Object(map) => {
                    if let Some(Value::String(target)) = map.get("$ref") {
                        let pointer = target.trim_start_matches('#');
                        assert!(document.pointer(pointer).is_some(), "{target}");
                    }
                    if let Some(Value::String(id)) = map.get("operationId") {
                        assert!(ids.insert(id.clone()), "two operations are {id}");
                    }
                    stack.extend(map.values());
                }
                Value::Array(list) => stack.extend(list),
                _ => {}
            }
        }
        assert_eq!(ids.len(), routes().len());
        let machine = document.pointer("/components/schemas/Machine").unwrap();
        assert!(machine["properties"]["id"].is_object(), "{machine}");
        assert!(machine["properties"]["macs"].is_object(), "{machine}");
        // A schema that allows any value has no type, which utoipa writes and does not read.
        for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
            let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
            for field in fields.into_iter().flat_map(|fields| fields.values_mut()) {
                let field = field.as_object_mut().unwrap();
                if field.keys().all(|key| key == "description") {
                    field.insert("type".to_owned(), "object".into());
                }
            }
        }
        serde_json::from_value::<utoipa::openapi::OpenApi>(document).unwrap();
    }
}
