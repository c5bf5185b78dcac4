//! `[discovery]`: what machines get that nobody has added.

use kiln_inventory::UnknownMachines;
use kiln_types::ImageRef;
use serde::Deserialize;
use toml::Spanned;

use super::Problems;

/// The most entries that the queue can have.
const MOST: u32 = 100_000;

/// How machines are treated that nobody has added.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiscoverySettings {
    /// What they get.
    pub unknown: UnknownMachines,
    /// The image that they run, where they run one.
    pub image: Option<ImageRef>,
    /// How many of them are kept.
    pub most: u32,
}

impl Default for DiscoverySettings {
    fn default() -> Self {
        Self { unknown: UnknownMachines::default(), image: None, most: 1000 }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireDiscovery {
    #[serde(default)]
    unknown: UnknownMachines,
    image: Option<Spanned<ImageRef>>,
    most: Option<Spanned<u32>>,
}

impl WireDiscovery {
    pub(super) fn check(self, problems: &mut Problems) -> DiscoverySettings {
        let mut settings = DiscoverySettings { unknown: self.unknown, ..Default::default() };
        let boots = self.unknown == UnknownMachines::Boot;
        match self.image {
            Some(image) if !boots => {
                let message = "`image` needs `unknown = \"boot\"`: no unknown machine would run it";
                problems.push((Some(image.span()), message.to_owned()));
            }
            None if boots => {
                let message =
                    "[discovery] unknown = \"boot\" needs the `image` that unknown machines run";
                problems.push((None, message.to_owned()));
            }
            image => settings.image = image.map(Spanned::into_inner),
        }
        if let Some(most) = self.most {
            let span = most.span();
            settings.most = most.into_inner();
            if !(1..=MOST).contains(&settings.most) {
                let message = format!("`most` has to be between 1 and {MOST}");
                problems.push((Some(span), message));
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_has_a_bound() {
        let check = |text: &str| {
            let mut problems = Problems::default();
            let settings = toml::from_str::<WireDiscovery>(text).unwrap().check(&mut problems);
            (settings, problems.len())
        };
        assert_eq!(check(""), (DiscoverySettings::default(), 0));
        assert_eq!(check("most = 5").0.most, 5);
        assert_eq!((check("most = 0").1, check("most = 100001").1), (1, 1));
        assert!(toml::from_str::<WireDiscovery>("most = -1").is_err());
        let (settings, problems) = check("unknown = \"boot\"\nimage = \"inspect\"");
        assert_eq!((settings.image, problems), ("inspect".parse().ok(), 0));
        assert_eq!((check("unknown = \"boot\"").1, check("image = \"inspect\"").1), (1, 1));
    }
}
