use std::path::PathBuf;

use clap::Args;
use kiln_builder::oci::{self, OciError, PullFrom, Reference, ReferenceError};
use kiln_builder::trust::check_signature;
use kiln_types::{Arch, ImageRef};

use super::super::build::{Show, image_settings, progress};
use super::super::{Failure, KeyDirArg, StoreArg};
use super::push::failure;

/// Bring versions from a registry into the store
///
/// Takes what `kiln image push` has sent, or what `kiln build --format oci` has written. A version is served once a
/// key that is trusted here has signed it.
#[derive(Debug, Args)]
pub(super) struct PullArgs {
    /// Where from, as registry.example/team/web:1, or oci:DIR or oci-archive:FILE for a layout
    #[arg(value_name = "REFERENCE", value_parser = from)]
    from: PullFrom,
    /// Name for it here, with or without a channel; the one that it was built as
    #[arg(long)]
    name: Option<ImageRef>,
    /// Only for this architecture; otherwise all that there are
    #[arg(long)]
    arch: Option<Arch>,
    /// Settings, of which `[[registry]]` and `[[trust.image]]` count here
    #[arg(long, visible_alias = "settings", env = "KILN_CONFIG", value_name = "kiln.toml")]
    config: Option<PathBuf>,
    /// How to show progress on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    progress: Show,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keys: KeyDirArg,
}

fn from(text: &str) -> Result<PullFrom, ReferenceError> {
    let path = text.strip_prefix("oci:").or_else(|| text.strip_prefix("oci-archive:"));
    match path.filter(|path| !path.is_empty()) {
        Some(path) => Ok(PullFrom::Path(path.into())),
        None => Reference::in_registry(text).map(PullFrom::Name),
    }
}

pub(super) async fn run(args: &PullArgs) -> Result<(), Failure> {
    let store = args.store.open(args.config.as_deref())?;
    let trusted = args.keys.of(&args.store, args.config.as_deref())?.trusted()?;
    let settings = image_settings(args.config.as_deref())?;
    let progress = progress(args.progress);
    let arches = args.arch.map_or_else(|| Arch::ALL.to_vec(), |arch| vec![arch]);
    let (mut pulled, mut missing) = (0, None);
    for arch in arches {
        let name = args.name.as_ref();
        match oci::pull(&args.from, arch, &store, name, &settings, progress.as_ref()).await {
            Ok(found) => {
                pulled += 1;
                println!("{} {arch}: {}", found.image, found.version);
                if let Err(problem) = check_signature(&store, &found.entry, &trusted) {
                    eprintln!("kiln: it will not be served: {problem}");
                }
            }
            Err(error @ OciError::NotForArch { .. }) => missing = Some(error),
            Err(error) => return Err(failure(error)),
        }
    }
    match missing {
        Some(error) if pulled == 0 => Err(failure(error)),
        _ => Ok(()),
    }
}
