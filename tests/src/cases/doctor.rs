//! `kiln doctor` finds faults that are really there.

use std::fs;
use std::net::UdpSocket;

use anyhow::{Context, ensure};
use kiln::lab::{ADDRESS, BRIDGE, Lab};
use serde_json::Value;

use crate::rig::{Case, Dnsmasq, Finished, Need, kiln};

pub(super) fn cases() -> Vec<Case> {
    let needs = [Need::Root, Need::Program, Need::Tool("dnsmasq", "dnsmasq-base")];
    vec![Case::new("doctor::faults_of_a_network_are_found_and_told", &needs, faults)]
}

fn faults() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let at = directory.path();
    let mut lab = Lab::enter(at)?;
    lab.add_bridge("kiln1")?;
    let loaders = at.join("loaders");
    fs::create_dir(&loaders)?;
    let settings = |subnets: &str| {
        let text = format!(
            "[server]\ndata-dir = \"{0}/data\"\nsocket = \"{0}/socket\"\n[loaders]\ndir = \"{0}/loaders\"\n{subnets}",
            at.display()
        );
        let path = at.join("kiln.toml");
        fs::write(&path, text)?;
        Ok::<_, anyhow::Error>(path.display().to_string())
    };
    let subnet = |interface: &str, network: &str, address: &str| {
        format!(
            "[[subnet]]\ninterface = \"{interface}\"\nnetwork = \"{network}\"\naddress = \"{address}\"\n"
        )
    };
    let good = subnet(BRIDGE, "10.77.0.0/24", "10.77.0.1");

    // Nothing is wrong but the loaders; then they are there, and nothing is.
    let path = settings(&good)?;
    let finished = kiln(&["doctor", "--config", &path])?;
    ensure!(finished.code == Some(1), "it ended with {finished:?}");
    ensure!(finished.stdout.contains("wrong: loaders"), "it said {finished:?}");
    for name in ["undionly.kpxe", "ipxe-amd64.efi", "ipxe-arm64.efi"] {
        fs::write(loaders.join(name), "loader")?;
    }
    let finished = kiln(&["doctor", "--config", &path, "--dhcp", BRIDGE, "--all"])?;
    ensure!(finished.code == Some(0), "it ended with {finished:?}");
    ensure!(finished.stdout.contains("no other server answers"), "it said {finished:?}");

    // A server beside us, a port that is taken, an interface that is switched off, and one that is not there.
    let neighbour = lab.add_neighbour(&[(BRIDGE, "10.77.0.2/24")])?;
    let lines = "dhcp-authoritative\ndhcp-range=10.77.0.50,10.77.0.90,255.255.255.0\n";
    let _dnsmasq = Dnsmasq::at(&neighbour, at, lines)?;
    let _taken = UdpSocket::bind((ADDRESS, 69))?;
    lab.ip(&["link", "set", "kiln1", "down"])?;
    let bad = good
        + &subnet("kiln1", "10.78.0.0/24", "10.78.0.1")
        + &subnet("kiln9", "10.79.0.0/24", "10.79.0.1");
    let path = settings(&bad)?;
    let mut found = Vec::new();
    // The other server needs a moment to start.
    for _ in 0..20 {
        let finished = kiln(&["doctor", "--config", &path, "--dhcp", BRIDGE, "-o", "json"])?;
        ensure!(finished.code == Some(1), "it ended with {finished:?}");
        found = wrong(&finished)?;
        if found.iter().any(|line| line.starts_with("dhcp ")) {
            break;
        }
    }
    let own = std::process::id();
    for expected in [
        "dhcp kiln0: 10.77.0.2 gives addresses here too",
        &format!("(process {own}) has it"),
        "interface kiln1: it is switched off",
        "interface kiln1: it has no address, not 10.78.0.1",
        "interface kiln9: there is no such interface",
    ] {
        ensure!(found.iter().any(|line| line.contains(expected)), "no `{expected}` in {found:#?}");
    }
    Ok(())
}

/// Returns what is wrong, a line for each, and sees that each has a remedy.
fn wrong(finished: &Finished) -> anyhow::Result<Vec<String>> {
    let all: Vec<Value> = serde_json::from_str(&finished.stdout)?;
    let wrong = all.iter().filter(|one| one["verdict"] == "wrong").map(|one| {
        let word = |key: &str| one[key].as_str().with_context(|| format!("no {key} in {one}"));
        word("remedy")?;
        Ok(format!("{} {}: {}", word("check")?, word("subject")?, word("found")?))
    });
    wrong.collect()
}
