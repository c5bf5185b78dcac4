//! Which build is due: a pure state machine over what was found, what was built and who asks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use kiln_inventory::Bake;
use kiln_types::{Arch, Digest};
use serde::{Deserialize, Serialize};

use super::policy::{BakeSettings, BuildWhen, Policy, UpdatePolicy};
use super::scan::Found;

/// The first wait after a failed build, in milliseconds. It doubles with each further failure.
const RETRY: i64 = 60_000;
/// The longest wait after a failed build.
const RETRY_MOST: i64 = 3_600_000;

/// One build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) image: String,
    pub(super) arch: Arch,
    pub(super) specs: Vec<PathBuf>,
    pub(super) fingerprint: Digest,
    /// The lock file beside the specification.
    pub(super) lock: Option<PathBuf>,
    /// What of the lock file moves before the build.
    pub(super) update: UpdatePolicy,
    /// Whether it is compressed as well as possible.
    pub(super) release: bool,
}

/// What is known of the builds of one image for one architecture. Times are in milliseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// The last build that succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub built: Option<Built>,
    /// The failures since then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failed: Option<Failed>,
}

/// A build that succeeded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// Digest of the specification.
    pub fingerprint: Digest,
    /// The version.
    pub version: Digest,
    /// When it ended.
    pub at: i64,
    /// When the lock file was updated last, or the first build ended.
    pub updated: i64,
}

/// Builds that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Digest of the specification.
    pub fingerprint: Digest,
    /// What the builder said the last time.
    pub error: String,
    /// When the last one ended.
    pub at: i64,
    /// How many there were with this specification.
    pub times: u32,
}

/// Every image of the folder and its builds.
#[derive(Debug)]
pub(super) struct Schedule {
    settings: BakeSettings,
    images: BTreeMap<String, Found>,
    history: BTreeMap<String, BTreeMap<Arch, History>>,
    running: BTreeMap<String, (Arch, Digest)>,
    /// Asked for by a person: built whatever the policy says.
    requested: BTreeSet<(String, Arch)>,
    /// Asked for by a machine that boots.
    asked: BTreeSet<(String, Arch)>,
}

impl Schedule {
    pub(super) const fn new(
        settings: BakeSettings,
        history: BTreeMap<String, BTreeMap<Arch, History>>,
    ) -> Self {
        Self {
            settings,
            images: BTreeMap::new(),
            history,
            running: BTreeMap::new(),
            requested: BTreeSet::new(),
            asked: BTreeSet::new(),
        }
    }

    /// Takes what is in the folder now, and tells whether that is something else than before.
    pub(super) fn found(&mut self, images: BTreeMap<String, Found>) -> bool {
        let changed = self.images != images;
        self.images = images;
        changed
    }

    /// Forgets versions that are not in the store any more.
    pub(super) fn keep_versions(&mut self, there: impl Fn(&str, Arch, &Digest) -> bool) {
        for (image, arches) in &mut self.history {
            for (arch, history) in arches {
                if history.built.as_ref().is_some_and(|built| !there(image, *arch, &built.version))
                {
                    history.built = None;
                }
            }
        }
    }

    /// Notes that a machine wants to boot an image.
    pub(super) fn asked(&mut self, image: &str, arch: Arch) {
        if self.arches(image).contains(&arch) {
            self.asked.insert((image.to_owned(), arch));
        }
    }

    /// Notes that someone wants a build. Returns the architectures, or nothing when there is no such image.
    pub(super) fn request(&mut self, image: &str, only: Option<Arch>) -> Option<Vec<Arch>> {
        if !self.images.contains_key(image) {
            return None;
        }
        let arches = only.map_or_else(|| self.arches(image).to_vec(), |arch| vec![arch]);
        for arch in &arches {
            self.requested.insert((image.to_owned(), *arch));
        }
        Some(arches)
    }

    /// Takes the next build that is due, unless as many run as may. Of one image only one runs at a time.
    pub(super) fn next(&mut self, now: i64) -> Option<Job> {
        if self.running.len() >= self.settings.jobs {
            return None;
        }
        let (image, arch, update) = self.candidates().find_map(|(image, arch)| {
            let free = !self.running.contains_key(image);
            free.then(|| self.due(image, arch, now)).flatten().map(|u| (image.to_owned(), arch, u))
        })?;
        let found = self.images.get(&image)?.clone();
        let key = (image.clone(), arch);
        self.requested.remove(&key);
        self.asked.remove(&key);
        self.running.insert(image.clone(), (arch, found.fingerprint));
        let release = self.settings.policy(&image).release;
        Some(Job {
            image,
            arch,
            specs: found.specs,
            fingerprint: found.fingerprint,
            lock: found.lock,
            update,
            release,
        })
    }

    /// Takes how a build ended.
    pub(super) fn finished(&mut self, job: &Job, result: Result<Digest, String>, now: i64) {
        self.running.remove(&job.image);
        let history =
            self.history.entry(job.image.clone()).or_default().entry(job.arch).or_default();
        match result {
            Ok(version) => {
                let before = history.built.as_ref().map(|built| built.updated);
                let kept = before.filter(|_| job.update == UpdatePolicy::Never);
                let updated = kept.unwrap_or(now);
                let fingerprint = job.fingerprint;
                history.built = Some(Built { fingerprint, version, at: now, updated });
                history.failed = None;
            }
            Err(error) => {
                let again = history.failed.as_ref().filter(|it| it.fingerprint == job.fingerprint);
                let times = again.map_or(0, |failed| failed.times).saturating_add(1);
                let fingerprint = job.fingerprint;
                history.failed = Some(Failed { fingerprint, error, at: now, times });
            }
        }
    }

    /// Returns what the servers tell machines that wait.
    pub(super) fn bakes(&self) -> BTreeMap<String, BTreeMap<Arch, Bake>> {
        let mut bakes: BTreeMap<String, BTreeMap<Arch, Bake>> = BTreeMap::new();
        for (image, arch) in self.candidates() {
            if let Some(bake) = self.bake(image, arch) {
                bakes.entry(image.to_owned()).or_default().insert(arch, bake);
            }
        }
        bakes
    }

    fn bake(&self, image: &str, arch: Arch) -> Option<Bake> {
        if self.running.get(image).is_some_and(|(running, _)| *running == arch) {
            return Some(Bake::Building);
        }
        let found = self.images.get(image)?;
        let history = self.history(image, arch);
        let failed = history.and_then(|it| it.failed.as_ref());
        if let Some(failed) = failed.filter(|it| it.fingerprint == found.fingerprint) {
            return Some(Bake::Failed { error: failed.error.clone() });
        }
        let unchanged = history
            .and_then(|it| it.built.as_ref())
            .is_some_and(|built| built.fingerprint == found.fingerprint);
        let requested = self.requested.contains(&(image.to_owned(), arch));
        let by_itself = self.settings.policy(image).build != BuildWhen::Manual && !unchanged;
        (requested || by_itself).then_some(Bake::Waiting)
    }

    /// Returns what has become of the builds of an image.
    pub(super) fn history(&self, image: &str, arch: Arch) -> Option<&History> {
        self.history.get(image)?.get(&arch)
    }

    /// Returns all that has to outlive the server.
    pub(super) const fn memory(&self) -> &BTreeMap<String, BTreeMap<Arch, History>> {
        &self.history
    }

    /// Returns every image with its files.
    pub(super) const fn images(&self) -> &BTreeMap<String, Found> {
        &self.images
    }

    /// Returns what an image is built for.
    pub(super) fn arches(&self, image: &str) -> &[Arch] {
        &self.settings.policy(image).arch
    }

    /// Returns what is set for an image.
    pub(super) fn policy(&self, image: &str) -> &Policy {
        self.settings.policy(image)
    }

    fn candidates(&self) -> impl Iterator<Item = (&str, Arch)> {
        let by_policy = self
            .images
            .keys()
            .flat_map(|image| self.arches(image).iter().map(move |arch| (image.as_str(), *arch)));
        let requested = self.requested.iter().map(|(image, arch)| (image.as_str(), *arch));
        requested.chain(by_policy)
    }

    /// Returns whether a build is due, and what of its lock file is to move.
    fn due(&self, image: &str, arch: Arch, now: i64) -> Option<UpdatePolicy> {
        let found = self.images.get(image)?;
        let policy = self.settings.policy(image);
        let key = (image.to_owned(), arch);
        let history = self.history(image, arch);
        let built = history.and_then(|it| it.built.as_ref());
        let every = i64::try_from(policy.every.as_millis()).unwrap_or(i64::MAX);
        let old = |since: i64| now.saturating_sub(since) >= every;
        let outdated = policy.update != UpdatePolicy::Never
            && policy.build != BuildWhen::Manual
            && built.is_some_and(|built| old(built.updated));
        let update = if outdated { policy.update } else { UpdatePolicy::Never };
        if self.requested.contains(&key) {
            return Some(update);
        }
        let failed = history.and_then(|it| it.failed.as_ref());
        if let Some(failed) = failed.filter(|it| it.fingerprint == found.fingerprint) {
            let wait = RETRY.saturating_mul(1 << (failed.times.saturating_sub(1)).min(10));
            if now.saturating_sub(failed.at) < wait.min(RETRY_MOST) {
                return None;
            }
        }
        let changed = built.is_none_or(|built| built.fingerprint != found.fingerprint);
        let due = match policy.build {
            BuildWhen::OnChange => changed,
            BuildWhen::OnBoot => changed && self.asked.contains(&key),
            BuildWhen::Schedule => built.is_none_or(|built| old(built.at)),
            BuildWhen::Manual => false,
        };
        (due || outdated).then_some(update)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
