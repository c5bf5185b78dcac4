//! What an operator does with a fleet, from its description in files to a server that is restored from a backup, on
//! each kind of database.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, ensure};
use kiln::lab::{FirmwareKind, MachineKind};
use kiln::settings::InventorySettings;
use kiln_types::{Arch, ImageRef, Mac};
use serde_json::Value;

use super::shared::postgres;
use crate::rig::{Case, Finished, Need, Scene, Serving, image, kiln, store, until};

pub(super) fn cases() -> Vec<Case> {
    let Ok(bios) = MachineKind::new(Arch::X86_64, FirmwareKind::Bios) else { return Vec::new() };
    let needs = [Need::Root, Need::Machine(bios), Need::KilnInit(Arch::X86_64), Need::Program];
    let with_postgres = [
        &needs[..],
        &[Need::Tool("pg_lsclusters", "postgresql"), Need::Tool("psql", "postgresql")],
    ]
    .concat();
    vec![
        Case::new("scenario::from_files_to_a_restored_server_on_sqlite", &needs, move || {
            whole(bios, None)
        }),
        Case::new(
            "scenario::from_files_to_a_restored_server_on_postgresql",
            &with_postgres,
            move || {
                let (server, _until) = postgres()?;
                whole(bios, Some(&server))
            },
        ),
    ]
}

const LISTED: Mac = Mac::new([0x52, 0x54, 0, 0x77, 2, 1]);
const FOUND: Mac = Mac::new([0x52, 0x54, 0, 0x77, 2, 2]);

/// Runs the program and expects it to succeed.
fn done(args: &[&str]) -> anyhow::Result<Finished> {
    let ran = kiln(args)?;
    ensure!(ran.code == Some(0), "kiln {}: {}{}", args.join(" "), ran.stdout, ran.stderr);
    Ok(ran)
}

/// Describes the fleet: one machine, and a group for whatever is to be like it.
fn describe(folder: &Path, image: &ImageRef) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let group = format!(
        "groups:\n  - name: web\n    selector: role=web\n    settings:\n      image: {image}\n      cmdline: kiln.of=web\n"
    );
    fs::write(folder.join("groups.yaml"), group)?;
    let machine = format!(
        "machines:\n  - name: listed\n    macs: [\"{LISTED}\"]\n    labels: {{role: web}}\n"
    );
    Ok(fs::write(folder.join("machines.yaml"), machine)?)
}

fn whole(kind: MachineKind, server: Option<&str>) -> anyhow::Result<()> {
    let image = image(Arch::X86_64)?;
    let folder = tempfile::Builder::new().prefix("scenario-").tempdir()?;
    let files = folder.path().join("fleet");
    describe(&files, &image)?;
    let database = server.map(|url| fresh(url, "fleet")).transpose()?;
    let inventory = InventorySettings {
        database: database.as_deref().map(str::parse).transpose()?,
        ..InventorySettings::default()
    };
    let with_inventory = |site: kiln::lab::Site| site.with_inventory(inventory);
    Scene::play_among(
        |_| Ok(()),
        with_inventory,
        Vec::new(),
        async |mut scene| {
            let socket = scene.socket();
            let ask = |args: &[&str]| done(&[args, &["--socket", &socket]].concat());
            applied(&files, &socket)?;

            // One that is in no file appears, is approved, and is what its group says.
            let unknown = scene.power_on(kind, FOUND)?;
            let mac = FOUND.to_string();
            until(Scene::deadline(), async || {
                let queue = ask(&["discovery", "list", "-o", "json"])?.stdout;
                Ok(queue.contains(&mac).then_some(()))
            })
            .await?;
            drop(unknown);
            ask(&["discovery", "approve", &mac, "found", "--label", "role=web"])?;
            let explained = ask(&["machine", "explain", "found"])?.stdout;
            for wanted in ["group web", "kiln.of=web", &image.to_string()] {
                ensure!(explained.contains(wanted), "`{wanted}` is not explained: {explained}");
            }
            let mut machine = scene.power_on(kind, FOUND)?;
            let (boot, _) = scene.healthy(&mut machine, FOUND).await?;
            let shown = ask(&["boot", "show", &boot.id.to_string()])?.stdout;
            for step in ["fetch kernel", "onboot hello", "healthy"] {
                ensure!(shown.contains(step), "no `{step}` in the timeline: {shown}");
            }
            drop(machine);

            let exported = ask(&["export", "-o", "json"])?.stdout;
            ensure!(exported.contains("listed") && exported.contains("found"), "{exported}");
            restored(folder.path(), &socket, database.as_deref(), server, &exported)?;
            Ok(scene)
        },
    )
}

/// Applies the files; then a directory that is wrong in one place, which changes nothing.
fn applied(files: &Path, socket: &str) -> anyhow::Result<()> {
    let (dir, machines) = (files.display().to_string(), files.join("machines.yaml"));
    done(&["apply", "-f", &dir, "--yes", "--socket", socket])?;
    let before = done(&["export", "-o", "json", "--socket", socket])?.stdout;
    let again = done(&["diff", "-f", &dir, "--socket", socket])?;
    ensure!(again.code == Some(0), "what was applied differs: {}", again.stdout);

    let right = fs::read_to_string(&machines)?;
    let wrong = right.replace("role: web", "role: db")
        + "  - name: other\n    macs: [\"52:54:00:77:02:09\"]\n    cmdlin: quiet\n";
    fs::write(&machines, wrong)?;
    let refused = kiln(&["apply", "-f", &dir, "--yes", "--socket", socket])?;
    ensure!(refused.code != Some(0), "a wrong directory is applied: {}", refused.stdout);
    for part in ["machines.yaml:7:5", "cmdlin", "cmdline"] {
        ensure!(refused.stderr.contains(part), "no `{part}` in: {}", refused.stderr);
    }
    let after = done(&["export", "-o", "json", "--socket", socket])?.stdout;
    ensure!(before == after, "a wrong directory has changed something: {after}");
    Ok(fs::write(&machines, right)?)
}

/// Takes a backup of the running server into an empty one, which says the same.
fn restored(
    folder: &Path,
    socket: &str,
    database: Option<&str>,
    server: Option<&str>,
    exported: &str,
) -> anyhow::Result<()> {
    let running = Path::new(socket).parent().context("the socket has no folder")?;
    let in_database = |url: Option<&str>| {
        url.map(|url| format!("[inventory]\ndatabase = \"{url}\"\n")).unwrap_or_default()
    };
    let config = folder.join("running.toml");
    let place = format!(
        "[server]\ndata-dir = \"{0}\"\nsocket = \"{socket}\"\n[store]\ndir = \"{1}\"\n{2}",
        running.display(),
        store().display(),
        in_database(database)
    );
    fs::write(&config, place + SUBNET)?;
    let (config, backup) = (config.display().to_string(), folder.join("backup.jsonl"));
    let backup = backup.display().to_string();
    done(&["backup", "create", &backup, "--config", &config])?;
    done(&["backup", "verify", &backup])?;

    let own = server.map(|url| fresh(url, "restored")).transpose()?;
    let empty = folder.join("empty");
    fs::create_dir_all(&empty)?;
    let lines = SUBNET.replacen("[[subnet]]\n", "", 1) + &in_database(own.as_deref());
    // It writes its settings when it starts, and keeps what is there.
    drop(Serving::start(&empty, &lines)?);
    let config = empty.join("kiln.toml").display().to_string();
    done(&["backup", "restore", &backup, "--yes", "--config", &config])?;
    let other = Serving::start(&empty, &lines)?;
    other.is_ready()?;
    let there = empty.join("kiln.sock").display().to_string();
    let now = done(&["export", "-o", "json", "--socket", &there])?.stdout;
    ensure!(now == *exported, "after the restore it says {now} instead of {exported}");
    let boots = done(&["boot", "list", "-o", "json", "--socket", &there])?.stdout;
    let boots: Vec<Value> = serde_json::from_str(&boots)?;
    let healthy = |boot: &Value| boot["outcome"] == "healthy";
    ensure!(boots.iter().any(healthy), "the boot is not there: {boots:?}");
    done(&["audit", "verify", "--socket", &there])?;
    Ok(())
}

/// The network of the empty server: nobody asks there.
const SUBNET: &str = "[[subnet]]\nnetwork = \"127.0.0.0/8\"\ninterface = \"lo\"\naddress = \"127.0.0.1\"\ndhcp = \"off\"\n";

/// Makes one more database in a server of PostgreSQL, and returns its address.
fn fresh(url: &str, name: &str) -> anyhow::Result<String> {
    let host = url.split_once("host=").and_then(|(_, rest)| rest.split('&').next());
    let host = host.context("the database has no socket")?;
    let made = Command::new("psql")
        .args([
            "-h",
            host,
            "-U",
            "kiln",
            "-q",
            "-c",
            &format!("CREATE DATABASE {name}"),
            "postgres",
        ])
        .status()
        .context("cannot run psql")?;
    ensure!(made.success(), "cannot make the database {name}");
    Ok(format!("postgres:///{name}?host={host}&user=kiln"))
}
