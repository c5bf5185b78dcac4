//! Machines that are not there, a hundred at once, and what goes wrong with some.

use std::fs;
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use kiln::lab::{BRIDGE, Lab, Neighbour};
use serde_json::Value;

use crate::rig::{Case, Need, Serving, program};

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Program];
    vec![Case::new("simulate::a_rack_boots_at_once_and_lost_packets_stop_nobody", &needs, play)]
}

fn play() -> anyhow::Result<()> {
    let folder = tempfile::Builder::new().prefix("many-").tempdir()?;
    let mut lab = Lab::enter(folder.path())?;
    let rack = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/16")])?;
    lab.ip(&["address", "add", "10.77.0.1/16", "dev", BRIDGE])?;
    fs::create_dir_all(folder.path().join("loaders"))?;
    fs::write(folder.path().join("loaders/ipxe-amd64.efi"), vec![7; 200_000])?;
    let server = Serving::start(
        folder.path(),
        &format!(
            "network = \"10.77.0.0/16\"\ninterface = \"{BRIDGE}\"\naddress = \"10.77.0.1\"\n\
             pool = [\"10.77.1.0-10.77.9.255\"]\n[discovery]\nunknown = \"hold\"\n"
        ),
    )?;
    server.is_ready()?;
    let said = || format!("the server says: {}", server.log().unwrap_or_default());
    // Nobody knows them: each gets an address, iPXE, and a script that has it wait.
    let (code, all) = simulate(&rack, &["-n", "100"]).with_context(said)?;
    ensure!(code == Some(0) && all["told"] == 100, "{all}, {}", said());
    ensure!(all["bytes"].as_u64() > Some(100 * 200_000), "{all}");
    let steps: Vec<_> = all["steps"].as_array().into_iter().flatten().collect();
    let names: Vec<_> = steps.iter().filter_map(|step| step["step"].as_str()).collect();
    ensure!(names == ["offer", "ack", "loader", "ipxe-dhcp", "script", "whole"], "{all}");
    ensure!(steps.iter().all(|step| step["count"] == 100), "{all}");
    let left = rack.command("ip").args(["address", "show", "dev", "p0"]).output()?;
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    ensure!(!left.contains("inet 10.77.1."), "they have left addresses behind:\n{left}");
    // Others, with a network that loses packets and a power supply that fails.
    let faults = ["-n", "40", "--mac", "02:4b:01:00:00:00", "--loss", "4", "--vanish", "20"];
    let (code, some) = simulate(&rack, &faults).with_context(said)?;
    let [told, vanished] = ["told", "vanished"].map(|key| some[key].as_u64().unwrap_or(0));
    ensure!(code == Some(0) && vanished > 0 && told + vanished == 40, "{some}, {}", said());
    ensure!(some["again"].as_u64() > Some(0), "{some}");
    ensure!(server.leases()?.len() >= 100 + usize::try_from(told)?, "leases are missing");
    // By a relay, and to an address only: the same machines have the same addresses.
    let relayed = ["--until", "address", "--relay", "10.77.0.2", "--server", "10.77.0.1"];
    let command = [&["-n", "50"], &relayed[..]].concat();
    let (code, again) = run(&rack, &command).with_context(said)?;
    ensure!(code == Some(0) && again["done"] == 50, "{again}, {}", said());
    // A server that does not answer, told for each.
    drop(server);
    let (code, none) = simulate(&rack, &["-n", "3", "--patience", "1"])?;
    ensure!(code == Some(1) && none["failed"]["no offer"] == 3, "{none}");
    Ok(())
}

fn simulate(rack: &Neighbour, arguments: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    run(rack, &[&["--interface", "p0"], arguments].concat())
}

fn run(rack: &Neighbour, arguments: &[&str]) -> anyhow::Result<(Option<i32>, Value)> {
    let output = rack
        .command(program())
        // Where process 1 cannot be looked at, a namespace cannot be told from a host.
        .args(["simulate", "-o", "json", "--yes"])
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout).with_context(|| said.into_owned())?;
    Ok((output.status.code(), report))
}
