//! Boots by image, for as many images as a label may have values.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use kiln_inventory::{Boot, Outcome};
use kiln_types::ImageRef;

/// The words for how boots come out, and for those that begin.
pub(super) const BOOTS: [&str; 4] = ["started", "healthy", "failed", "abandoned"];
/// Images that are told apart. A server that has had more counts the rest together.
const MOST: usize = 64;
/// Boots of machines that were given no version.
const NONE: &str = "none";
/// Boots of images that there was no room for.
const OTHER: &str = "other";

/// How many boots began and how they came out, by image.
#[derive(Debug)]
pub struct ByImage(Mutex<BTreeMap<String, [u64; BOOTS.len()]>>);

impl ByImage {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// Counts a boot that begins.
    pub fn begins(&self, boot: &Boot) {
        self.add(boot, 0);
    }

    /// Counts how a boot came out.
    pub fn ends(&self, boot: &Boot) {
        let at = match boot.outcome {
            Outcome::Booting => return,
            Outcome::Healthy => 1,
            Outcome::Failed => 2,
            Outcome::Abandoned => 3,
        };
        self.add(boot, at);
    }

    fn add(&self, boot: &Boot, at: usize) {
        // What a machine is to boot need not exist; what it was given does.
        let image = boot.image.as_ref().filter(|_| boot.version.is_some());
        let name = image.map_or_else(|| NONE.to_owned(), ToString::to_string);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = if all.contains_key(&name) || all.len() < MOST {
            all.entry(name).or_default()
        } else {
            all.entry(OTHER.to_owned()).or_default()
        };
        if let Some(count) = counts.get_mut(at) {
            *count += 1;
        }
    }

    /// Returns the counts of each image that something boots or that is served. One that nothing has booted yet is
    /// there with zeros, so that its first boot is seen as one more.
    pub(super) fn read<'a>(
        &self,
        served: impl Iterator<Item = &'a ImageRef>,
    ) -> BTreeMap<String, [u64; BOOTS.len()]> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let names: BTreeSet<String> = served.map(ToString::to_string).collect();
        for name in [NONE.to_owned(), OTHER.to_owned()].into_iter().chain(names) {
            if all.len() < MOST + 2 {
                all.entry(name).or_default();
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use kiln_inventory::{BootId, MachineId, NewBoot};

    use super::*;

    fn boot(image: &str, outcome: Outcome) -> Boot {
        let mac = "52:54:00:00:00:01".parse().unwrap();
        let new = NewBoot {
            image: Some(image.parse().unwrap()),
            version: Some(kiln_builder::hash::sha256(b"version")),
            ..NewBoot::new(MachineId(1), "n1", mac, 0)
        };
        Boot { outcome, ..new.numbered(BootId(1)) }
    }

    #[test]
    fn boots_are_counted_by_image_and_those_without_a_version_together() {
        let counts = ByImage::new();
        counts.ends(&boot("web", Outcome::Healthy));
        counts.ends(&boot("web", Outcome::Failed));
        counts.ends(&boot("web", Outcome::Booting));
        counts.ends(&Boot { version: None, ..boot("no-such-image", Outcome::Failed) });
        let db: ImageRef = "db".parse().unwrap();
        let read = counts.read([&db].into_iter());
        let names: Vec<&str> = read.keys().map(String::as_str).collect();
        assert_eq!(
            names,
            [
                &db.to_string(),
                "none",
                "other",
                &boot("web", Outcome::Healthy).image.unwrap().to_string()
            ]
        );
        assert_eq!(
            read.values().collect::<Vec<_>>(),
            [&[0; 4], &[0, 0, 1, 0], &[0; 4], &[0, 1, 1, 0]]
        );
    }

    #[test]
    fn more_images_than_there_is_room_for_are_counted_together() {
        let counts = ByImage::new();
        for number in 0..200 {
            counts.ends(&boot(&format!("image-{number}"), Outcome::Healthy));
        }
        let many: Vec<ImageRef> =
            (0..500).map(|number| format!("served-{number}").parse().unwrap()).collect();
        let read = counts.read(many.iter());
        assert!(read.len() <= MOST + 2, "{}", read.len());
        assert_eq!(read["other"][1], 200 - MOST as u64);
    }
}
