//! Which version each channel names: builds and commands of this host change it in the artifact store, and the log of
//! changes tells of it.

use std::collections::VecDeque;

use kiln_inventory::{Step, Store};
use kiln_types::{Arch, Digest, ImageRef};
use serde_json::{Value, json};

use super::images::Served;

/// How the log of changes calls them.
pub(crate) const IMAGE: &str = "image";

/// A channel that names another version than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moved {
    image: ImageRef,
    arch: Arch,
    before: Option<Digest>,
    after: Option<Digest>,
}

/// Compares what channels name.
pub(super) fn moved(before: &Served, after: &Served) -> Vec<Moved> {
    let found = |of: &Served, image, arch| of.get(image)?.get(&arch).copied();
    let both = [before, after].into_iter().flatten();
    let mut places: Vec<(&ImageRef, Arch)> =
        both.flat_map(|(image, arches)| arches.keys().map(move |arch| (image, *arch))).collect();
    places.sort_unstable();
    places.dedup();
    let moved = places.into_iter().map(|(image, arch)| Moved {
        image: image.clone(),
        arch,
        before: found(before, image, arch),
        after: found(after, image, arch),
    });
    moved.filter(|it| it.before != it.after).collect()
}

/// What may wait to be written down; of more only the log of the server tells.
const MOST: usize = 256;

/// Says in the log of the server what has moved.
pub(super) fn log(moved: &[Moved]) {
    for Moved { image, arch, before, after } in moved {
        let shown = |version: &Option<Digest>| match version {
            Some(version) => version.to_string(),
            None => "nothing".to_owned(),
        };
        let (now, was) = (shown(after), shown(before));
        tracing::info!(%image, %arch, version = now, other = was, "an image names another version");
    }
}

/// Writes down what has moved, the first first. What cannot be written now waits.
pub(super) async fn tell(inventory: &Store, moved: &mut VecDeque<Moved>) {
    while let Some(Moved { image, arch, before, after }) = moved.front() {
        let document = |version: &Option<Digest>| -> Option<Value> {
            version.map(|version| json!({"arch": arch, "version": version}))
        };
        let (before, after) = (document(before), document(after));
        let name = image.to_string();
        let step = Step { noun: IMAGE, subject: 0, name: &name, before, after };
        if let Err(error) = inventory.record(step).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, %image, "that is not in the log of changes yet");
            moved.drain(..moved.len().saturating_sub(MOST));
            return;
        }
        moved.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn what_a_channel_names_anew_or_no_more_is_told_by_architecture() {
        let digest = |byte| Digest::from_bytes([byte; 32]);
        let image = |name: &str| name.parse::<ImageRef>().unwrap();
        let before: Served = [
            (
                image("web:stable"),
                BTreeMap::from([(Arch::X86_64, digest(1)), (Arch::Arm64, digest(2))]),
            ),
            (image("web:edge"), BTreeMap::from([(Arch::X86_64, digest(3))])),
        ]
        .into();
        let after: Served = [
            (
                image("web:stable"),
                BTreeMap::from([(Arch::X86_64, digest(1)), (Arch::Arm64, digest(3))]),
            ),
            (image("db:edge"), BTreeMap::from([(Arch::X86_64, digest(4))])),
        ]
        .into();
        let told = |it: Moved| (it.image.to_string(), it.arch, it.before, it.after);
        let all: Vec<_> = moved(&before, &after).into_iter().map(told).collect();
        assert_eq!(
            all,
            [
                ("db:edge".to_owned(), Arch::X86_64, None, Some(digest(4))),
                ("web:edge".to_owned(), Arch::X86_64, Some(digest(3)), None),
                ("web:stable".to_owned(), Arch::Arm64, Some(digest(2)), Some(digest(3))),
            ]
        );
        assert_eq!(moved(&after, &after), []);
    }
}
