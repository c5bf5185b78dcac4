//! `kiln image export`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_builder::Store;
use kiln_builder::deb::ArchiveConfig;
use kiln_builder::fetch::Fetcher;
use kiln_builder::output::{self, Bootable, Format};
use kiln_builder::progress::Bars;
use kiln_types::Arch;

use super::efi::EfiArgs;
use super::{Failure, StoreArg};

/// Write a version as a file that UEFI boots: program, CD or disk
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln image export web --format uki --out dist
  kiln image export web:stable --format raw-efi --disk-size 8G --out dist
  kiln image export web --format iso-efi --sign-key secure-boot.key --sign-cert secure-boot.pem --out dist

docs/outputs.md tells what each format is for, and how to sign.")]
pub(super) struct ExportArgs {
    /// NAME, NAME:CHANNEL or NAME@DIGEST
    image: String,
    /// What to write: uki, iso-efi, raw-efi, qcow2-efi
    #[arg(short, long, value_name = "FORMAT", value_delimiter = ',', required = true)]
    format: Vec<Format>,
    /// Folder to write to
    #[arg(short, long, value_name = "DIR")]
    out: PathBuf,
    /// x86_64 or arm64; that of this computer
    #[arg(long)]
    arch: Option<Arch>,
    /// Kernel arguments instead of those of the image
    #[arg(long, value_name = "ARGUMENTS")]
    cmdline: Option<String>,
    /// Debian mirror
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    #[command(flatten)]
    efi: EfiArgs,
    #[command(flatten)]
    store: StoreArg,
}

pub(super) async fn run(args: &ExportArgs) -> Result<(), Failure> {
    if let Some(other) = args.format.iter().find(|format| !format.is_efi()) {
        let error =
            anyhow!("`{other}` is written by `kiln build`, while it has the parts of the image");
        return Err(Failure::new(Failure::USAGE, error));
    }
    let host =
        "this computer is of an architecture that there are no images for; name one with --arch";
    let arch = args.arch.or_else(Arch::host);
    let arch = arch.ok_or_else(|| Failure::new(Failure::USAGE, anyhow!(host)))?;
    let store = Store::open(&args.store.store)?;
    let version = store.find(&args.image, arch)?;
    let manifest = store.manifest(&version.digest)?;

    let settings = args.efi.settings();
    let signer = settings.signer()?;
    let progress = Bars::new();
    let fetcher = Fetcher::new(&progress);
    let mut config = ArchiveConfig::new(store.cache_dir());
    config.mirror.clone_from(&args.mirror);
    let stub = settings.stub(config, &fetcher, arch).await?;
    let options = settings.options(&stub, signer.as_deref());
    let cmdline = args.cmdline.as_deref().unwrap_or(&manifest.cmdline);
    let bootable = Bootable { manifest: &manifest, store: &store, cmdline };
    for format in &args.format {
        println!("{}", output::write(*format, &bootable, &options, &args.out)?.display());
    }
    Ok(())
}
