//! `kiln machine`.

use clap::{Args, Subcommand};
use kiln_inventory::{Machine, NewMachine, SettingRow};
use kiln_types::Mac;

use super::client::{Client, path_part};
use super::machine_spec::SpecArgs;
use super::machine_state::{StateCommand, states};
use super::order::{self, OrderCommand};
use super::table::{size, table, text};
use super::{ClientArgs, Failure, Output, facts, machine_state, print_json};
use crate::api::{MachineSettings, Merge, Split};
use crate::explain::{Explanation, Step};
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
    /// Change settings of a machine; they count from its next boot
    Set(SetArgs),
    /// List machines
    #[command(alias = "ls")]
    List {
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one machine
    Show {
        /// Name or hardware address
        machine: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show what a machine is made of, as it said itself when it booted last
    Facts {
        /// Name or hardware address
        machine: String,
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
        client: ClientArgs,
    },
    #[command(flatten)]
    Order(OrderCommand),
    /// Forget a machine; its boots stay as history
    #[command(alias = "rm")]
    Remove {
        /// Name or hardware address
        machine: String,
        #[command(flatten)]
        client: ClientArgs,
    },
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
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Name or hardware address
    machine: String,
    /// Hardware address of one more network interface; can be given several times
    #[arg(long, value_name = "MAC")]
    mac: Vec<Mac>,
    /// Hardware address of an interface that it has no longer; can be given several times
    #[arg(long, value_name = "MAC")]
    no_mac: Vec<Mac>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    client: ClientArgs,
}

pub(super) async fn run(args: MachineArgs) -> Result<(), Failure> {
    match args.command {
        MachineCommand::Add(add) => {
            let client = Client::new(&add.client);
            let output = add.client.output;
            let mut machine = NewMachine::new(add.name, add.mac);
            add.spec.apply(&mut machine);
            let body = serde_json::to_vec(&machine)?;
            let machine: Machine = client.post("/api/v1/machines", body).await?;
            print(output, &[machine])
        }
        MachineCommand::Set(set) => {
            let (client, output) = (Client::new(&set.client), set.client.output);
            let path = path(&set.machine);
            if set.spec == SpecArgs::default() && set.mac.is_empty() && set.no_mac.is_empty() {
                let help = "say what to change; `kiln machine set --help` lists it";
                return Err(Failure::new(Failure::USAGE, anyhow::anyhow!(help)));
            }
            let Machine { mut spec, .. } = client.get(&path).await?;
            set.spec.apply(&mut spec);
            spec.macs.retain(|mac| !set.no_mac.contains(mac));
            spec.macs.extend(set.mac);
            let machine: Machine = client.put(&path, serde_json::to_vec(&spec)?).await?;
            print(output, &[machine])
        }
        MachineCommand::List { client } => {
            let machines: Vec<Machine> = Client::new(&client).get("/api/v1/machines").await?;
            print(client.output, &machines)
        }
        MachineCommand::Show { machine, client } => {
            let (name, server) = (machine, Client::new(&client));
            let machine: Machine = server.get(&path(&name)).await?;
            match client.output {
                Output::Json => print_json(&machine)?,
                Output::Table => {
                    show(&machine);
                    show_settings(&server.get(&format!("{}/settings", path(&name))).await?);
                    match server.get::<ToldFacts>(&format!("{}/facts", path(&name))).await {
                        Ok(told) => row("hardware", &facts::summary(&told.facts)),
                        // One that never booted, or a server that knows nothing of it.
                        Err(failure) if failure.code() == Failure::NOT_FOUND => {}
                        Err(failure) => return Err(failure),
                    }
                }
            }
            Ok(())
        }
        MachineCommand::Facts { machine, client } => {
            let path = format!("{}/facts", path(&machine));
            let told: ToldFacts = Client::new(&client).get(&path).await?;
            match client.output {
                Output::Json => print_json(&told)?,
                Output::Table => println!("{}", facts::text(&told)),
            }
            Ok(())
        }
        MachineCommand::Explain { machine, firmware, client } => {
            let mut path = format!("{}/explain", path(&machine));
            if let Some(firmware) = firmware {
                path.push_str("?firmware=");
                path.push_str(&path_part(&firmware));
            }
            let explanation: Explanation = Client::new(&client).get(&path).await?;
            match client.output {
                Output::Json => print_json(&explanation)?,
                Output::Table => print_explanation(&explanation),
            }
            Ok(())
        }
        MachineCommand::Merge { machine, from, client } => {
            let path = format!("{}/merge", path(&machine));
            let body = serde_json::to_vec(&Merge { from })?;
            print(client.output, &[Client::new(&client).post(&path, body).await?])
        }
        MachineCommand::Split { machine, name, mac, client } => {
            let path = format!("{}/split", path(&machine));
            let body = serde_json::to_vec(&Split { name, macs: mac.into_iter().collect() })?;
            let both: Vec<Machine> = Client::new(&client).post(&path, body).await?;
            print(client.output, &both)
        }
        MachineCommand::State(state) => machine_state::run(state).await,
        MachineCommand::Order(order) => order::run(order).await,
        MachineCommand::Remove { machine, client } => {
            Client::new(&client).delete(&path(&machine)).await
        }
    }
}

pub(super) fn path(machine: &str) -> String {
    format!("/api/v1/machines/{}", path_part(machine))
}

fn or_dash<T: ToString>(value: Option<&T>) -> String {
    value.map_or_else(|| "-".to_owned(), ToString::to_string)
}

fn macs(machine: &Machine) -> String {
    machine.spec.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn print(output: Output, machines: &[Machine]) -> Result<(), Failure> {
    if output == Output::Json {
        return print_json(&machines);
    }
    let mut rows = table(&["name", "mac", "image", "arch", "address"]);
    for machine in machines {
        let spec = &machine.spec;
        rows.add_row([
            spec.name.clone(),
            macs(machine),
            or_dash(spec.image.as_ref()),
            or_dash(spec.arch.as_ref()),
            or_dash(spec.address.as_ref()),
        ]);
    }
    println!("{}", text(&rows));
    Ok(())
}

fn show(machine: &Machine) {
    let spec = &machine.spec;
    let labels = spec.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ");
    for (key, value) in [
        ("name", spec.name.clone()),
        ("mac", macs(machine)),
        ("address", or_dash(spec.address.as_ref())),
        ("address6", or_dash(spec.address6.as_ref())),
        ("uuid", or_dash(spec.uuid.as_ref())),
        ("serial", or_dash(spec.serial.as_ref())),
        ("asset", or_dash(spec.asset_tag.as_ref())),
        ("labels", labels),
        ("state", states(machine)),
    ] {
        row(key, &value);
    }
}

/// Prints what holds for a machine, and who says each of it.
fn show_settings(all: &MachineSettings) {
    row("groups", &all.groups.join(" "));
    print_settings(&all.settings);
}

pub(super) fn print_settings(settings: &[SettingRow]) {
    let mut rows = table(&["setting", "value", "from"]);
    for SettingRow { setting, value, from } in settings {
        rows.add_row([setting, value, from]);
    }
    println!("\n{}", text(&rows));
}

fn row(key: &str, value: &str) {
    println!("{key:<9}{}", if value.is_empty() { "-" } else { value });
}

fn print_explanation(explanation: &Explanation) {
    let name = explanation.machine.as_deref().unwrap_or("not in the inventory");
    println!("{} ({name})", explanation.mac);
    if !explanation.seen {
        println!("not seen yet, so its firmware is assumed; --firmware says another");
    }
    for Step { asker, plan, reasons, boot_file, version, files, cmdline, .. } in &explanation.steps
    {
        println!("\n{asker}: {plan}");
        for reason in reasons {
            println!("  because    {reason}");
        }
        for (key, value) in [("boot file", boot_file), ("version", version), ("arguments", cmdline)]
        {
            if let Some(value) = value {
                println!("  {key:<10} {value}");
            }
        }
        for file in files {
            println!("  fetches    {} ({})", file.name, size(file.size));
        }
    }
    if !explanation.settings.is_empty() {
        let groups = explanation.groups.join(" ");
        println!(
            "\ngroups, the strongest first: {}",
            if groups.is_empty() { "none" } else { &groups }
        );
        print_settings(&explanation.settings);
    }
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
        assert_eq!(about, "Forget a machine; its boots stay as history");
    }
}
