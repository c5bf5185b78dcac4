//! `kiln build`.

use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_types::Arch;

use super::{Failure, StoreArg};

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
}

pub(super) async fn run(args: BuildArgs) -> Result<(), Failure> {
    let _ = args;
    Err(anyhow!("not there yet").into())
}
