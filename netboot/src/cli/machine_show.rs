//! What `kiln machine list`, `show` and `explain` say of machines.

use std::fmt::Write as _;

use kiln_inventory::{BeatenRow, Machine, SettingRow};

use super::client::Client;
use super::machine::path;
use super::machine_state::states;
use super::print::{Column, Listed, col, more};
use super::table::{or_dash, plain, size, table, text};
use super::{Failure, facts};
use crate::api::MachineSettings;
use crate::explain::{Explanation, Step};
use crate::facts::ToldFacts;

impl Listed for Machine {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("name", |it: &Self| it.spec.name.clone()),
            col("mac", macs),
            col("image", |it| or_dash(it.spec.image.as_ref())),
            col("arch", |it| or_dash(it.spec.arch.as_ref())),
            col("address", |it| or_dash(it.spec.address.as_ref())),
            more("address6", |it| or_dash(it.spec.address6.as_ref())),
            more("state", states),
            more("labels", labels),
            more("serial", |it| or_dash(it.spec.serial.as_ref())),
            more("uuid", |it| or_dash(it.spec.uuid.as_ref())),
            more("revision", |it| it.revision.to_string()),
        ]
    }

    fn name(&self) -> String {
        self.spec.name.clone()
    }
}

fn macs(machine: &Machine) -> String {
    machine.spec.macs.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

fn labels(machine: &Machine) -> String {
    machine.spec.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
}

/// Writes all that is known of a machine.
pub(super) async fn machine(server: &Client, machine: &Machine) -> Result<String, Failure> {
    let spec = &machine.spec;
    let all: MachineSettings = server.get(&format!("{}/settings", path(&spec.name))).await?;
    let mut out = String::new();
    for (key, value) in [
        ("name", spec.name.clone()),
        ("mac", macs(machine)),
        ("address", or_dash(spec.address.as_ref())),
        ("address6", or_dash(spec.address6.as_ref())),
        ("uuid", or_dash(spec.uuid.as_ref())),
        ("serial", or_dash(spec.serial.as_ref())),
        ("asset", or_dash(spec.asset_tag.as_ref())),
        ("labels", labels(machine)),
        ("state", states(machine)),
        ("groups", all.groups.join(" ")),
    ] {
        row(&mut out, key, &value);
    }
    out.push_str(&settings(&all.settings));
    out.push_str(&beaten(&all.beaten));
    match server.get::<ToldFacts>(&format!("{}/facts", path(&spec.name))).await {
        Ok(told) => row(&mut out, "hardware", &facts::summary(&told.facts)),
        // One that never booted, or a server that knows nothing of it.
        Err(failure) if failure.code() == Failure::NOT_FOUND => {}
        Err(failure) => return Err(failure),
    }
    Ok(out)
}

/// Writes settings, and who says each of them.
pub(super) fn settings(settings: &[SettingRow]) -> String {
    let mut rows = table(&["setting", "value", "from"]);
    for SettingRow { setting, value, from } in settings {
        rows.add_row([plain(setting), plain(value), plain(from)]);
    }
    format!("\n{}\n", text(&rows))
}

/// Writes what is said and does not count, and who is stronger.
fn beaten(beaten: &[BeatenRow]) -> String {
    if beaten.is_empty() {
        return String::new();
    }
    let mut rows = table(&["does not count", "value", "from", "because of"]);
    for BeatenRow { setting, value, from, by } in beaten {
        rows.add_row([plain(setting), plain(value), plain(from), plain(by)]);
    }
    format!("\n{}\n", text(&rows))
}

fn row(out: &mut String, key: &str, value: &str) {
    let value = if value.is_empty() { "-" } else { value };
    let _ = writeln!(out, "{key:<9}{}", plain(value));
}

/// Writes what a machine would get, and why; for a firmware that is assumed, or that was asked about.
pub(super) fn explanation(explanation: &Explanation, assumed: bool) -> String {
    let name = explanation.machine.as_deref().unwrap_or("not in the inventory");
    let mut out = format!("{} ({name})\n", explanation.mac);
    if !explanation.seen && !assumed {
        out.push_str("not seen yet\n");
    } else if !explanation.seen {
        out.push_str("not seen yet, so its firmware is assumed; --firmware says another\n");
    }
    for like in &explanation.looks_like {
        let _ = writeln!(out, "{}", plain(&like.text));
    }
    for Step { asker, plan, reasons, boot_file, version, files, cmdline, .. } in &explanation.steps
    {
        let _ = writeln!(out, "\n{asker}: {plan}");
        for reason in reasons {
            let _ = writeln!(out, "  because    {}", plain(reason));
        }
        for (key, value) in [("boot file", boot_file), ("version", version), ("arguments", cmdline)]
        {
            if let Some(value) = value {
                let _ = writeln!(out, "  {key:<10} {}", plain(value));
            }
        }
        for file in files {
            let _ = writeln!(out, "  fetches    {} ({})", plain(&file.name), size(file.size));
        }
    }
    if !explanation.settings.is_empty() {
        let groups = explanation.groups.join(" ");
        let groups = if groups.is_empty() { "none" } else { &groups };
        let _ = writeln!(out, "\ngroups, the strongest first: {}", plain(groups));
        out.push_str(&settings(&explanation.settings));
        out.push_str(&beaten(&explanation.beaten));
    }
    out
}
