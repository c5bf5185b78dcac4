use std::collections::{BTreeMap, BTreeSet};

use anyhow::anyhow;
use clap::Args;
use kiln_builder::store::{ImageEntry, StoreError};
use kiln_types::{Arch, ImageRef};

use super::super::confirm::Sure;
use super::super::machine::DryArg;
use super::super::table::plain;
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
    dry: DryArg,
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
    sure: Sure,
    #[command(flatten)]
    dry: DryArg,
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
    let store = args.store.open(None)?;
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
                let would = if args.dry.dry_run { " (would be)" } else { "" };
                if !args.dry.dry_run {
                    store.tag(&args.to, arch, &version.digest).map_err(failure)?;
                }
                println!("{} {arch}: {}{would}", args.to, version.digest);
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
    let store = args.store.open(None)?;
    let images: Vec<(&str, Option<&str>)> = args.images.iter().map(|it| parts(it)).collect();
    let goes = |(name, channel): &(&str, Option<&str>)| {
        let known = store.index()?.images.get(*name).cloned();
        what_goes(name, *channel, known.as_ref()).ok_or_else(|| StoreError::Unknown {
            what: format!(
                "image or channel `{}`",
                channel.map_or_else(|| (*name).to_owned(), |it| format!("{name}:{it}"))
            ),
            store: store.dir().to_owned(),
        })
    };
    // All of them are looked for before the first is gone.
    let lines: Result<Vec<String>, StoreError> = images.iter().map(goes).collect();
    let lines = lines.map_err(failure)?;
    if args.dry.dry_run {
        return super::super::print::say(&lines.join("\n"));
    }
    args.sure
        .ask(&format!("{}. What boots by these names finds nothing. Go on?", lines.join("; ")))?;
    for (name, channel) in images {
        store.remove(name, channel).map_err(failure)?;
    }
    Ok(())
}

fn parts(image: &str) -> (&str, Option<&str>) {
    image.split_once(':').map_or((image, None), |(name, channel)| (name, Some(channel)))
}

/// Says what goes with an image, or with a channel of it. Nothing where there is none.
fn what_goes(
    name: &str,
    channel: Option<&str>,
    known: Option<&BTreeMap<Arch, ImageEntry>>,
) -> Option<String> {
    let known = known?;
    let shown = plain(name);
    match channel {
        Some(channel) => {
            let mut all = known.values().filter_map(|entry| entry.channels.get(channel));
            let version = all.next()?;
            Some(format!(
                "the channel {shown}:{} (version {}) goes",
                plain(channel),
                version.short()
            ))
        }
        None => {
            let versions: usize = known.values().map(|entry| entry.versions.len()).sum();
            let channels: BTreeSet<&str> = known
                .values()
                .flat_map(|entry| entry.channels.keys().map(String::as_str))
                .collect();
            let channels: Vec<String> = channels.into_iter().map(plain).collect();
            Some(format!(
                "the image {shown} goes with {versions} versions and the channels {}",
                channels.join(", ")
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::Digest;

    use super::*;

    #[test]
    fn it_is_said_which_versions_and_channels_go() {
        let digest = Digest::from_bytes([7; 32]);
        let entry = ImageEntry {
            channels: [("latest".to_owned(), digest), ("stable".to_owned(), digest)].into(),
            ..ImageEntry::default()
        };
        let known: BTreeMap<Arch, ImageEntry> = [(Arch::X86_64, entry)].into();
        let goes = |channel: Option<&str>| what_goes("web", channel, Some(&known));
        let all = "the image web goes with 0 versions and the channels latest, stable";
        assert_eq!(goes(None).as_deref(), Some(all));
        let one = format!("the channel web:stable (version {}) goes", digest.short());
        assert_eq!(goes(Some("stable")), Some(one));
        assert_eq!(goes(Some("edge")), None);
        assert_eq!(what_goes("web", None, None), None);
        assert_eq!(parts("web:stable"), ("web", Some("stable")));
        assert_eq!(parts("web"), ("web", None));
    }
}
