use std::collections::BTreeMap;
use std::path::PathBuf;

use kiln_inventory::Bake;
use kiln_types::{Arch, Digest};
use serde::{Deserialize, Serialize};

use super::live::Live;
use super::policy::Policy;
use super::schedule::Schedule;

/// An image that the server builds by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImageState {
    /// Its name.
    pub image: String,
    /// The files of its specification.
    #[schema(value_type = Vec<String>)]
    pub specs: Vec<PathBuf>,
    /// When it is built.
    pub policy: Policy,
    /// How far it is, by architecture.
    pub arches: BTreeMap<Arch, ArchState>,
    /// Number of the last line of its log.
    pub log: u64,
}

/// How far the builds for one architecture are. Times are in milliseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ArchState {
    /// In one word.
    pub status: Status,
    /// The version that was built last, and is served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<Digest>,
    /// When it was built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built_at: Option<i64>,
    /// Why the last build failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// When it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed_at: Option<i64>,
    /// How far the running build is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
}

/// How far the builds for one architecture are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = BuildStatus)]
pub enum Status {
    /// Nothing is built and nothing will be until someone asks.
    Idle,
    /// A build waits for its turn, or for a machine that asks.
    Waiting,
    /// A build runs.
    Building,
    /// What is in the folder is what was built.
    Built,
    /// The last build failed; what was built before is served.
    Failed,
}

/// Puts together what is known of one image of the folder.
pub(super) fn of(schedule: &Schedule, image: &str, live: Option<&Live>) -> Option<ImageState> {
    let found = schedule.images().get(image)?;
    let bakes = schedule.bakes().remove(image).unwrap_or_default();
    let by_history = schedule.memory().get(image).into_iter().flat_map(|all| all.keys().copied());
    let arches = schedule.arches(image).iter().copied().chain(bakes.keys().copied());
    let arches = arches
        .chain(by_history)
        .map(|arch| {
            let history = schedule.history(image, arch).cloned().unwrap_or_default();
            let status = match bakes.get(&arch) {
                Some(Bake::Waiting) => Status::Waiting,
                Some(Bake::Building) => Status::Building,
                Some(Bake::Failed { .. }) => Status::Failed,
                None if history.built.is_some() => Status::Built,
                None => Status::Idle,
            };
            let running = status == Status::Building;
            let (built, failed) = (history.built.as_ref(), history.failed.as_ref());
            let state = ArchState {
                status,
                version: built.map(|built| built.version),
                built_at: built.map(|built| built.at),
                error: failed.map(|failed| failed.error.clone()),
                failed_at: failed.map(|failed| failed.at),
                progress: live.filter(|_| running).and_then(Live::progress),
            };
            (arch, state)
        })
        .collect();
    Some(ImageState {
        image: image.to_owned(),
        specs: found.specs.clone(),
        policy: schedule.policy(image).clone(),
        arches,
        log: live.map_or(0, |live| live.after(u64::MAX).1),
    })
}
