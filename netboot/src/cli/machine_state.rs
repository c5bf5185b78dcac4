//! `kiln machine lock`, `cordon`, `maintenance`, `retire` and what takes them back.

use clap::{Args, Subcommand};
use hyper::Method;
use kiln_inventory::{Flag, Machine};

use super::chosen::{Chosen, Tally};
use super::client::Client;
use super::confirm::{Sure, named};
use super::machine::{DryArg, path, preview};
use super::print::{self, How};
use super::{ClientArgs, Failure};

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
    Retire {
        #[command(flatten)]
        many: ManyArgs,
        #[command(flatten)]
        sure: Sure,
    },
    /// Put retired machines back into service
    Unretire(ManyArgs),
}

#[derive(Debug, Args)]
pub(super) struct ManyArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    dry: DryArg,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(command: StateCommand) -> Result<(), Failure> {
    let (many, flag, on, sure) = match command {
        StateCommand::Lock(many) => (many, Flag::Locked, true, None),
        StateCommand::Unlock(many) => (many, Flag::Locked, false, None),
        StateCommand::Cordon(many) => (many, Flag::Cordoned, true, None),
        StateCommand::Uncordon(many) => (many, Flag::Cordoned, false, None),
        StateCommand::Maintenance { many, off } => (many, Flag::Maintenance, !off, None),
        StateCommand::Retire { many, sure } => (many, Flag::Retired, true, Some(sure)),
        StateCommand::Unretire(many) => (many, Flag::Retired, false, None),
    };
    let ManyArgs { chosen, dry, client } = many;
    let server = Client::new(&client);
    let names = chosen.names(&server).await?;
    if dry.dry_run {
        let body = async |server: &Client, name: &str| -> Result<Vec<u8>, Failure> {
            let mut machine: Machine = server.get(&path(name)).await?;
            turn(&mut machine, flag, on);
            Ok(serde_json::to_vec(&machine.spec)?)
        };
        return preview(&client, &names, Method::PUT, body).await;
    }
    if let Some(sure) = sure {
        let machines = named(&names, "machines");
        sure.ask(&format!("{machines} will be out of service and boot no longer. Go on?"))?;
    }
    let (tally, changed) =
        Tally::of_each(&names, async |name| switch(&server, name, flag, on).await).await;
    let how = How::of(&client);
    if how.output.is_table() {
        let line = |machine: &Machine| format!("{}: {}", machine.spec.name, states(machine));
        print::say(&changed.iter().map(line).collect::<Vec<_>>().join("\n"))?;
    } else {
        print::list(how, &changed)?;
    }
    tally.end("were not changed")
}

/// Returns whether that is a change.
fn turn(machine: &mut Machine, flag: Flag, on: bool) -> bool {
    match on {
        true => machine.spec.flags.insert(flag),
        false => machine.spec.flags.remove(&flag),
    }
}

async fn switch(client: &Client, name: &str, flag: Flag, on: bool) -> Result<Machine, Failure> {
    let turned = |now: &Machine| {
        let mut machine = now.clone();
        let is_a_change = turn(&mut machine, flag, on);
        Ok(is_a_change.then(|| serde_json::to_vec(&machine.spec)).transpose()?)
    };
    client.change(&path(name), turned).await
}

/// Returns the states of a machine in words.
pub(super) fn states(machine: &Machine) -> String {
    let flags: Vec<String> = machine.spec.flags.iter().map(ToString::to_string).collect();
    if flags.is_empty() { "in service".to_owned() } else { flags.join(" ") }
}
