//! `kiln machine lock`, `cordon`, `maintenance`, `retire` and what takes them back.

use clap::{Args, Subcommand};
use kiln_inventory::{Flag, Machine, expand_hostlist};

use super::client::Client;
use super::machine::path;
use super::{ClientArgs, Failure, Output, print_json};

#[derive(Debug, Subcommand)]
pub(super) enum StateCommand {
    /// Let nobody change, retire or remove machines until they are unlocked
    Lock(ManyArgs),
    /// Let machines be changed again
    Unlock(ManyArgs),
    /// Keep machines at the version that they last ran well
    Cordon(ManyArgs),
    /// Let machines have the newest version again
    Uncordon(ManyArgs),
    /// Boot the maintenance image of machines instead of their own; without one they wait
    Maintenance {
        #[command(flatten)]
        many: ManyArgs,
        /// End it
        #[arg(long)]
        off: bool,
    },
    /// Take machines out of service: they are refused, whatever of them asks
    Retire(ManyArgs),
    /// Put retired machines back into service
    Unretire(ManyArgs),
}

#[derive(Debug, Args)]
pub(super) struct ManyArgs {
    /// Names or hardware addresses; rack1-n[01-40] is forty names
    #[arg(required = true, value_name = "MACHINE", value_parser = names)]
    machines: Vec<Vec<String>>,
    #[command(flatten)]
    client: ClientArgs,
}

fn names(text: &str) -> Result<Vec<String>, String> {
    expand_hostlist(text).map_err(|error| error.to_string())
}

pub(super) async fn run(command: StateCommand) -> Result<(), Failure> {
    let (many, flag, on) = match command {
        StateCommand::Lock(many) => (many, Flag::Locked, true),
        StateCommand::Unlock(many) => (many, Flag::Locked, false),
        StateCommand::Cordon(many) => (many, Flag::Cordoned, true),
        StateCommand::Uncordon(many) => (many, Flag::Cordoned, false),
        StateCommand::Maintenance { many, off } => (many, Flag::Maintenance, !off),
        StateCommand::Retire(many) => (many, Flag::Retired, true),
        StateCommand::Unretire(many) => (many, Flag::Retired, false),
    };
    let client = Client::new(&many.client);
    let names: Vec<String> = many.machines.into_iter().flatten().collect();
    let mut changed = Vec::new();
    let mut failed = None;
    for name in &names {
        match switch(&client, name, flag, on).await {
            Ok(machine) => changed.push(machine),
            Err(failure) if names.len() == 1 => return Err(failure),
            Err(failure) => {
                eprintln!("{name}: {failure}");
                failed = Some(failure);
            }
        }
    }
    match many.client.output {
        Output::Json => print_json(&changed)?,
        Output::Table => {
            for machine in &changed {
                println!("{}: {}", machine.spec.name, states(machine));
            }
        }
    }
    match failed {
        None => Ok(()),
        Some(failure) if changed.is_empty() => Err(failure),
        Some(_) => {
            let text = format!(
                "{} of {} machines were not changed",
                names.len() - changed.len(),
                names.len()
            );
            Err(Failure::new(Failure::PARTIAL, anyhow::anyhow!(text)))
        }
    }
}

async fn switch(client: &Client, name: &str, flag: Flag, on: bool) -> Result<Machine, Failure> {
    let path = path(name);
    let mut machine: Machine = client.get(&path).await?;
    let differs = match on {
        true => machine.spec.flags.insert(flag),
        false => machine.spec.flags.remove(&flag),
    };
    if differs {
        machine = client.put(&path, serde_json::to_vec(&machine.spec)?).await?;
    }
    Ok(machine)
}

/// Returns the states of a machine in words.
pub(super) fn states(machine: &Machine) -> String {
    let flags: Vec<String> = machine.spec.flags.iter().map(ToString::to_string).collect();
    if flags.is_empty() { "in service".to_owned() } else { flags.join(" ") }
}
