use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_builder::oci::{self, OciError, Reference};
use kiln_types::Arch;

use super::super::build::{Show, image_settings, progress};
use super::super::{Failure, StoreArg};
use super::show::versions;

/// Send versions to a registry
///
/// All architectures that the channel has go under one name, with their signatures. `kiln image pull` brings them into
/// another store.
#[derive(Debug, Args)]
pub(super) struct PushArgs {
    /// NAME, NAME:CHANNEL or NAME@DIGEST; a beginning of the digest is enough
    image: String,
    /// Where to, as registry.example/team/web:1
    #[arg(value_parser = Reference::in_registry)]
    reference: Reference,
    /// Only for this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Settings, of which `[[registry]]` counts here
    #[arg(long, visible_alias = "settings", env = "KILN_CONFIG", value_name = "kiln.toml")]
    config: Option<PathBuf>,
    /// How to show progress on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    progress: Show,
    #[command(flatten)]
    store: StoreArg,
}

pub(super) async fn run(args: &PushArgs) -> Result<(), Failure> {
    let store = args.store.open(args.config.as_deref())?;
    let versions = versions(&store, &args.image, args.arch)?;
    let settings = image_settings(args.config.as_deref())?;
    let progress = progress(args.progress);
    let pushed = oci::push(&store, &versions, &args.reference, &settings, progress.as_ref())
        .await
        .map_err(failure)?;
    for (arch, version) in &versions {
        println!("{} {arch}: {}", args.reference, version.digest);
    }
    println!("{}@{}", args.reference, pushed.digest);
    Ok(())
}

/// Gives errors their exit codes.
pub(super) fn failure(error: OciError) -> Failure {
    let code = match &error {
        OciError::Malformed { .. } | OciError::NotBuilt { .. } => Failure::USAGE,
        OciError::NotForArch { .. } => Failure::NOT_FOUND,
        _ => 1,
    };
    Failure::new(code, anyhow!(error))
}
