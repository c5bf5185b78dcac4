use std::path::PathBuf;

use clap::Args;
use kiln_builder::store::{Store, VersionEntry};
use kiln_builder::trust::{KeyDir, check_signature};
use kiln_types::Arch;
use serde_json::json;

use super::super::bakes::word;
use super::super::client::{Client, path_part};
use super::super::table::{ago, size, table, text};
use super::super::{ClientArgs, Failure, KeyDirArg, Output, StoreArg, print_document};
use super::change::failure;
use crate::bake::{ArchState, ImageState, Status};
use crate::boots::now_ms;
use crate::settings::DEFAULT_SOCKET;

/// Show what a version is made of
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// NAME, NAME:CHANNEL or NAME@DIGEST; a beginning of the digest is enough
    image: String,
    /// Only for this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Also list packages
    #[arg(long)]
    packages: bool,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keys: KeyDirArg,
    /// Socket of a running server, which is asked how its own builds of the image went
    #[arg(long, env = "KILN_SOCKET", default_value = DEFAULT_SOCKET, value_name = "PATH")]
    socket: PathBuf,
}

/// Finds the versions of an image for the architectures that it has.
pub(super) fn versions(
    store: &Store,
    image: &str,
    arch: Option<Arch>,
) -> Result<Vec<(Arch, VersionEntry)>, Failure> {
    if let Some(arch) = arch {
        return Ok(vec![(arch, store.find(image, arch).map_err(failure)?)]);
    }
    let mut found = Vec::new();
    let mut missing = None;
    for arch in Arch::ALL {
        match store.find(image, arch) {
            Ok(version) => found.push((arch, version)),
            Err(error) => missing = Some(error),
        }
    }
    match missing {
        Some(error) if found.is_empty() => Err(failure(error)),
        _ => Ok(found),
    }
}

/// Says who signed a version.
fn signature(store: &Store, version: &VersionEntry, keys: &KeyDir) -> Result<String, Failure> {
    Ok(match check_signature(store, version, &keys.trusted()?) {
        Ok(signer) => format!("by {signer}"),
        Err(problem) => problem.to_string(),
    })
}

/// Asks a server, if one runs, how its own builds of an image went.
async fn bakes(args: &ShowArgs) -> Option<ImageState> {
    let client = ClientArgs {
        socket: Some(args.socket.clone()),
        server: None,
        token_file: None,
        ca: None,
        output: args.output,
        no_headers: false,
    };
    let name = args.image.split([':', '@']).next().unwrap_or_default();
    Client::new(&client).get(&format!("/api/v1/builds/{}", path_part(name))).await.ok()
}

/// Says how the server's last build went.
fn told(state: &ArchState) -> String {
    let since =
        |at: Option<i64>| at.map(|at| format!(" {}", ago(at, now_ms()))).unwrap_or_default();
    match (state.status, &state.error) {
        (Status::Failed, Some(error)) => {
            let served =
                if state.version.is_some() { "; what was built before is served" } else { "" };
            format!("the build failed{}: {error}{served}", since(state.failed_at))
        }
        (Status::Building, _) => match &state.progress {
            Some(progress) => format!("building, {progress}"),
            None => "building".to_owned(),
        },
        (status, _) => word(status).to_owned(),
    }
}

/// Returns whether the server builds an image, for an architecture.
fn is_built(image: &ImageState, arch: Option<Arch>) -> bool {
    arch.is_none_or(|arch| image.arches.contains_key(&arch))
}

pub(super) async fn run(args: &ShowArgs) -> Result<(), Failure> {
    let store = args.store.open(None)?;
    let keys = args.keys.of(&args.store, None)?;
    let baked = bakes(args).await;
    let mut all = Vec::new();
    let found = match (versions(&store, &args.image, args.arch), &baked) {
        (Ok(found), _) => found,
        // There is none yet, but somebody is at it.
        (Err(_), Some(baked)) if is_built(baked, args.arch) => Vec::new(),
        (Err(error), _) => return Err(error),
    };
    if args.output.is_table() {
        let states = baked.iter().flat_map(|image| &image.arches);
        for (arch, state) in states.filter(|(arch, _)| args.arch.is_none_or(|it| it == **arch)) {
            println!("{:<10} {arch}: {}", "state", told(state));
        }
    }
    for (arch, version) in found {
        let manifest = store.manifest(&version.digest)?;
        let signature = signature(&store, &version, &keys)?;
        if !args.output.is_table() {
            let state = baked.as_ref().and_then(|image| image.arches.get(&arch));
            all.push(json!({
                "version": version, "manifest": manifest, "signature": signature, "state": state,
            }));
            continue;
        }
        let index = store.index()?;
        let entry = index.images.get(&manifest.image).and_then(|arches| arches.get(&arch));
        let channels: Vec<_> = entry
            .into_iter()
            .flat_map(|entry| &entry.channels)
            .filter(|(_, digest)| **digest == version.digest)
            .map(|(channel, _)| channel.as_str())
            .collect();
        let created = i64::try_from(version.created).unwrap_or(0) * 1000;
        let kernel = &manifest.kernel;
        for (what, value) in [
            ("image", manifest.image.clone()),
            ("arch", arch.to_string()),
            ("version", version.digest.to_string()),
            ("channels", channels.join(",")),
            ("built", ago(created, now_ms())),
            ("signature", signature),
            ("kernel", kernel.release.clone()),
            ("UEFI", (if kernel.efi_stub { "starts it" } else { "cannot start it" }).to_owned()),
            ("arguments", manifest.cmdline.clone()),
            ("memory", format!("{} at least", size(manifest.min_ram))),
            ("download", size(manifest.download_size())),
        ] {
            println!("{what:<10} {value}");
        }
        let attachments: Vec<_> = version.attachments.keys().map(String::as_str).collect();
        println!("{:<10} {}\n", "attached", attachments.join(", "));
        let mut rows = table(&["component", "size", "unpacked", "packed", "made from"]);
        for segment in &manifest.segments {
            let source = manifest.sources.iter().find(|s| s.component == segment.component);
            rows.add_row([
                segment.component.clone(),
                size(segment.size),
                size(segment.unpacked),
                segment.compression.to_string(),
                source.map(|s| format!("{}@{}", s.reference, s.digest.short())).unwrap_or_default(),
            ]);
        }
        println!("{}\n", text(&rows));
        if args.packages {
            let mut rows = table(&["package", "version", "arch"]);
            for package in &manifest.packages {
                rows.add_row([&package.name, &package.version, &package.arch]);
            }
            println!("{}\n", text(&rows));
        }
    }
    if args.output.is_table() { Ok(()) } else { print_document(args.output, &all) }
}
