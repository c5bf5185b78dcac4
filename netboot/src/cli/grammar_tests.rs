//! Every noun has the same grammar: what lists goes on with `--watch`, what destroys asks first, what changes
//! something can say what it would do.

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
/// Verbs that change nothing, whatever their noun: they read, watch, check or compute.
const READS: [&str; 14] = [
    "list",
    "show",
    "explain",
    "facts",
    "orders",
    "log",
    "logs",
    "builds",
    "events",
    "top",
    "audit verify",
    "backup verify",
    "image verify",
    "export",
];
/// What has no `--dry-run` besides, and why.
const NO_DRY_RUN: [(&str, &str); 24] = [
    ("diff", "it is the dry run of apply, and of image versions"),
    ("discovery rule test", "it is a dry run"),
    ("config check", "it only reads"),
    ("image check", "it only reads"),
    ("doctor", "it only looks"),
    ("completions", "it prints what a shell reads"),
    ("serve", "it does what its settings say; `config check` is its dry run"),
    ("demo", "it changes a network of its own, which ends with it"),
    ("simulate", "it pretends to be machines"),
    ("support-bundle", "it writes the one file that is named"),
    ("backup create", "it writes the one file that is named"),
    ("backup restore", "it fills an inventory that is empty; `backup verify` is its dry run"),
    ("webhook test", "it sends a message, which is its use"),
    ("machine reboot", "an order to a machine: nothing is kept that could be compared"),
    ("machine power-off", "as machine reboot"),
    ("machine kexec", "as machine reboot; `machine explain` says what it would boot"),
    ("machine run", "as machine reboot"),
    ("image build", "it asks a server to build now; `build --dry-run` shows what"),
    ("image sign", "it adds a signature to a version that is there"),
    ("image fetch", "it fills a cache"),
    ("image update", "it moves a lock file, which versions keep, and prints what moved"),
    ("image diff", "it only reads"),
    ("image push", "it copies versions and takes none away"),
    ("image pull", "as image push"),
];

#[test]
fn what_lists_or_shows_what_the_server_knows_can_go_on() {
    for (words, options) in verbs() {
        let verb = words.split(' ').next_back().unwrap_or_default();
        let asks = options.iter().any(|option| option == "socket");
        if asks && matches!(verb, "list" | "show") {
            // What the store of this host has; of the server only how its builds went.
            let watched = options.iter().any(|option| option == "watch") || words == "image show";
            assert!(watched, "kiln {words}: no --watch");
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
fn what_changes_something_can_say_what_it_would_do() {
    let verbs = verbs();
    let known = |words: &str| {
        let ends = |it: &&str| words == *it || words.ends_with(&format!(" {it}"));
        READS.iter().any(ends) || NO_DRY_RUN.iter().any(|(it, _)| words == *it)
    };
    for (words, options) in &verbs {
        let dry = options.iter().any(|option| option == "dry-run");
        assert!(dry || known(words), "kiln {words}: no --dry-run, and it is not said why");
        assert!(
            !(dry && known(words)),
            "kiln {words} has --dry-run, and is listed as what has none"
        );
    }
    for (words, _) in NO_DRY_RUN {
        assert!(verbs.contains_key(words), "there is no kiln {words}");
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
