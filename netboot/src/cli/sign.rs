//! `kiln image sign`.

use anyhow::anyhow;
use clap::Args;
use kiln_builder::trust::{SIGNATURE, check_signature, sign_checked};
use kiln_types::Arch;

use super::table::{table, text};
use super::{Failure, KeyDirArg, StoreArg};

/// Sign versions that are in the store already
///
/// Every artifact is compared with its digest before. Needed for versions of a Kiln that did not sign yet, after the
/// key that signed them is trusted no longer, and for images that were copied into the store: a signature says that
/// this site lets its machines boot them. Versions that a trusted key has signed stay as they are.
#[derive(Debug, Args)]
pub(super) struct SignArgs {
    /// Names of images; every version of them is signed
    #[arg(required_unless_present = "all", conflicts_with = "all", value_name = "IMAGE")]
    images: Vec<String>,
    /// All images of the store
    #[arg(long)]
    all: bool,
    /// One architecture only
    #[arg(long)]
    arch: Option<Arch>,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keys: KeyDirArg,
}

pub(super) fn run(args: &SignArgs) -> Result<(), Failure> {
    let store = args.store.open(None)?;
    let index = store.index()?;
    if let Some(name) = args.images.iter().find(|name| !index.images.contains_key(*name)) {
        let error = anyhow!("there is no image `{name}` in {}", store.dir().display());
        return Err(Failure::new(Failure::NOT_FOUND, error));
    }
    let keys = args.keys.of(&args.store, None)?;
    let key = keys.site_key()?;
    let trusted = keys.trusted()?;
    let mut rows = table(&["image", "arch", "version", "signed by"]);
    for (name, arches) in &index.images {
        if !args.all && !args.images.contains(name) {
            continue;
        }
        for (arch, entry) in arches.iter().filter(|(arch, _)| args.arch.is_none_or(|a| a == **arch))
        {
            for version in &entry.versions {
                let signer = match check_signature(&store, version, &trusted) {
                    Ok(signer) => signer.to_string(),
                    Err(_) => {
                        let signature = sign_checked(&store, &key, version)?;
                        let attachment = [(SIGNATURE.to_owned(), signature)];
                        store.attach(name, *arch, &version.digest, attachment)?;
                        format!("{} (now)", key.id())
                    }
                };
                rows.add_row([name.clone(), arch.to_string(), version.digest.short(), signer]);
            }
        }
    }
    println!("{}", text(&rows));
    Ok(())
}
