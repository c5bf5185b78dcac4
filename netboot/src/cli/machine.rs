//! `kiln machine`.

use std::collections::BTreeMap;

use clap::{Args, Subcommand};
use hyper::Method;
use kiln_inventory::{Machine, NewMachine, Selector};
use kiln_types::Mac;
use serde::Serialize;

use super::chosen::{self, Chosen, Tally, Which};
use super::client::{Client, path_part};
use super::confirm::{Sure, named};
use super::diff::{self, Would};
use super::machine_import::{self, MachineImportArgs};
use super::machine_show as show;
use super::machine_spec::SpecArgs;
use super::machine_state::StateCommand;
use super::order::{self, OrderCommand};
use super::print::{self, How};
use super::table::plain;
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, Output, change, facts, machine_state};
use crate::api::{Merge, Merged, Split};
use crate::explain::Explanation;
use crate::facts::ToldFacts;

/// The machines that the server knows
#[derive(Debug, Args)]
pub struct MachineArgs {
    #[command(subcommand)]
    command: MachineCommand,
}

#[derive(Debug, Subcommand)]
enum MachineCommand {
    /// Tell the server about a machine
    Add(AddArgs),
    /// Add and change machines as a table says, all of them or none
    Import(MachineImportArgs),
    /// Change settings of a machine; they count from its next boot
    Set(SetArgs),
    /// List machines
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show machines: what they are, what holds for them, and who says so
    Show {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what machines are made of, as they said themselves when they booted last
    Facts {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Say what a machine would get now, and why
    ///
    /// The answer is made by the same functions that answer the machine itself. Without --firmware, the kind of
    /// firmware is the one that was seen last.
    Explain {
        /// Name or hardware address; the machine need not be known
        machine: String,
        /// bios, uefi-x64, uefi-x64-http, uefi-arm64, uefi-arm64-http, u-boot-arm64, raspberry-pi
        #[arg(long)]
        firmware: Option<String>,
        #[command(flatten)]
        client: ClientArgs,
    },
    #[command(flatten)]
    State(StateCommand),
    /// Make one machine of two that are the same box
    ///
    /// The first keeps its name and what it says, gets the interfaces and boots of the second and whatever else only that
    /// one has, but for the right to write to a disk; the second is gone.
    Merge {
        /// Name or hardware address of the machine that stays
        machine: String,
        /// Name or hardware address of the machine that goes
        from: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Make a machine of its own of some interfaces of a machine; it boots nothing yet
    Split {
        /// Name or hardware address
        machine: String,
        /// Name of the new machine
        name: String,
        /// Hardware address of an interface that goes; can be given several times
        #[arg(long, required = true, value_name = "MAC")]
        mac: Vec<Mac>,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    #[command(flatten)]
    Order(OrderCommand),
    /// Forget machines; their boots stay as history
    #[command(alias = "rm")]
    Remove {
        #[command(flatten)]
        chosen: Chosen,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

/// Whether to do it.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct DryArg {
    /// Only show what would change, field by field
    #[arg(long)]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
struct AddArgs {
    /// Name, also its host name
    name: String,
    /// Hardware address of a network interface; can be given several times
    #[arg(long, required = true, value_name = "MAC")]
    mac: Vec<Mac>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    dry: DryArg,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Names or hardware addresses; rack1-n[01-40] is forty names
    #[arg(value_name = "MACHINE", value_parser = chosen::names, required_unless_present = "selector")]
    machines: Vec<Vec<String>>,
    /// The machines with these labels: rack=r1, role in (web,db), !broken, with commas between them
    #[arg(long, conflicts_with = "machines")]
    selector: Option<Selector>,
    /// Hardware address of one more network interface; can be given several times
    #[arg(long, value_name = "MAC")]
    mac: Vec<Mac>,
    /// Hardware address of an interface that it has no longer; can be given several times
    #[arg(long, value_name = "MAC")]
    no_mac: Vec<Mac>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    dry: DryArg,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: MachineArgs) -> Result<(), Failure> {
    match args.command {
        MachineCommand::Add(add) => add_one(add).await,
        MachineCommand::Set(set) => set_all(set).await,
        MachineCommand::List { which, watch, client } => {
            let server = Client::new(&client);
            let path = format!("/api/v1/machines?{}", which.query().trim_start_matches('&'));
            watch::show(&server, watch, Some("machine"), async || {
                let machines: Vec<Machine> = server.get(&path).await?;
                Look::list(How::of(&client), &machines)
            })
            .await
        }
        MachineCommand::Import(args) => machine_import::run(args).await,
        MachineCommand::Show { chosen, watch, client } => show_all(&chosen, watch, &client).await,
        MachineCommand::Facts { chosen, client } => {
            let server = Client::new(&client);
            let mut tally = Tally::default();
            let mut all = Vec::new();
            for name in chosen.names(&server).await? {
                let told = server.get::<ToldFacts>(&format!("{}/facts", path(&name))).await;
                all.extend(tally.note(&name, told).map(|told| (name, told)));
            }
            print_each(How::of(&client), &all, facts::text)?;
            tally.end("have not said what they are made of")
        }
        MachineCommand::Explain { machine, firmware, client } => {
            let mut path = format!("{}/explain", path(&machine));
            if let Some(firmware) = &firmware {
                path.push_str("?firmware=");
                path.push_str(&path_part(firmware));
            }
            let explanation: Explanation = Client::new(&client).get(&path).await?;
            let assumed = firmware.is_none();
            print::one(&client, &machine, &explanation, || show::explanation(&explanation, assumed))
        }
        MachineCommand::Merge { machine, from, sure, dry, client } => {
            let (stays, goes) = (plain(&machine), plain(&from));
            if !dry.dry_run {
                let question = format!("{goes} goes, and {stays} gets its interfaces and boots.");
                sure.ask(&format!("{question} Go on?"))?;
            }
            let path = format!("{}/merge", path(&machine));
            let (server, body) = (Client::new(&client), serde_json::to_vec(&Merge { from })?);
            if dry.dry_run {
                let at = (&*path, &*machine);
                return change::preview(&client, &server, Method::POST, at, body).await;
            }
            let Merged { machine, dropped } = server.post(&path, body).await?;
            for gone in dropped {
                eprintln!(
                    "kiln: {} is gone: {stays} has one of that name, or too many",
                    plain(&gone)
                );
            }
            print::list(&client, &[machine])
        }
        MachineCommand::Split { machine, name, mac, dry, client } => {
            let path = format!("{}/split", path(&machine));
            let body = serde_json::to_vec(&Split { name, macs: mac.into_iter().collect() })?;
            if dry.dry_run {
                let (server, at) = (Client::new(&client), (&*path, &*machine));
                return change::preview(&client, &server, Method::POST, at, body).await;
            }
            let both: Vec<Machine> = Client::new(&client).post(&path, body).await?;
            print::list(&client, &both)
        }
        MachineCommand::State(state) => machine_state::run(state).await,
        MachineCommand::Order(order) => order::run(order).await,
        MachineCommand::Remove { chosen, sure, dry, client } => {
            let server = Client::new(&client);
            let names = chosen.names(&server).await?;
            if dry.dry_run {
                let body = |_: &Client, _: &str| std::future::ready(Ok(Vec::new()));
                return preview(&client, &names, Method::DELETE, body).await;
            }
            let machines = named(&names, "machines");
            sure.ask(&format!("{machines} will be forgotten; boots stay as history. Go on?"))?;
            let remove = async |name: &str| server.delete(&path(name)).await;
            let (tally, _) = Tally::of_each(&names, remove).await;
            tally.end("were not removed")
        }
    }
}

async fn add_one(add: AddArgs) -> Result<(), Failure> {
    let client = Client::new(&add.client);
    let mut machine = NewMachine::new(add.name, add.mac);
    add.spec.apply(&mut machine);
    let body = serde_json::to_vec(&machine)?;
    if add.dry.dry_run {
        let preview = client.preview(Method::POST, MACHINES, body).await?;
        return diff::print(&add.client, &[Would { name: machine.name, preview }]);
    }
    let machine: Machine = client.post(MACHINES, body).await?;
    print::list(&add.client, &[machine])
}

async fn set_all(set: SetArgs) -> Result<(), Failure> {
    let SetArgs { machines, selector, mac, no_mac, spec, dry, client } = set;
    let server = Client::new(&client);
    if spec == SpecArgs::default() && mac.is_empty() && no_mac.is_empty() {
        let help = "say what to change; `kiln machine set --help` lists it";
        return Err(Failure::new(Failure::USAGE, anyhow::anyhow!(help)));
    }
    let names = Chosen { machines, selector }.names(&server).await?;
    let changed = |now: &Machine| -> Result<Vec<u8>, Failure> {
        let mut now = now.spec.clone();
        spec.clone().apply(&mut now);
        now.macs.retain(|mac| !no_mac.contains(mac));
        now.macs.extend(mac.iter().copied());
        Ok(serde_json::to_vec(&now)?)
    };
    if dry.dry_run {
        let body = async |server: &Client, name: &str| changed(&server.get(&path(name)).await?);
        return preview(&client, &names, Method::PUT, body).await;
    }
    let change = async |name: &str| server.change(&path(name), |now| changed(now).map(Some)).await;
    let (tally, done) = Tally::of_each(&names, change).await;
    if !done.is_empty() {
        print::list(&client, &done)?;
    }
    tally.end("were not changed")
}

/// Shows what would become of each machine.
pub(super) async fn preview(
    client: &ClientArgs,
    names: &[String],
    method: Method,
    body: impl AsyncFn(&Client, &str) -> Result<Vec<u8>, Failure>,
) -> Result<(), Failure> {
    let server = Client::new(client);
    let (mut tally, mut all) = (Tally::default(), Vec::new());
    for name in names {
        let preview = match body(&server, name).await {
            Ok(body) => server.preview(method.clone(), &path(name), body).await,
            Err(failure) => Err(failure),
        };
        all.extend(tally.note(name, preview).map(|preview| Would { name: name.clone(), preview }));
    }
    diff::print(client, &all)?;
    tally.end("could not be changed")
}

async fn show_all(chosen: &Chosen, watch: WatchArg, client: &ClientArgs) -> Result<(), Failure> {
    let server = Client::new(client);
    let how = How::of(client);
    // Those that are there are shown before it is told which are not.
    let mut ended = Ok(());
    watch::show(&server, watch, Some("machine,group,boot"), async || {
        let mut texts = Vec::new();
        let (mut tally, mut machines) = (Tally::default(), Vec::new());
        for name in chosen.names(&server).await? {
            let machine = server.get::<Machine>(&path(&name)).await;
            let Some(machine) = tally.note(&name, machine) else { continue };
            if how.output.is_table() {
                texts.push(show::machine(&server, &machine).await?);
            }
            machines.push(machine);
        }
        match machines.is_empty() {
            true => tally.end("were not found")?,
            false if !watch.watch => ended = tally.end("were not found"),
            false => {}
        }
        let text = match (how.output, &machines[..]) {
            (Output::Table | Output::Wide, _) => texts.join("\n\n"),
            (Output::Json | Output::Yaml, [machine]) => print::value(how.output, machine)?,
            _ => print::listed(how, &machines)?,
        };
        Ok(Look::one(&text, text.clone()))
    })
    .await?;
    ended
}

/// Prints what several machines say: alone as it is, or else each with its name.
fn print_each<T: Serialize>(
    how: How,
    all: &[(String, T)],
    words: impl Fn(&T) -> String,
) -> Result<(), Failure> {
    if let [(name, it)] = all {
        return print::one(how, name, it, || words(it));
    }
    let text = |(name, it): &(String, T)| {
        print::shown(how, name, it, || format!("{name}\n{}\n", words(it)))
    };
    match how.output {
        Output::Json | Output::Yaml => {
            let all: BTreeMap<&str, &T> =
                all.iter().map(|(name, it)| (name.as_str(), it)).collect();
            print::say(&print::value(how.output, &all)?)
        }
        _ => all.iter().try_for_each(|it| print::say(&text(it)?)),
    }
}

const MACHINES: &str = "/api/v1/machines";

pub(super) fn path(machine: &str) -> String {
    format!("{MACHINES}/{}", path_part(machine))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};

    use super::*;

    #[test]
    fn the_help_of_remove_does_not_say_that_boots_are_lost() {
        let command = MachineArgs::augment_args(Command::new("machine"));
        let remove = command.find_subcommand("remove").unwrap();
        let about = remove.get_about().unwrap().to_string();
        assert_eq!(about, "Forget machines; their boots stay as history");
    }
}
