//! When the server builds an image by itself.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use kiln_types::Arch;
use serde::{Deserialize, Serialize};

/// What the server builds by itself: the checked form of `[images]` and `[[image]]` in `kiln.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BakeSettings {
    /// The folder of specifications. Without one, the server builds nothing.
    pub dir: Option<PathBuf>,
    /// How many builds run at a time.
    pub jobs: usize,
    /// After this long a build is ended and counts as failed.
    pub timeout: Duration,
    /// For images that are not named.
    pub policy: Policy,
    /// For images by name.
    pub images: BTreeMap<String, Policy>,
    /// The settings that builds read, for registries and mirrors.
    pub config: Option<PathBuf>,
    /// The folder of the key that builds sign with; the one beside the store when there is none.
    pub keys: Option<PathBuf>,
    /// The program that builds; this one, unless a test names another.
    pub program: Option<PathBuf>,
}

impl Default for BakeSettings {
    fn default() -> Self {
        Self {
            dir: None,
            jobs: 1,
            timeout: Duration::from_secs(3600),
            policy: Policy::default(),
            images: BTreeMap::new(),
            config: None,
            keys: None,
            program: None,
        }
    }
}

impl BakeSettings {
    /// Returns what is set for an image.
    pub fn policy(&self, image: &str) -> &Policy {
        self.images.get(image).unwrap_or(&self.policy)
    }
}

/// When an image is built, for what, and how its lock file moves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = BuildPolicy)]
pub struct Policy {
    /// When it is built.
    pub build: BuildWhen,
    /// What a scheduled update may move in its lock file.
    pub update: UpdatePolicy,
    /// How often a scheduled build or an update runs.
    #[schema(value_type = Object)]
    pub every: Duration,
    /// What it is built for.
    pub arch: Vec<Arch>,
    /// Whether it is compressed as well as possible.
    pub release: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            build: BuildWhen::OnChange,
            update: UpdatePolicy::Never,
            every: Duration::from_secs(24 * 3600),
            arch: Arch::host().into_iter().collect(),
            release: false,
        }
    }
}

/// When an image is built.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BuildWhen {
    /// As soon as its specification has changed.
    #[default]
    OnChange,
    /// When a machine wants to boot it and its specification has changed. The machine gets the version that is there;
    /// where there is none, it waits.
    OnBoot,
    /// Again and again, after a time.
    Schedule,
    /// Only when someone asks for it.
    Manual,
}

/// What an update may move in the lock file of an image.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpdatePolicy {
    /// Nothing: a lock file moves only by `kiln image update`.
    #[default]
    Never,
    /// Packages that have a security update.
    Security,
    /// Every tag and every package.
    All,
}
