//! The log has the same field for the same thing everywhere: each field that any part of Kiln writes is one of those of
//! which docs/observe.md tells.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The macros that write to the log.
const MACROS: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];

/// Returns the fields of each line that a source writes to the log, with the number of its line in the source.
fn fields(source: &str) -> Vec<(usize, String)> {
    // What tests write is nobody's log.
    let source = source.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut found = Vec::new();
    for name in MACROS {
        for (at, _) in source.match_indices(name) {
            let before = source[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let line = source[..at].matches('\n').count() + 1;
            let parts = arguments(&source[at + name.len()..]);
            // What comes behind the message is put into it.
            let fields = parts.iter().take_while(|part| !part.starts_with('"'));
            found.extend(fields.map(|part| (line, field(part))));
        }
    }
    found
}

/// Splits what stands between the brackets of a macro at its commas.
fn arguments(text: &str) -> Vec<String> {
    let (mut parts, mut depth, mut quoted, mut escaped) = (vec![String::new()], 1, false, false);
    for c in text.chars() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 1 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        parts.last_mut().unwrap().push(c);
    }
    let parts = parts.iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

/// Returns the name of a field: `name = value`, or a variable of that name.
fn field(part: &str) -> String {
    let name = part.split_once('=').map_or(part, |(name, _)| name);
    name.trim().trim_start_matches(['%', '?']).to_owned()
}

/// Returns the names in the first column of the table of fields.
fn documented() -> BTreeSet<String> {
    let page = include_str!("../../../docs/observe.md");
    let table = page.split("| field | what it is |").nth(1).unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|') || line.is_empty());
    rows.filter_map(|row| row.split('|').nth(1))
        .flat_map(|names| names.split('`').skip(1).step_by(2))
        .map(str::to_owned)
        .collect()
}

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name == "tests" || name == "tests.rs" || name.ends_with("_tests.rs") {
            continue;
        }
        if path.is_dir() {
            sources(&path, found);
        } else if name.ends_with(".rs") {
            found.push(path);
        }
    }
}

#[test]
fn the_fields_of_a_line_are_found_in_its_source() {
    let source = r#"
fn f() {
    tracing::info!(machine = name, %peer, ?kind, boot = id.0, "a, b = {}", other);
    warn!(
        error = &error as &dyn Error, took_ms = f(a, "\", x"),
        "it is so"
    );
    debug!("nothing");
    my_error!(field, "no log");
}
#[cfg(test)]
mod tests {
    fn t() { tracing::info!(anything, "of a test"); }
}"#;
    let mut names = fields(source);
    names.sort();
    let names: Vec<(usize, &str)> =
        names.iter().map(|(line, name)| (*line, name.as_str())).collect();
    let expected =
        [(3, "boot"), (3, "kind"), (3, "machine"), (3, "peer"), (4, "error"), (4, "took_ms")];
    assert_eq!(names, expected);
}

#[test]
fn every_field_of_the_log_is_one_that_the_documentation_names() {
    let documented = documented();
    assert!(documented.contains("machine") && documented.contains("error"), "{documented:?}");
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mut files = Vec::new();
    for part in ["netboot/src", "inventory/src", "builder/src", "ipxe/src"] {
        sources(&top.join(part), &mut files);
    }
    let mut used = BTreeSet::new();
    let mut strange = Vec::new();
    for file in files {
        for (line, name) in fields(&std::fs::read_to_string(&file).unwrap()) {
            if !documented.contains(&name) {
                let file = file.strip_prefix(top).unwrap().display();
                strange.push(format!("{file}:{line}: `{name}`"));
            }
            used.insert(name);
        }
    }
    assert!(strange.is_empty(), "docs/observe.md has no such fields:\n{}", strange.join("\n"));
    let unused: Vec<&String> = documented.difference(&used).collect();
    assert!(unused.is_empty(), "docs/observe.md has fields that nothing writes: {unused:?}");
}
