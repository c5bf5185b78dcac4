use anyhow::anyhow;
use clap::Args;
use kiln_builder::store::{Store, StoreError};
use kiln_types::{Arch, ImageRef};

use super::super::{Failure, StoreArg};

/// Let a channel name a version
#[derive(Debug, Args)]
pub(super) struct TagArgs {
    /// The version, as NAME, NAME:CHANNEL or NAME@DIGEST; a beginning of the digest is enough
    #[arg(value_name = "IMAGE")]
    from: String,
    /// The channel, as NAME:CHANNEL of the same image
    #[arg(value_name = "NAME:CHANNEL")]
    to: ImageRef,
    /// Only for this architecture
    #[arg(long)]
    arch: Option<Arch>,
    #[command(flatten)]
    store: StoreArg,
}

/// Remove a channel, or an image with all that it has
///
/// A name with a channel removes the channel alone. What nothing names any more is freed by `kiln image gc`.
#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// NAME or NAME:CHANNEL
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    #[command(flatten)]
    store: StoreArg,
}

/// Gives errors of the store their exit codes.
pub(super) fn failure(error: StoreError) -> Failure {
    let code = match &error {
        StoreError::Unknown { .. } => Failure::NOT_FOUND,
        _ => 1,
    };
    Failure::new(code, error)
}

pub(super) fn tag(args: &TagArgs) -> Result<(), Failure> {
    let store = Store::open(&args.store.store)?;
    let name = args.from.split(['@', ':']).next().unwrap_or_default();
    if name != args.to.name() {
        let text = format!("`{}` is not a channel of image `{name}`", args.to);
        return Err(Failure::new(Failure::USAGE, anyhow!(text)));
    }
    let arches: Vec<_> = args.arch.map_or_else(|| Arch::ALL.to_vec(), |arch| vec![arch]);
    let (mut moved, mut missing) = (0, None);
    for arch in arches {
        match store.find(&args.from, arch) {
            Ok(version) => {
                store.tag(&args.to, arch, &version.digest).map_err(failure)?;
                println!("{} {arch}: {}", args.to, version.digest);
                moved += 1;
            }
            Err(error) => missing = Some(error),
        }
    }
    match missing {
        Some(error) if moved == 0 => Err(failure(error)),
        _ => Ok(()),
    }
}

pub(super) fn rm(args: &RmArgs) -> Result<(), Failure> {
    let store = Store::open(&args.store.store)?;
    for image in &args.images {
        let (name, channel) = match image.split_once(':') {
            Some((name, channel)) => (name, Some(channel)),
            None => (image.as_str(), None),
        };
        store.remove(name, channel).map_err(failure)?;
    }
    Ok(())
}
