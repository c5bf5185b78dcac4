//! `kiln machine`.

use clap::{Args, Subcommand};
use kiln_inventory::{Machine, NewMachine};
use kiln_types::Mac;

use super::client::{Client, path_part};
use super::machine_spec::SpecArgs;
use super::order::{self, OrderCommand};
use super::table::{size, table, text};
use super::{ClientArgs, Failure, Output, facts, print_json};
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
    /// SMBIOS UUID
    #[arg(long)]
    uuid: Option<String>,
    /// KEY=VALUE; can be given several times
    #[arg(short, long, value_parser = label)]
    label: Vec<(String, String)>,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Args)]
struct SetArgs {
    /// Name or hardware address
    machine: String,
    #[command(flatten)]
    spec: SpecArgs,
    #[command(flatten)]
    client: ClientArgs,
}

fn label(text: &str) -> Result<(String, String), String> {
    let pair = text.split_once('=').filter(|(key, _)| !key.is_empty());
    let (key, value) = pair.ok_or("write it as KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

pub(super) async fn run(args: MachineArgs) -> Result<(), Failure> {
    match args.command {
        MachineCommand::Add(add) => {
            let client = Client::new(&add.client);
            let output = add.client.output;
            let mut machine = NewMachine {
                uuid: add.uuid,
                labels: add.label.into_iter().collect(),
                ..NewMachine::new(add.name, add.mac)
            };
            add.spec.apply(&mut machine);
            let body = serde_json::to_vec(&machine)?;
            let machine: Machine = client.post("/api/v1/machines", body).await?;
            print(output, &[machine])
        }
        MachineCommand::Set(set) => {
            let (client, output) = (Client::new(&set.client), set.client.output);
            let path = path(&set.machine);
            if set.spec == SpecArgs::default() {
                let help = "say what to change; `kiln machine set --help` lists it";
                return Err(Failure::new(Failure::USAGE, anyhow::anyhow!(help)));
            }
            let Machine { mut spec, .. } = client.get(&path).await?;
            set.spec.apply(&mut spec);
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
        ("image", or_dash(spec.image.as_ref())),
        ("arch", or_dash(spec.arch.as_ref())),
        ("address", or_dash(spec.address.as_ref())),
        ("address6", or_dash(spec.address6.as_ref())),
        ("uuid", or_dash(spec.uuid.as_ref())),
        ("cmdline", spec.cmdline.clone()),
        ("loader", spec.loader.to_string()),
        ("boot", spec.boot.to_string()),
        ("disk", or_dash(spec.state_disk.as_ref())),
        ("labels", labels),
    ] {
        row(key, &value);
    }
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
