//! `kiln completions`, and what shells ask for: how a line goes on, with names as the server has them now.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use serde_json::Value;

use super::client::Client;
use super::named::{Named, named};
use super::table::plain;
use super::{Cli, ClientArgs, Failure, Output, print};

/// By this variable a shell says that it wants to know how a line goes on.
const VARIABLE: &str = "KILN_COMPLETE";
/// Nobody waits longer for names.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most names that are offered.
const MOST: usize = 2000;

/// Print what makes a shell complete command lines, with live names of what the server knows
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  kiln completions bash > /etc/bash_completion.d/kiln
  kiln completions zsh > /usr/local/share/zsh/site-functions/_kiln
  kiln completions fish > ~/.config/fish/completions/kiln.fish

The shell asks kiln itself, and kiln the server that it would talk to; where that is away there are no names.")]
pub struct CompletionsArgs {
    shell: Shell,
}

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    const fn name(self) -> &'static str {
        match self {
            Self::Bash => "bash",
            Self::Zsh => "zsh",
            Self::Fish => "fish",
        }
    }
}

pub(super) fn run(args: &CompletionsArgs) -> Result<(), Failure> {
    print::say(script(args.shell)?.trim_end())
}

fn script(shell: Shell) -> Result<String, Failure> {
    let shells = Shells::builtins();
    let name = shell.name();
    let shell = shells.completer(name).ok_or_else(|| anyhow!("no completions for {name}"))?;
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, "kiln", "kiln", "kiln", &mut script)?;
    Ok(String::from_utf8(script)?)
}

/// Answers a shell that asks how a command line goes on, and ends. Does nothing where none asks.
pub fn answer() {
    if std::env::var_os(VARIABLE).is_some() {
        let factory = || completing(Cli::command(), live);
        CompleteEnv::with_factory(factory).var(VARIABLE).bin("kiln").complete();
    }
}

/// Says where names are, and a word about each.
type Source = fn(Named) -> Vec<(String, String)>;

/// Lets every word of the command line that names something be completed.
fn completing(command: Command, source: Source) -> Command {
    command.mut_subcommands(|noun| within(noun, &[], source))
}

fn within(command: Command, above: &[String], source: Source) -> Command {
    let words = [above, &[command.get_name().to_owned()]].concat();
    let command = command.mut_args(|arg| match named(&words, &arg) {
        Some(named) => {
            arg.add(ArgValueCompleter::new(move |word: &OsStr| offer(word, named, source)))
        }
        None => arg,
    });
    command.mut_subcommands(|verb| within(verb, &words, source))
}

/// Offers the names that begin as the word does; in a list of machines or labels, those that go on behind the last comma.
fn offer(word: &OsStr, named: Named, source: Source) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else { return Vec::new() };
    let (before, last) = match (named, word.rfind(',')) {
        (Named::Machine | Named::Label, Some(comma)) => word.split_at(comma + 1),
        _ => ("", word),
    };
    let names = source(named).into_iter().filter(|(name, _)| name.starts_with(last)).take(MOST);
    names
        .map(|(name, help)| {
            let help = plain(&help);
            let help = (!help.is_empty()).then(|| help.into());
            CompletionCandidate::new(format!("{before}{}", plain(&name))).help(help)
        })
        .collect()
}

/// Asks the server. One that is away, or refuses, has no names.
fn live(named: Named) -> Vec<(String, String)> {
    let Some(path) = named.path() else { return named.words() };
    let line: Vec<String> =
        std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let client = Client::new(&server(&line));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map(|runtime| {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, client.get::<Value>(path)).await })
    });
    match answer {
        Ok(Ok(Ok(answer))) => named.names(&answer),
        _ => Vec::new(),
    }
}

/// Returns which server the line would talk to.
fn server(line: &[String]) -> ClientArgs {
    let said = |option: &str, variable: &str| {
        let mut words = line.iter();
        let found = words.find_map(|word| match word.strip_prefix(option) {
            Some("") => Some(None),
            Some(rest) => rest.strip_prefix('=').map(|value| Some(value.to_owned())),
            None => None,
        });
        let value = found.map(|value| value.or_else(|| words.next().cloned()));
        value.flatten().or_else(|| std::env::var(variable).ok())
    };
    ClientArgs {
        socket: said("--socket", "KILN_SOCKET").map(PathBuf::from),
        server: said("--server", "KILN_SERVER"),
        token_file: said("--token-file", "KILN_TOKEN_FILE").map(PathBuf::from),
        ca: said("--ca", "KILN_CA").map(PathBuf::from),
        output: Output::Json,
        no_headers: false,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::ffi::OsString;

    use super::*;

    fn fake(named: Named) -> Vec<(String, String)> {
        let names: &[&str] = match named {
            Named::Machine => &["n1", "n2", "web\u{1b}[2J"],
            Named::Group => &["racks"],
            Named::Image => &["web", "web:stable"],
            Named::Boot => &["17"],
            Named::Token => &["ci"],
            Named::User => &["eve"],
            Named::Lease => &["10.0.0.7"],
            Named::Discovered => &["3"],
            Named::Webhook => &["chat"],
            Named::Rule => &["racks-arm"],
            Named::Expected => &["n9"],
            Named::Secret => &["ssh_host_key"],
            Named::Label => &["rack", "rack=r1", "role=db"],
            Named::Noun | Named::Scope => return named.words(),
        };
        names.iter().map(|name| ((*name).to_owned(), "more".to_owned())).collect()
    }

    fn complete(line: &[&str]) -> Vec<String> {
        let mut command = completing(Cli::command(), fake);
        let words: Vec<OsString> =
            ["kiln"].iter().chain(line).map(|word| OsString::from(*word)).collect();
        let last = words.len() - 1;
        let found = clap_complete::engine::complete(&mut command, words, last, None).unwrap();
        let words = found.iter().map(|it| it.get_value().to_string_lossy().into_owned());
        words.filter(|word| !word.starts_with('-')).collect()
    }

    #[test]
    fn every_noun_has_its_live_names() {
        let mut with_names = BTreeSet::new();
        for (line, expected) in [
            (&["machine", "show", "n"][..], &["n1", "n2"][..]),
            (&["machine", "reboot", "n1,n"], &["n1,n1", "n1,n2"]),
            (&["machine", "set", "w"], &["web[2J"]),
            (&["machine", "merge", "n1", "n"], &["n1", "n2"]),
            (&["machine", "set", "n1", "--image", "web:"], &["web:stable"]),
            (&["boot", "list", "n2"], &["n2"]),
            (&["boot", "show", "1"], &["17"]),
            (&["group", "remove", ""], &["racks"]),
            (&["group", "add", "r"], &[]),
            (&["image", "show", "web:"], &["web:stable"]),
            (&["token", "revoke", ""], &["ci"]),
            (&["user", "passwd", ""], &["eve"]),
            (&["lease", "release", "10"], &["10.0.0.7"]),
            (&["discovery", "approve", ""], &["3"]),
            (&["discovery", "merge", "3", "n"], &["n1", "n2"]),
            (&["secret", "list", "--group", ""], &["racks"]),
            (&["secret", "set", "n"], &["n1", "n2"]),
            (&["secret", "set", "n1", ""], &["ssh_host_key"]),
            (&["secret", "remove", "n1", "s"], &["ssh_host_key"]),
            (&["machine", "ret"], &["retire"]),
            (&["machine", "list", "-l", "rack="], &["rack=r1"]),
            (&["machine", "reboot", "--selector", "rack,ro"], &["rack,role=db"]),
            (&["group", "set", "racks", "--selector", "rack"], &["rack", "rack=r1"]),
            (&["token", "create", "t", "--scope", "machine:"], &["machine:read", "machine:write"]),
            (&["token", "create", "t", "--scope", "read,audit"], &["read,audit:read"]),
            (&["user", "add", "u", "--scope", "adm"], &["admin"]),
            (&["webhook", "show", ""], &["chat"]),
            (&["webhook", "test", "c"], &["chat"]),
            (&["webhook", "log", "c"], &["chat"]),
            (&["webhook", "remove", "c"], &["chat"]),
            (&["webhook", "add", "c"], &[]),
            (&["webhook", "add", "c", "https://c", "--event", "boo"], &["boot"]),
            (&["discovery", "rule", "show", ""], &["racks-arm"]),
            (&["discovery", "rule", "test", "r"], &["racks-arm"]),
            (&["discovery", "rule", "remove", "r"], &["racks-arm"]),
            (&["discovery", "rule", "add", "x", "--selector", "r"], &[]),
            (&["discovery", "expected", "remove", "n"], &["n9"]),
            (&["events", "--noun", "boot,mach"], &["boot,machine"]),
            (&["events", "--name", "n"], &["n1", "n2"]),
            (&["audit", "list", "--noun", "acc"], &["access"]),
            (&["audit", "list", "--name", "n"], &["n1", "n2"]),
            (&["top", "n"], &["n1", "n2"]),
        ] {
            assert_eq!(complete(line), expected, "{line:?}");
            with_names.insert(line[0].to_owned());
        }
        let mut kiln = Cli::command();
        kiln.build();
        for noun in kiln.get_subcommands().map(|noun| noun.get_name().to_owned()) {
            let named = with_names.contains(&noun);
            assert!(named != NAMELESS.contains(&&*noun), "kiln {noun}: which names has it?");
        }
    }

    /// Commands that are told no name of anything that a server knows.
    const NAMELESS: [&str; 16] = [
        "apply",
        "backup",
        "build",
        "ca",
        "completions",
        "config",
        "demo",
        "diff",
        "doctor",
        "export",
        "help",
        "import",
        "key",
        "serve",
        "simulate",
        "support-bundle",
    ];

    #[test]
    fn a_server_that_is_away_has_no_names_and_says_nothing() {
        assert_eq!(live(Named::Machine), []);
    }

    #[test]
    fn the_server_is_the_one_that_the_line_names() {
        let line = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let here = server(&line(&["kiln", "machine", "list", "--socket", "/s"]));
        assert_eq!(here.socket, Some(PathBuf::from("/s")));
        let there = server(&line(&["kiln", "--server=https://k:1", "--token-file", "t", "--ca"]));
        assert_eq!(there.server.as_deref(), Some("https://k:1"));
        assert_eq!((there.token_file, there.ca), (Some("t".into()), None));
    }

    #[test]
    fn each_shell_has_a_script_that_asks_kiln() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("kiln"), "{script}");
        }
    }
}
