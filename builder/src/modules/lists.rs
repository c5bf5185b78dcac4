//! The text lists of kmod (`modules.dep(5)`); sorted, so that they are the same every time.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use super::Chosen;

/// `FILE: FILES…`: all that a module needs, each before what it needs itself, so that loading starts at the end.
pub(super) fn dependencies(chosen: &BTreeMap<String, Chosen>) -> Vec<u8> {
    let mut text = String::new();
    for (name, module) in chosen {
        let mut order = Vec::new();
        visit(chosen, name, &mut BTreeSet::new(), &mut order);
        text.push_str(&module.file);
        text.push(':');
        for file in order.iter().rev().filter(|file| **file != module.file) {
            text.push(' ');
            text.push_str(file);
        }
        text.push('\n');
    }
    text.into_bytes()
}

/// Appends a module after all that it needs. The kernel has no cycles; a broken one must not hang us.
fn visit<'a>(
    chosen: &'a BTreeMap<String, Chosen>,
    name: &'a str,
    seen: &mut BTreeSet<&'a str>,
    order: &mut Vec<&'a str>,
) {
    let Some(module) = chosen.get(name).filter(|_| seen.insert(name)) else { return };
    for needed in &module.info.depends {
        visit(chosen, needed, seen, order);
    }
    order.push(&module.file);
}

/// `alias PATTERN MODULE`.
pub(super) fn aliases(chosen: &BTreeMap<String, Chosen>) -> Vec<u8> {
    let mut text = String::new();
    for (name, module) in chosen {
        for alias in &module.info.aliases {
            let _ = writeln!(text, "alias {alias} {name}");
        }
    }
    text.into_bytes()
}

/// `softdep MODULE pre: MODULES… post: MODULES…`.
pub(super) fn soft_dependencies(chosen: &BTreeMap<String, Chosen>) -> Vec<u8> {
    let mut text = String::new();
    for (name, module) in chosen {
        for line in &module.info.softdeps {
            let _ = writeln!(text, "softdep {name} {line}");
        }
    }
    text.into_bytes()
}
