use std::collections::BTreeSet;
use std::time::Duration;

use clap::Args;
use kiln_builder::store::{GcOptions, GcReport};
use kiln_inventory::Machine;
use kiln_types::Digest;

use super::super::client::{Client, path_part};
use super::super::confirm::{Sure, named};
use super::super::table::{size, table, text};
use super::super::{ClientArgs, Failure, StoreArg, print_document};

/// Free the space of versions, artifacts and downloads that nothing needs any more
///
/// Kept are the versions that a channel names, that a machine of the running server has booted or would boot now, even
/// if it never has, and the newest of each image; and what was made or used lately, so that running builds lose nothing.
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
    if !args.no_server && args.client.socket.exists() {
        pinned.extend(used_versions(&args.client).await?);
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

/// Asks the running server which versions its machines use: what they have booted, which is also what they could be
/// sent back to, and what each would boot now, whether it ever has or not.
async fn used_versions(client: &ClientArgs) -> Result<BTreeSet<Digest>, Failure> {
    let client = Client::new(client);
    let mut found = BTreeSet::new();
    collect(&client.get("/api/v1/boots").await?, &mut found);
    let machines: Vec<Machine> = client.get("/api/v1/machines").await?;
    for machine in machines {
        let path = format!("/api/v1/machines/{}/explain", path_part(&machine.spec.name));
        collect(&client.get(&path).await?, &mut found);
    }
    Ok(found)
}

/// Collects every digest that is a word of a text.
fn collect(value: &serde_json::Value, found: &mut BTreeSet<Digest>) {
    match value {
        serde_json::Value::String(text) => {
            found.extend(text.split_whitespace().filter_map(|word| word.parse::<Digest>().ok()));
        }
        serde_json::Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        serde_json::Value::Object(map) => map.values().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_boots_and_in_what_machines_would_boot() {
        let [one, two] = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64)));
        let boots = serde_json::json!([{"id": "b1", "version": one}]);
        let plan = format!("web:stable x86_64 {two}");
        let explained = serde_json::json!({"steps": [{"plan": "boot", "version": plan}]});
        let mut found = BTreeSet::new();
        collect(&boots, &mut found);
        collect(&explained, &mut found);
        assert_eq!(found, [one, two].map(|text| text.parse().unwrap()).into());
    }
}
