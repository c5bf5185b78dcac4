//! Every noun has the same grammar: what lists goes on with `--watch`, what destroys asks first, what changes the
//! inventory can say what it would do.

use std::collections::BTreeMap;

use clap::{Command, CommandFactory as _};

use super::Cli;

/// Every verb by its words, as `machine list`, with the names of its options.
fn verbs() -> BTreeMap<String, Vec<String>> {
    fn walk(command: &Command, words: &str, found: &mut BTreeMap<String, Vec<String>>) {
        for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
            let words = format!("{words} {}", sub.get_name());
            walk(sub, &words, found);
            if !sub.has_subcommands() {
                let options = sub.get_arguments().filter_map(|arg| arg.get_long());
                let words = words.trim_start().to_owned();
                found.insert(words, options.map(str::to_owned).collect());
            }
        }
    }
    let mut kiln = Cli::command();
    kiln.build();
    let mut found = BTreeMap::new();
    walk(&kiln, "", &mut found);
    found
}

/// What a server keeps no list of that changes by itself, or shows once.
const NOT_WATCHED: [&str; 10] = [
    "ca show",
    "discovery rule show",
    "group show",
    "image show",
    "key list",
    "key show",
    "lease show",
    "user list",
    "webhook show",
    "audit list",
];
/// Verbs after which something is gone, or a machine stops what it does.
const DESTROYS: [&str; 14] = [
    "remove",
    "rm",
    "revoke",
    "release",
    "rotate",
    "merge",
    "gc",
    "restore",
    "retire",
    "reboot",
    "power-off",
    "kexec",
    "distrust",
    "apply",
];
/// Verbs that change what the inventory says.
const CHANGES: [&str; 18] = [
    "add",
    "set",
    "remove",
    "rm",
    "gc",
    "import",
    "lock",
    "unlock",
    "cordon",
    "uncordon",
    "maintenance",
    "retire",
    "unretire",
    "approve",
    "ignore",
    "unignore",
    "merge",
    "apply",
];
/// Nouns that are no part of what is described: what would be added is what was typed.
const NO_PREVIEW: [&str; 6] = ["secret ", "token ", "user ", "webhook ", "machine merge", "key "];

#[test]
fn what_lists_or_shows_what_the_server_knows_can_go_on() {
    for (words, options) in verbs() {
        let verb = words.split(' ').next_back().unwrap_or_default();
        let asks = options.iter().any(|option| option == "socket");
        if asks && matches!(verb, "list" | "show") && !NOT_WATCHED.contains(&words.as_str()) {
            assert!(options.iter().any(|option| option == "watch"), "kiln {words}: no --watch");
        }
    }
}

#[test]
fn what_destroys_asks_first() {
    for (words, options) in verbs() {
        let verb = words.split(' ').next_back().unwrap_or_default();
        if DESTROYS.contains(&verb) {
            assert!(options.iter().any(|option| option == "yes"), "kiln {words}: no --yes");
        }
    }
}

#[test]
fn what_changes_the_inventory_can_say_what_it_would_do() {
    for (words, options) in verbs() {
        let verb = words.split(' ').next_back().unwrap_or_default();
        let none = NO_PREVIEW.iter().any(|noun| words.starts_with(noun));
        if CHANGES.contains(&verb) && !none {
            assert!(options.iter().any(|option| option == "dry-run"), "kiln {words}: no --dry-run");
        }
    }
}

#[test]
fn what_talks_to_a_server_prints_in_every_form_and_can_talk_to_another_one() {
    for (words, options) in verbs() {
        let has = |name: &str| options.iter().any(|option| option == name);
        // What has no other server is about this computer: its store, its network.
        if has("server") && words != "simulate" {
            for option in ["socket", "token-file", "ca", "output"] {
                assert!(has(option), "kiln {words}: no --{option}");
            }
        }
        assert!(!has("force"), "kiln {words}: what is sure is said by --yes");
    }
}

#[test]
fn machines_are_chosen_by_lists_of_names_or_by_labels() {
    let mut kiln = Cli::command();
    kiln.build();
    let machine = kiln.find_subcommand("machine").unwrap();
    for verb in machine.get_subcommands() {
        let many = verb.get_arguments().any(|arg| {
            arg.is_positional()
                && arg.get_id() == "machines"
                && arg.get_num_args().is_some_and(|count| count.max_values() > 1)
        });
        if many {
            let labels = verb.get_arguments().any(|arg| arg.get_short() == Some('l'));
            assert!(labels, "kiln machine {}: no -l", verb.get_name());
        }
    }
    let both = "lock unlock cordon uncordon maintenance retire unretire reboot power-off kexec remove set show facts list";
    for name in both.split(' ') {
        let verb = machine.find_subcommand(name).unwrap();
        let labels = verb.get_arguments().any(|arg| arg.get_long() == Some("selector"));
        assert!(labels, "kiln machine {name}: no --selector");
    }
}
