//! The command line.

#![allow(clippy::print_stdout, reason = "standard output is where answers belong")]

pub mod apply;
pub mod audit;
pub mod backup;
pub mod bakes;
pub mod boot;
mod boot_timeline;
pub mod build;
pub mod ca;
mod change;
pub mod check;
mod chosen;
mod client;
pub mod completions;
pub mod config;
mod confirm;
mod diff;
pub mod discovery;
mod discovery_apply;
#[cfg(test)]
mod discovery_end_tests;
mod discovery_many;
mod discovery_rule;
pub mod doctor;
mod efi;
#[cfg(test)]
mod end_tests;
pub mod events;
mod export;
pub mod export_files;
mod facts;
#[cfg(test)]
mod grammar_tests;
pub mod group;
pub mod image;
pub mod import;
pub mod key;
pub mod lease;
pub mod machine;
mod machine_import;
mod machine_show;
mod machine_spec;
mod machine_state;
#[cfg(test)]
mod man_schema;
#[cfg(test)]
mod man_tests;
mod named;
mod order;
mod place;
mod print;
mod remote;
pub mod secret;
pub mod secure_boot;
pub mod serve;
mod settings_args;
mod sign;
pub mod simulate;
mod sse;
pub mod support;
mod table;
pub mod token;
mod told;
pub mod top;
pub mod user;
mod watch;
pub mod webhook;

use std::fmt;
use std::io::IsTerminal as _;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde::Serialize;
use serde_json::Value;
use tracing_subscriber::util::SubscriberInitExt as _;
#[cfg(feature = "otel")]
use tracing_subscriber::{layer::SubscriberExt as _, registry::LookupSpan};

use self::place::{KeyDirArg, KeyPlaceArgs, StoreArg};
use crate::demo::DemoArgs;
use crate::settings::{DEFAULT_PATH, LogFormat, LogSettings};

/// Bakes operating-system images and boots machines into them over the network
///
/// An image is written as YAML and baked with `kiln build` into a kernel and an initrd. `kiln serve` gives it to the
/// machines that `kiln machine add` told it about, by DHCP, TFTP and HTTP. `kiln boot show` shows how each boot went.
/// `kiln demo` shows all of it on this computer, with virtual machines in a private network.
#[derive(Debug, Parser)]
#[command(
    name = "kiln",
    version,
    after_help = "Exit codes: 0 done, 1 error, 2 wrong use or not confirmed, 3 done for some, 4 not found, 5 taken already or changed meanwhile, 64 bad configuration"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Bake an image: kernel and initrd from a YAML file
    Build(build::BuildArgs),
    /// Serve DHCP, TFTP and HTTP until told to stop
    Serve(serve::ServeArgs),
    /// Machines: add, set, list, show, explain, remove; lock, cordon, maintenance, retire; reboot, power-off, kexec, logs, run, orders
    Machine(Box<machine::MachineArgs>),
    /// Groups of machines: add, list, show, set, remove
    Group(group::GroupArgs),
    /// Machines that nobody has added: list, show, approve, ignore, unignore, merge; rules for them, and machines that are expected
    Discovery(discovery::DiscoveryArgs),
    /// Boots: list, show
    Boot(boot::BootArgs),
    /// Leases: list, show, release
    Lease(lease::LeaseArgs),
    /// Images: list
    Image(image::ImageArgs),
    /// Make the inventory what files say, all of it or nothing
    Apply(apply::ApplyArgs),
    /// Show what `kiln apply` would change
    Diff(apply::DiffArgs),
    /// Write the inventory as files that `kiln apply` reads
    Export(export_files::ExportArgs),
    /// Take over machines from dnsmasq, ISC dhcpd, Kea, Warewulf or matchbox
    Import(import::ImportArgs),
    /// Tokens for the API: create, list, revoke
    Token(token::TokenArgs),
    /// Webhooks, who are told what happens: add, list, show, test, log, remove
    Webhook(webhook::WebhookArgs),
    /// Secrets of machines and groups: set, list, remove, rotate
    Secret(secret::SecretArgs),
    /// Users of the API: add, list, passwd, remove
    User(user::UserArgs),
    /// What happens: changes, boots, builds
    Events(events::EventsArgs),
    /// Machines that boot now, live
    Top(top::TopArgs),
    /// Log of changes: list, verify
    Audit(audit::AuditArgs),
    /// Keys: show, export, list, rotate, trust, distrust, secure-boot
    Key(key::KeyArgs),
    /// Certificate authority for HTTPS: show, export, rotate
    Ca(ca::CaArgs),
    /// Settings: check
    Config(config::ConfigArgs),
    /// Backups of the inventory: create, verify, restore
    Backup(backup::BackupArgs),
    /// Say what is wrong with this host and its network, and what to do
    Doctor(doctor::DoctorArgs),
    /// Boot machines that are not there, to see how long many take
    Simulate(simulate::SimulateArgs),
    /// An archive of what helps to find out what is wrong, without secrets
    SupportBundle(support::SupportArgs),
    /// What makes a shell complete command lines: bash, zsh, fish
    Completions(completions::CompletionsArgs),
    /// Show everything on this computer
    Demo(DemoArgs),
}

/// Which server to talk to, and how to show what it says.
#[derive(Args, Clone, Debug)]
pub struct ClientArgs {
    /// Socket of the running server; /run/kiln/kiln.sock, where none is named
    #[arg(long, env = "KILN_SOCKET", value_name = "PATH")]
    pub socket: Option<PathBuf>,
    /// Another server instead, as `https://kiln.example:8444`
    #[arg(long, env = "KILN_SERVER", value_name = "URL")]
    pub server: Option<String>,
    /// File with the token for that server
    #[arg(long, env = "KILN_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate authority of that server (`kiln ca export`); without one, those of this system
    #[arg(long, env = "KILN_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: Output,
    /// Print tables without the line of titles
    #[arg(long)]
    pub no_headers: bool,
}

/// How to print answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people; cut to the width of the terminal, and whole where there is none
    #[default]
    Table,
    /// A table with more columns
    Wide,
    /// For programs
    Json,
    /// The same as JSON
    Yaml,
    /// Only names, one in a line, for xargs
    Name,
    /// JSON, one line for each item of a list
    Jsonl,
}

impl Output {
    /// Whether it is for people.
    const fn is_table(self) -> bool {
        matches!(self, Self::Table | Self::Wide)
    }
}

#[derive(Args, Clone, Debug)]
struct ConfigArg {
    /// Settings of the server
    #[arg(long, env = "KILN_CONFIG", default_value = DEFAULT_PATH, value_name = "FILE")]
    config: PathBuf,
}

/// Does what the command line says, except for the demonstration.
///
/// # Errors
///
/// What to print, and the exit code.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Build(args) => build::run(args).await,
        Command::Serve(args) => serve::run(args).await,
        Command::Machine(args) => machine::run(*args).await,
        Command::Group(args) => group::run(args).await,
        Command::Discovery(args) => discovery::run(args).await,
        Command::Boot(args) => boot::run(args).await,
        Command::Lease(args) => lease::run(args).await,
        Command::Image(args) => image::run(&args).await,
        Command::Apply(args) => apply::apply(args).await,
        Command::Diff(args) => apply::diff(args).await,
        Command::Export(args) => export_files::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Token(args) => token::run(args).await,
        Command::Webhook(args) => webhook::run(args).await,
        Command::Secret(args) => secret::run(args).await,
        Command::User(args) => user::run(args).await,
        Command::Events(args) => events::run(args).await,
        Command::Top(args) => top::run(args).await,
        Command::Audit(args) => audit::run(args).await,
        Command::Key(args) => key::run(&args),
        Command::Ca(args) => ca::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Backup(args) => backup::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::SupportBundle(args) => support::run(args).await,
        Command::Completions(args) => completions::run(&args),
        Command::Demo(args) => Ok(crate::demo::run(&args)?),
    }
}

/// Starts the log on standard error, that of the server as its settings say. `RUST_LOG` chooses what it holds.
pub fn init_logging(command: &Command) {
    let (default, settings) = match command {
        Command::Serve(args) => ("info", args.log()),
        _ => ("warn", LogSettings::default()),
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(colour)
        .with_target(false);
    // The journal has its own times. What programs read has one form, wherever it goes.
    if settings.format == LogFormat::Json {
        let log = log.json().flatten_event(true).with_current_span(false).with_span_list(false);
        start_log(log.finish(), &settings);
    } else if std::env::var_os("JOURNAL_STREAM").is_some() {
        start_log(log.without_time().finish(), &settings);
    } else {
        start_log(log.finish(), &settings);
    }
}

#[cfg(not(feature = "otel"))]
fn start_log(log: impl Into<tracing::Dispatch>, _: &LogSettings) {
    log.init();
}

/// Starts the log, and what gives it to a collector too.
#[cfg(feature = "otel")]
fn start_log<S>(log: S, settings: &LogSettings)
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a> + Send + Sync + 'static,
{
    match settings.otlp.as_deref().map(crate::otel::layer) {
        Some(Ok(collector)) => log.with(collector).init(),
        Some(Err(error)) => {
            log.init();
            let error = format!("{error:#}");
            tracing::error!(error, "the log is not exported to the collector");
        }
        None => log.init(),
    }
}

/// Waits a moment until what is on its way to a collector is there, at the end of the program.
pub fn end_logging() {
    #[cfg(feature = "otel")]
    crate::otel::flush();
}

/// Why a command failed, and its exit code.
#[derive(Debug)]
pub struct Failure {
    code: u8,
    error: anyhow::Error,
}

impl Failure {
    const USAGE: u8 = 2;
    const PARTIAL: u8 = 3;
    const NOT_FOUND: u8 = 4;
    const CONFLICT: u8 = 5;
    const CONFIG: u8 = 64;

    fn new(code: u8, error: impl Into<anyhow::Error>) -> Self {
        Self { code, error: error.into() }
    }

    /// Returns what the server said why it refuses, where that is the reason.
    fn refusal(&self) -> Option<&client::Refusal> {
        self.error.downcast_ref()
    }

    /// Returns whether the server does not know who asks, or does not let them.
    fn is_denied(&self) -> bool {
        self.refusal().is_some_and(|refusal| matches!(refusal.0.status, 401 | 403))
    }

    /// Returns the exit code.
    pub const fn code(&self) -> u8 {
        self.code
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.error)
    }
}

impl<E: Into<anyhow::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { code: 1, error: error.into() }
    }
}

/// Prints a report for programs: a list of several things as one line for each with `jsonl`. There are no names in it.
fn print_document(output: Output, value: &impl Serialize) -> Result<(), Failure> {
    if output == Output::Name { Ok(()) } else { print::say(&document(output, value)?) }
}

fn document(output: Output, value: &impl Serialize) -> Result<String, Failure> {
    match (output, serde_json::to_value(value)?) {
        (Output::Jsonl, Value::Array(items)) => {
            let lines = items.iter().map(|item| print::value(output, item));
            Ok(lines.collect::<Result<Vec<_>, _>>()?.join("\n"))
        }
        _ => print::value(output, value),
    }
}

/// Writes an error and all its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_report_that_is_a_list_has_a_line_for_each_in_jsonl() {
        let list = serde_json::json!([{"a": 1}, {"a": 2}]);
        assert_eq!(document(Output::Jsonl, &list).unwrap(), "{\"a\":1}\n{\"a\":2}");
        assert_eq!(document(Output::Jsonl, &list[0]).unwrap(), "{\"a\":1}");
        assert!(document(Output::Json, &list).unwrap().starts_with('['));
    }
}
