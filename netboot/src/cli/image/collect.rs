use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use kiln_builder::store::{GcOptions, GcReport};
use kiln_types::Digest;

use super::super::client::Client;
use super::super::confirm::{Sure, named};
use super::super::place::folders_of;
use super::super::table::{size, table, text};
use super::super::{ClientArgs, Failure, StoreArg, print_document};

/// Free the space of versions, artifacts and downloads that nothing needs any more
///
/// Kept are the versions that a channel names, that a machine of the running server runs or last ran well or would boot
/// now, even if it never has, and the newest of each image; and what was made or used lately, so that running builds lose
/// nothing. The server that is asked is the one that --server or --socket names, else the one of the settings where it
/// runs; one that should be asked and does not answer stops this.
#[derive(Debug, Args)]
pub(super) struct GcArgs {
    /// Versions to keep of each image and architecture besides those in use
    #[arg(long, default_value_t = 3, value_name = "N")]
    keep: usize,
    /// Keep this version in any case; may be repeated
    #[arg(long, value_name = "DIGEST")]
    pin: Vec<Digest>,
    /// Only tell what would be removed
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    sure: Sure,
    /// Do not ask the running server which versions its machines use
    #[arg(long)]
    no_server: bool,
    #[command(flatten)]
    client: ClientArgs,
    #[command(flatten)]
    store: StoreArg,
}

pub(super) async fn run(args: &GcArgs) -> Result<(), Failure> {
    let store = args.store.open(None)?;
    let mut pinned: BTreeSet<Digest> = args.pin.iter().copied().collect();
    if let Some(server) = server_to_ask(args, || Ok(folders_of(None)?.socket))? {
        pinned.extend(used_versions(&server).await?);
    }
    let options = GcOptions {
        keep: args.keep,
        pinned,
        dry_run: args.dry_run,
        grace: Duration::from_secs(60 * 60),
        ..GcOptions::default()
    };
    if !args.dry_run && !args.sure.yes {
        let plan = GcOptions { dry_run: true, ..options.clone() };
        let there = store.clone();
        let plan = tokio::task::spawn_blocking(move || there.collect(&plan)).await??;
        args.sure.ask(&question(&plan))?;
    }
    let report = tokio::task::spawn_blocking(move || store.collect(&options)).await??;
    if !args.client.output.is_table() {
        return print_document(args.client.output, &report);
    }
    if !report.versions.is_empty() {
        let mut rows = table(&["image", "arch", "version"]);
        for removed in &report.versions {
            rows.add_row([
                removed.image.clone(),
                removed.arch.to_string(),
                removed.version.short(),
            ]);
        }
        println!("{}\n", text(&rows));
    }
    println!(
        "{} {}: {} versions, {} artifacts, {} files of the cache",
        size(report.bytes),
        if args.dry_run { "would be freed" } else { "freed" },
        report.versions.len(),
        report.artifacts,
        report.cached
    );
    Ok(())
}

fn question(plan: &GcReport) -> String {
    let versions: Vec<String> = plan
        .versions
        .iter()
        .map(|it| format!("{} {} {}", it.image, it.arch, it.version.short()))
        .collect();
    let versions = match versions.as_slice() {
        [] => "no versions".to_owned(),
        some => named(some, "versions"),
    };
    let (bytes, artifacts, cached) = (size(plan.bytes), plan.artifacts, plan.cached);
    format!(
        "{versions}, {artifacts} artifacts and {cached} files of the cache will be removed ({bytes}). Go on?"
    )
}

/// Returns which server knows what machines use: the one that is named, or the one of the settings where it runs.
fn server_to_ask(
    args: &GcArgs,
    usual: impl FnOnce() -> Result<PathBuf, Failure>,
) -> Result<Option<ClientArgs>, Failure> {
    let client = &args.client;
    if args.no_server {
        return Ok(None);
    }
    if client.server.is_some() || client.socket.is_some() {
        return Ok(Some(client.clone()));
    }
    let socket = usual()?;
    // One that may not even be looked for is asked, and then says what is missing.
    let runs = !matches!(socket.try_exists(), Ok(false));
    Ok(runs.then(|| ClientArgs { socket: Some(socket), ..client.clone() }))
}

/// Asks a server which versions its machines run or last ran well, and which they would boot now.
async fn used_versions(server: &ClientArgs) -> Result<BTreeSet<Digest>, Failure> {
    let used = Client::new(server).get("/api/v1/images/used").await;
    used.map_err(|Failure { code, error }| {
        let what = "nothing was removed: the server does not say which versions its machines use; see to it that it \
                    does, or leave it out with --no-server, and name those versions with --pin";
        Failure { code, error: error.context(what) }
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use kiln_builder::Store;
    use kiln_builder::store::VersionEntry;
    use kiln_inventory::{MachineId, NewBoot, Outcome};
    use kiln_types::Arch;
    use serde_json::json;

    use super::*;
    use crate::api::tests::Rig;
    use crate::boots::tests::open_boot;
    use crate::cli::Cli;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        gc: GcArgs,
    }

    fn args(line: &str) -> GcArgs {
        Line::try_parse_from(["gc"].into_iter().chain(line.split_whitespace())).unwrap().gc
    }

    #[test]
    fn the_server_that_is_asked_is_the_one_that_is_named_or_that_of_the_settings_where_it_runs() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("kiln.sock");
        let asked = |line: &str| {
            let found = server_to_ask(&args(line), || Ok(socket.clone())).unwrap();
            let socket =
                |client: &ClientArgs| client.socket.as_ref().unwrap().display().to_string();
            found.map(|client| client.server.clone().unwrap_or_else(|| socket(&client)))
        };
        let far = Some("https://kiln.example:8444".to_owned());
        assert_eq!(asked(""), None);
        assert_eq!(asked("--server https://kiln.example:8444"), far);
        assert_eq!(asked("--socket /nowhere.sock"), Some("/nowhere.sock".to_owned()));
        let usual = crate::settings::DEFAULT_SOCKET;
        assert_eq!(asked(&format!("--socket {usual}")), Some(usual.to_owned()), "it is named");
        std::fs::write(&socket, "").unwrap();
        assert_eq!(asked(""), Some(socket.display().to_string()));
        assert_eq!(asked("--server https://kiln.example:8444"), far);
        for line in ["", "--server https://kiln.example:8444", "--socket /nowhere.sock"] {
            assert_eq!(asked(&format!("{line} --no-server")), None);
        }
    }

    fn publish(store: &Store, text: &str) -> Digest {
        let blob = store.put(text.as_bytes()).unwrap();
        let manifest = json!({
            "schema": 1, "image": "web", "arch": "x86_64", "cmdline": "", "min_ram": 1, "packages": [],
            "kernel": {"digest": blob, "size": text.len(), "release": "6.12", "efi_stub": true},
            "segments": [],
        });
        let digest = store.put(manifest.to_string().as_bytes()).unwrap();
        let entry = VersionEntry::new(digest, 0, 0);
        store.publish(&"web".parse().unwrap(), Arch::X86_64, entry).unwrap();
        digest
    }

    #[tokio::test]
    async fn what_a_machine_last_ran_well_stays_however_often_others_booted_since() {
        let rig = Rig::start().await;
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let versions = ["ran", "unused", "newest"].map(|text| publish(&store, text));
        let boot = async |machine, version| {
            let name = format!("n{machine}");
            let mac = "52:54:00:00:00:01".parse().unwrap();
            let new = NewBoot {
                version: Some(version),
                image: "web".parse().ok(),
                arch: Some(Arch::X86_64),
                ..NewBoot::new(MachineId(machine), name, mac, 1_000)
            };
            let mut boot = open_boot(&rig.inventory, new).await;
            boot.outcome = Outcome::Healthy;
            rig.inventory.update_boot(&boot).await.unwrap();
        };
        boot(1, versions[0]).await;
        for machine in 2..62 {
            boot(machine, versions[2]).await;
        }
        let (place, socket) = (dir.path().display(), rig.socket.display());
        let gc = async |more: &str| {
            let line = format!("kiln image gc --store {place} --keep 0 --yes {more}");
            crate::cli::run(Cli::try_parse_from(line.split_whitespace()).unwrap()).await
        };
        let there = || {
            let index = store.index().unwrap();
            let entry = &index.images["web"][&Arch::X86_64];
            versions.map(|version| entry.versions.iter().any(|it| it.digest == version))
        };
        gc(&format!("--socket {socket}")).await.unwrap();
        assert_eq!(there(), [true, false, true]);
        // A server that is away is none without machines.
        let error = gc("--socket /nowhere.sock").await.unwrap_err().to_string();
        assert!(
            error.starts_with("nothing was removed: ") && error.contains("--no-server"),
            "{error}"
        );
        assert_eq!(there(), [true, false, true]);
        gc("--no-server").await.unwrap();
        assert_eq!(there(), [false, false, true]);
        rig.stop().await;
    }
}
