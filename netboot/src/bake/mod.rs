//! Bakes images by itself: watches the folder of specifications, builds what is due, and tells machines that wait.
//!
//! ```text
//!  folder ──▶ scan ─┐
//!  machines ──ask──▶ schedule ──▶ child: kiln build ──▶ artifact store ──▶ view ──▶ machines
//!  people ──request─┘                └── events ──▶ live ──▶ API, screens of machines that wait
//! ```
//!
//! A build is a process of its own with less rights than the server, so no layer and no package is unpacked in here.
//! What is served moves only when a version is whole: a build that fails changes nothing but the state of its image.

mod child;
pub mod confine;
mod live;
mod memory;
mod policy;
mod scan;
mod schedule;
mod state;
mod task;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_inventory::{Decision, Plan, Reason, Sighting};
use kiln_types::{Arch, ImageRef};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub use self::live::LogLine;
pub use self::policy::{BakeSettings, BuildWhen, Policy, UpdatePolicy};
pub use self::schedule::{Built, Failed, History};
pub use self::state::{ArchState, ImageState, Status};

use self::child::Workshop;
use self::live::Live;
use self::schedule::Schedule;
use crate::view::View;

/// Requests that may wait for the task.
const QUEUE: usize = 256;

/// The way to the task that bakes. Clones share it.
#[derive(Clone, Debug)]
pub struct Baker {
    queue: mpsc::Sender<Message>,
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
}

#[derive(Debug)]
enum Message {
    Asked(String, Arch),
    Request(String, Option<Arch>),
}

/// What the task changes and others read.
#[derive(Debug)]
struct Shared {
    schedule: Mutex<Schedule>,
    live: Mutex<BTreeMap<String, Arc<Mutex<Live>>>>,
}

/// What the baker needs of the server.
#[derive(Debug)]
pub struct BakerConfig {
    /// What is built when.
    pub settings: BakeSettings,
    /// Folder for what has to outlive the server: what was built, and lock files.
    pub data_dir: PathBuf,
    /// Folder of the artifact store.
    pub store_dir: PathBuf,
    /// Debian mirror.
    pub mirror: Option<String>,
}

impl BakerConfig {
    /// Returns a baker that builds nothing.
    #[cfg(test)]
    pub(crate) fn idle(dir: &std::path::Path) -> Self {
        let settings = BakeSettings::default();
        Self { settings, data_dir: dir.to_owned(), store_dir: dir.join("store"), mirror: None }
    }
}

impl Baker {
    /// Starts the task. It ends, and running builds with it, when it is told to stop.
    pub fn start(
        config: BakerConfig,
        view: Arc<View>,
        stop: CancellationToken,
    ) -> (Self, JoinHandle<()>) {
        let (queue, messages) = mpsc::channel(QUEUE);
        let (changed, changes) = watch::channel(0);
        let memory = config.data_dir.join("bake.json");
        let mut schedule = Schedule::new(config.settings.clone(), memory::read(&memory));
        if let Ok(index) = view.artifacts().index() {
            schedule.keep_versions(|image, arch, version| {
                let entry = index.images.get(image).and_then(|arches| arches.get(&arch));
                entry.is_some_and(|entry| entry.versions.iter().any(|v| v.digest == *version))
            });
        }
        let shared =
            Arc::new(Shared { schedule: Mutex::new(schedule), live: Mutex::new(BTreeMap::new()) });
        let workshop = Workshop {
            locks: config.data_dir.join("locks"),
            settings: config.settings,
            store: config.store_dir,
            mirror: config.mirror,
        };
        let task = task::Task { shared: shared.clone(), workshop, memory, view, changed, stop };
        (Self { queue, shared, changes }, tokio::spawn(task.run(messages)))
    }

    /// Notes which image a machine wants that a decision was made for, and returns how far its build is where the machine
    /// has to wait for it.
    pub fn hears(&self, decision: &Decision, sighting: &Sighting) -> Option<String> {
        let settings = decision.settings.as_ref()?;
        let image = match &decision.plan {
            Plan::Boot(plan) => &plan.image,
            _ => &settings.image.as_ref()?.value,
        };
        let arch = match &decision.plan {
            Plan::Boot(plan) => plan.arch,
            _ => sighting.arch().or_else(|| Some(settings.arch.as_ref()?.value))?,
        };
        self.asked(image, arch);
        let building = matches!(decision.reasons.last(), Some(Reason::BeingBuilt { .. }));
        building.then(|| self.progress(image.name())).flatten()
    }

    /// Notes that a machine wants to boot an image. Never waits.
    pub fn asked(&self, image: &ImageRef, arch: Arch) {
        if image.channel() == ImageRef::LATEST {
            let _ = self.queue.try_send(Message::Asked(image.name().to_owned(), arch));
        }
    }

    /// Asks for a build now, whatever the policy says. Returns whether the folder has such an image.
    pub async fn request(&self, image: &str, arch: Option<Arch>) -> bool {
        let known = self.shared.schedule().images().contains_key(image);
        known && self.queue.send(Message::Request(image.to_owned(), arch)).await.is_ok()
    }

    /// Returns the state of every image of the folder.
    pub fn states(&self) -> Vec<ImageState> {
        let schedule = self.shared.schedule();
        schedule.images().keys().filter_map(|name| self.shared.state(&schedule, name)).collect()
    }

    /// Returns the state of one image of the folder.
    pub fn state(&self, image: &str) -> Option<ImageState> {
        self.shared.state(&self.shared.schedule(), image)
    }

    /// Says how far the build of an image is, in a few words.
    pub fn progress(&self, image: &str) -> Option<String> {
        self.shared.live(image)?.lock().unwrap_or_else(PoisonError::into_inner).progress()
    }

    /// Returns the lines of an image's log after one, waiting up to `patience` until there are some, and the number
    /// of the last line.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn log(&self, image: &str, after: u64, patience: Duration) -> (Vec<LogLine>, u64) {
        let look = || match self.shared.live(image) {
            Some(live) => live.lock().unwrap_or_else(PoisonError::into_inner).after(after),
            None => (Vec::new(), 0),
        };
        let mut changes = self.changes.clone();
        let wait = async {
            loop {
                changes.borrow_and_update();
                let (lines, last) = look();
                // A line comes without a change of state, so look again soon in any case.
                if !lines.is_empty() {
                    return (lines, last);
                }
                let soon = tokio::time::sleep(Duration::from_millis(200));
                tokio::select! {
                    () = soon => {}
                    _ = changes.changed() => {}
                }
            }
        };
        match tokio::time::timeout(patience, wait).await {
            Ok(found) => found,
            Err(_) => look(),
        }
    }
}

impl Shared {
    fn schedule(&self) -> MutexGuard<'_, Schedule> {
        self.schedule.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn live(&self, image: &str) -> Option<Arc<Mutex<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(image).cloned()
    }

    fn open_live(&self, image: &str) -> Arc<Mutex<Live>> {
        let mut all = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(image.to_owned()).or_default().clone()
    }

    fn state(&self, schedule: &Schedule, image: &str) -> Option<ImageState> {
        let live = self.live(image);
        let live = live.as_ref().map(|it| it.lock().unwrap_or_else(PoisonError::into_inner));
        state::of(schedule, image, live.as_deref())
    }
}

#[cfg(test)]
mod tests;
