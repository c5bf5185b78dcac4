use std::fs;
use std::path::PathBuf;

use anyhow::anyhow;
use clap::Args;
use kiln_builder::BuildRequest;
use kiln_builder::build::{BuildSettings, LOCK, LockUse, SETTINGS, SPEC};
use kiln_builder::progress::Bars;
use kiln_builder::store::{Store, VersionEntry};
use kiln_builder::trust::verify_version;
use kiln_types::Arch;

use super::super::build::{debian_settings, failure, image_settings};
use super::super::{Failure, KeyDirArg, StoreArg};
use super::show::versions;

/// Check that a version is what was built
///
/// Reads every artifact and compares it with its digest, and checks the signature. With --rebuild the version is also
/// built again, from the specification and the lock that were recorded with it, and compared. Files that the
/// specification takes from this computer by `source` are looked for in the working directory.
#[derive(Debug, Args)]
pub(super) struct VerifyArgs {
    /// NAME, NAME:CHANNEL or NAME@DIGEST; a beginning of the digest is enough
    image: String,
    /// Only for this architecture
    #[arg(long)]
    arch: Option<Arch>,
    /// Build it again and compare
    #[arg(long)]
    rebuild: bool,
    /// Debian mirror to rebuild from
    #[arg(long, value_name = "URL")]
    mirror: Option<String>,
    /// OCI layout or archive that has images to rebuild from; may be repeated
    #[arg(long, value_name = "DIR")]
    images: Vec<PathBuf>,
    /// Use no network to rebuild
    #[arg(long)]
    offline: bool,
    /// Settings of the places to rebuild from
    #[arg(long, env = "KILN_CONFIG", value_name = "kiln.toml")]
    config: Option<PathBuf>,
    #[command(flatten)]
    store: StoreArg,
    #[command(flatten)]
    keys: KeyDirArg,
}

pub(super) async fn run(args: &VerifyArgs) -> Result<(), Failure> {
    let store = args.store.open(args.config.as_deref())?;
    let trusted = args.keys.of(&args.store, args.config.as_deref())?.trusted()?;
    let mut problems = 0;
    for (arch, version) in versions(&store, &args.image, args.arch)? {
        let name = format!("{} {arch} {}", args.image, version.digest.short());
        let verified = verify_version(&store, &version, &trusted)?;
        for problem in &verified.problems {
            println!("{name}: {problem}");
        }
        problems += verified.problems.len();
        match &verified.signed_by {
            Some(signer) => {
                println!("{name}: {} artifacts, signed by {signer}", verified.artifacts);
            }
            None if verified.problems.is_empty() => {
                println!("{name}: no trusted key has signed it");
                problems += 1;
            }
            None => {}
        }
        if args.rebuild {
            match rebuild(args, &store, arch, &version).await? {
                None => println!("{name}: built again, the same"),
                Some(difference) => {
                    println!("{name}: built again, {difference}");
                    problems += 1;
                }
            }
        }
    }
    match problems {
        0 => Ok(()),
        n => Err(Failure::new(1, anyhow!("{n} problems"))),
    }
}

/// Builds a version again in a store of its own, with the downloads of this one, and tells how it differs.
async fn rebuild(
    args: &VerifyArgs,
    store: &Store,
    arch: Arch,
    version: &VersionEntry,
) -> Result<Option<String>, Failure> {
    let folder = tempfile::tempdir_in(store.dir())?;
    let attached = |name: &str| {
        let digest = version.attachments.get(name);
        let digest = digest.ok_or_else(|| anyhow!("the version has no record of its {name}"))?;
        Ok::<_, anyhow::Error>(fs::read(store.artifact(digest))?)
    };
    let (spec, lock) = (folder.path().join("image.yml"), folder.path().join("image.lock"));
    fs::write(&spec, attached(SPEC)?)?;
    fs::write(&lock, attached(LOCK)?)?;
    let other = Store::open(folder.path().join("store"))?;
    for part in ["deb", "oci"] {
        // Downloads are checked by digest wherever they are used.
        let _ = std::os::unix::fs::symlink(
            fs::canonicalize(store.cache_dir())?.join(part),
            other.cache_dir().join(part),
        );
    }
    // Versions of old have no record of their settings: they were built with the usual ones.
    let settings = match version.attachments.get(SETTINGS) {
        Some(_) => BuildSettings::from_json(&attached(SETTINGS)?).map_err(anyhow::Error::from)?,
        None => BuildSettings::default(),
    };
    let manifest = store.manifest(&version.digest)?;
    let mut images = image_settings(args.config.as_deref())?;
    images.dirs.clone_from(&args.images);
    let debian = debian_settings(args.config.as_deref())?;
    let progress = Bars::new();
    let request = BuildRequest {
        name: Some(manifest.image.clone()),
        mirror: args.mirror.clone().or(debian.mirror),
        snapshot_mirror: debian.snapshot_mirror,
        images,
        lock: Some(lock),
        lock_use: LockUse::Locked,
        release: settings.release,
        epoch: Some(settings.epoch),
        offline: args.offline,
        progress: &progress,
        ..BuildRequest::new(&other, vec![spec], arch)
    };
    let again = kiln_builder::build(request).await.map_err(failure)?;
    if again.version == version.digest {
        return Ok(None);
    }
    let mut differing = Vec::new();
    if again.manifest.kernel != manifest.kernel {
        differing.push("kernel".to_owned());
    }
    for segment in &manifest.segments {
        if !again.manifest.segments.contains(segment) {
            differing.push(segment.component.clone());
        }
    }
    Ok(Some(match differing.as_slice() {
        [] => "the manifest differs".to_owned(),
        parts => format!("these differ: {}", parts.join(", ")),
    }))
}
