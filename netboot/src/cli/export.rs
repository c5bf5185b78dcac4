//! `kiln image export`.

use std::path::PathBuf;

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_builder::build::stub_pin;
use kiln_builder::deb::ArchiveConfig;
use kiln_builder::fetch::Fetcher;
use kiln_builder::oci;
use kiln_builder::output::{self, Bootable, Format};
use kiln_builder::progress::Bars;
use kiln_types::Arch;

use super::efi::EfiArgs;
use super::{Failure, StoreArg};

/// Write a version as a file: UEFI program, CD, disk, or archive for a registry
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
    /// What to write: uki, iso-efi, raw-efi, qcow2-efi, oci
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
    if let Some(other) = args.format.iter().find(|it| !it.is_efi() && **it != Format::Oci) {
        let error =
            anyhow!("`{other}` is written by `kiln build`, while it has the parts of the image");
        return Err(Failure::new(Failure::USAGE, error));
    }
    let host =
        "this computer is of an architecture that there are no images for; name one with --arch";
    let arch = args.arch.or_else(Arch::host);
    let arch = arch.ok_or_else(|| Failure::new(Failure::USAGE, anyhow!(host)))?;
    let store = args.store.open(None)?;
    let version = store.find(&args.image, arch)?;
    let manifest = store.manifest(&version.digest)?;

    if args.format.contains(&Format::Oci) {
        let dir = &args.out;
        std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let path = dir.join(format!("{}{}", manifest.image, Format::Oci.suffix(arch)));
        println!("{}", oci::write_archive(&store, arch, &version, &path)?.display());
    }
    let formats: Vec<_> = args.format.iter().filter(|it| it.is_efi()).collect();
    if formats.is_empty() {
        return Ok(());
    }
    let settings = args.efi.settings();
    let signer = settings.signer()?;
    let progress = Bars::new();
    let fetcher = Fetcher::new(&progress);
    let mut config = ArchiveConfig::new(store.cache_dir());
    config.mirror.clone_from(&args.mirror);
    let pin = stub_pin(&store, &version, arch)?;
    let stub = settings.stub(config, &fetcher, arch, pin.as_ref()).await?;
    let options = settings.options(&stub, signer.as_deref());
    let cmdline = args.cmdline.as_deref().unwrap_or(&manifest.cmdline);
    let bootable = Bootable { manifest: &manifest, store: &store, cmdline };
    for format in formats {
        println!("{}", output::write(*format, &bootable, &options, &args.out)?.display());
    }
    Ok(())
}
