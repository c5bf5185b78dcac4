//! `kiln build`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_builder::progress::Bars;
use kiln_builder::{BuildError, BuildRequest, Store};
use kiln_types::Arch;

use super::table::{size, table, text};
use super::{Failure, KeyDirArg, StoreArg};

/// Bake an image: kernel and initrd from a YAML file
///
/// Packages come from the Debian mirror that apt uses on this computer, are checked against its signature, and are
/// kept for the next time. The same files give the same bytes. Several YAML files are one image: later ones add to
/// earlier ones.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// YAML files of the image
    #[arg(required = true, value_name = "IMAGE.yml")]
    specs: Vec<PathBuf>,
    /// Name of the image, with or without a channel; without one, the name of the first file
    #[arg(long)]
    name: Option<String>,
    /// x86_64 or arm64; without one, that of this computer
    #[arg(long)]
    arch: Option<Arch>,
    /// Also write kernel, initrd and manifest into this folder
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Debian mirror
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keys: KeyDirArg,
}

pub(super) async fn run(args: BuildArgs) -> Result<(), Failure> {
    let host =
        "this computer is of an architecture that Kiln builds no images for; name one with --arch";
    let arch =
        args.arch.or_else(Arch::host).ok_or_else(|| Failure::new(Failure::USAGE, anyhow!(host)))?;
    let store = Store::open(&args.store.store)?;
    let progress = Bars::new();
    let request = BuildRequest {
        name: args.name,
        out: args.out,
        mirror: args.mirror,
        keys: Some(args.keys.beside(&args.store.store)),
        progress: &progress,
        ..BuildRequest::new(&store, args.specs, arch)
    };
    let report = kiln_builder::build(request).await.map_err(|error| {
        let code = match &error {
            BuildError::Spec(_) | BuildError::Name(_) => Failure::CONFIG,
            _ => 1,
        };
        Failure::new(code, error)
    })?;
    let manifest = &report.manifest;
    let mut rows = table(&["file", "size", "unpacked", ""]);
    let kernel = &manifest.kernel;
    rows.add_row([
        format!("kernel {}", kernel.release),
        size(kernel.size),
        String::new(),
        String::new(),
    ]);
    for segment in &manifest.segments {
        let reused = if report.reused.contains(&segment.component) { "as before" } else { "" };
        rows.add_row([
            segment.component.clone(),
            size(segment.size),
            size(segment.unpacked),
            reused.to_owned(),
        ]);
    }
    println!("{}\n", text(&rows));
    println!(
        "{} {arch} {}: {} to download, boots with {} of memory",
        report.image,
        report.version,
        size(manifest.download_size()),
        size(manifest.min_ram)
    );
    Ok(())
}
