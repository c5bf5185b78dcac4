//! `kiln completions`, and what shells ask for: names of machines, groups, images and boots as the server has them now.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Arg, Args, Command, CommandFactory as _, ValueEnum};
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use serde_json::Value;

use super::client::Client;
use super::table::plain;
use super::{Cli, ClientArgs, Failure, Output, print};
use crate::settings::DEFAULT_SOCKET;

/// By this variable a shell says that it wants to know how a line goes on.
const VARIABLE: &str = "KILN_COMPLETE";
/// Nobody waits longer for names.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most names that are offered.
const MOST: usize = 2000;

/// Print what makes a shell complete command lines, with live names of machines, groups, images and boots
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

/// What a word of a command line names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Machine,
    Group,
    Image,
    Boot,
    Token,
    User,
    Lease,
    Discovered,
}

/// Says where names are, and a word about each.
type Source = fn(Named) -> Vec<(String, String)>;

/// Lets every word of the command line that names something be completed.
fn completing(command: Command, source: Source) -> Command {
    command.mut_subcommands(|noun| {
        let name = noun.get_name().to_owned();
        within(noun, &name, source)
    })
}

fn within(command: Command, noun: &str, source: Source) -> Command {
    let verb = command.get_name().to_owned();
    let command = command.mut_args(|arg| match named(noun, &verb, &arg) {
        Some(named) => {
            arg.add(ArgValueCompleter::new(move |word: &OsStr| offer(word, named, source)))
        }
        None => arg,
    });
    command.mut_subcommands(|verb| within(verb, noun, source))
}

/// Says what an argument names, by where it is and what it is called.
fn named(noun: &str, verb: &str, arg: &Arg) -> Option<Named> {
    let is_value = arg.get_value_names().and_then(|names| names.first());
    let is_machine = is_value.is_some_and(|name| name.as_str() == "MACHINE");
    Some(match (noun, arg.get_id().as_str()) {
        // A new name is nobody's yet.
        (_, "name") if matches!(verb, "add" | "create") => return None,
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

/// Offers the names that begin as the word does; in a list of machines, those that go on behind the last comma.
fn offer(word: &OsStr, named: Named, source: Source) -> Vec<CompletionCandidate> {
    let Some(word) = word.to_str() else { return Vec::new() };
    let (before, last) = match (named, word.rfind(',')) {
        (Named::Machine, Some(comma)) => word.split_at(comma + 1),
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
    let line: Vec<String> =
        std::env::args_os().filter_map(|word| word.into_string().ok()).collect();
    let client = Client::new(&server(&line));
    let path = match named {
        Named::Machine => "/api/v1/machines?fields=name,image",
        Named::Group => "/api/v1/groups",
        Named::Image => "/api/v1/images",
        Named::Boot => "/api/v1/boots?limit=50&verdict=false",
        Named::Token => "/api/v1/tokens",
        Named::User => "/api/v1/users",
        Named::Lease => "/api/v1/leases",
        Named::Discovered => "/api/v1/discovery",
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let answer = runtime.map(|runtime| {
        runtime.block_on(async { tokio::time::timeout(PATIENCE, client.get::<Value>(path)).await })
    });
    match answer {
        Ok(Ok(Ok(answer))) => names(named, &answer),
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
        socket: said("--socket", "KILN_SOCKET")
            .map_or_else(|| DEFAULT_SOCKET.into(), PathBuf::from),
        server: said("--server", "KILN_SERVER"),
        token_file: said("--token-file", "KILN_TOKEN_FILE").map(PathBuf::from),
        ca: said("--ca", "KILN_CA").map(PathBuf::from),
        output: Output::Json,
        no_headers: false,
    }
}

/// Finds the names in an answer.
fn names(named: Named, answer: &Value) -> Vec<(String, String)> {
    let word = |item: &Value, pointer: &str| match item.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    if named == Named::Image {
        let mut found = Vec::new();
        for (image, arches) in answer.get("images").and_then(Value::as_object).into_iter().flatten()
        {
            found.push((image.clone(), String::new()));
            let arches = arches.as_object().into_iter().flat_map(|arches| arches.values());
            for channels in arches.filter_map(|arch| arch.get("channels")?.as_object()) {
                found.extend(channels.keys().map(|it| (format!("{image}:{it}"), String::new())));
            }
        }
        found.sort();
        found.dedup();
        return found;
    }
    let (name, help) = match named {
        Named::Machine => ("/name", "/image"),
        Named::Group => ("/group/name", "/group/selector"),
        Named::Boot => ("/id", "/machine_name"),
        Named::Lease => ("/address", "/machine"),
        Named::Discovered => ("/id", "/vendor"),
        _ => ("/name", ""),
    };
    let items = answer.as_array().into_iter().flatten();
    let pair = |item: &Value| {
        let help = if help.is_empty() { String::new() } else { word(item, help) };
        (word(item, name), help)
    };
    items.map(pair).filter(|(name, _)| !name.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use serde_json::json;

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
            (&["machine", "ret"], &["retire"]),
        ] {
            assert_eq!(complete(line), expected, "{line:?}");
        }
    }

    #[test]
    fn a_server_that_is_away_has_no_names_and_says_nothing() {
        assert_eq!(live(Named::Machine), []);
    }

    #[test]
    fn the_server_is_the_one_that_the_line_names() {
        let line = |words: &[&str]| words.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        let here = server(&line(&["kiln", "machine", "list", "--socket", "/s"]));
        assert_eq!(here.socket, PathBuf::from("/s"));
        let there = server(&line(&["kiln", "--server=https://k:1", "--token-file", "t", "--ca"]));
        assert_eq!(there.server.as_deref(), Some("https://k:1"));
        assert_eq!((there.token_file, there.ca), (Some("t".into()), None));
    }

    #[test]
    fn names_are_found_in_what_the_server_answers() {
        let images = json!({"images": {"web": {"x86_64": {"channels": {"stable": "d", "edge": "d"}},
            "arm64": {"channels": {"stable": "d"}}}}});
        let found: Vec<String> =
            names(Named::Image, &images).into_iter().map(|(name, _)| name).collect();
        assert_eq!(found, ["web", "web:edge", "web:stable"]);
        let boots = json!([{"id": 7, "machine_name": "n1"}, {}]);
        assert_eq!(names(Named::Boot, &boots), [("7".to_owned(), "n1".to_owned())]);
        assert_eq!(names(Named::Group, &json!("what")), []);
    }

    #[test]
    fn each_shell_has_a_script_that_asks_kiln() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell).unwrap();
            assert!(script.contains(VARIABLE) && script.contains("kiln"), "{script}");
        }
    }
}
