//! The one task that decides and starts builds.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kiln_types::Digest;
use notify::{RecursiveMode, Watcher as _};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::child::{Workshop, make_locks};
use super::scan::Scanned;
use super::schedule::Job;
use super::{Message, Shared, memory, scan};
use crate::boots::now_ms;
use crate::trouble::Trouble;
use crate::view::View;

/// An editor saves in several steps: look when it has been quiet for this long.
const SETTLE: Duration = Duration::from_millis(300);
/// The folder is looked at this often in any case: some file systems tell nothing.
const LOOK: Duration = Duration::from_secs(15);

pub(super) struct Task {
    pub(super) shared: Arc<Shared>,
    pub(super) workshop: Workshop,
    pub(super) memory: PathBuf,
    pub(super) view: Arc<View>,
    pub(super) changed: watch::Sender<u64>,
    pub(super) stop: CancellationToken,
}

/// What the log says of the folder already.
struct Told {
    unread: Trouble,
    left_out: BTreeMap<PathBuf, String>,
}

impl Default for Told {
    fn default() -> Self {
        let unread = Trouble::new("specifications not read", "specifications are read again");
        Self { unread, left_out: BTreeMap::new() }
    }
}

type Finished = (Job, Result<Digest, String>);

impl Task {
    pub(super) async fn run(self, mut messages: mpsc::Receiver<Message>) {
        let task = Arc::new(self);
        let Some(dir) = task.workshop.settings.dir.clone() else {
            // Nothing is ever built; requests find no image.
            task.stop.cancelled().await;
            return;
        };
        if let Err(error) = make_locks(&task.workshop.locks) {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, path = %task.workshop.locks.display(), "cannot make the folder");
        }
        let (told, mut events) = mpsc::channel(1);
        let mut watcher = notify::recommended_watcher(move |_| {
            // A full queue holds all that has to be said.
            let _ = told.try_send(());
        })
        .ok();
        let mut watched = false;
        let mut running = JoinSet::new();
        let mut look = tokio::time::interval(LOOK);
        let mut scan_now = true;
        let mut told = Told::default();
        loop {
            if let Some(watcher) = watcher.as_mut().filter(|_| !watched) {
                // The folder may appear later.
                watched = watcher.watch(&dir, RecursiveMode::Recursive).is_ok();
            }
            if !dir.is_dir() {
                watched = false;
            }
            if std::mem::take(&mut scan_now) {
                task.scan(&dir, &mut told).await;
            }
            task.start_due(&mut running).await;
            tokio::select! {
                () = task.stop.cancelled() => break,
                _ = look.tick() => scan_now = true,
                Some(()) = events.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    while events.try_recv().is_ok() {}
                    scan_now = true;
                }
                Some(message) = messages.recv() => task.take(message),
                Some(done) = running.join_next(), if !running.is_empty() => task.finish(done).await,
            }
        }
        // Every build was told to stop and is killed when its task is dropped.
        while running.join_next().await.is_some() {}
    }

    async fn scan(&self, dir: &std::path::Path, told: &mut Told) {
        let dir = dir.to_owned();
        let Ok(scanned) = tokio::task::spawn_blocking(move || scan::scan(&dir)).await else {
            return;
        };
        let scanned = match scanned {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Scanned::default()),
            scanned => scanned,
        };
        let Some(Scanned { found, left_out }) = told.unread.note(scanned) else { return };
        for (file, why) in
            left_out.iter().filter(|(file, why)| told.left_out.get(*file) != Some(*why))
        {
            tracing::warn!(path = %file.display(), reason = why, "left out");
        }
        told.left_out = left_out;
        let changed = self.shared.schedule().found(found);
        if changed {
            tracing::info!(
                images = self.shared.schedule().images().len(),
                "specifications changed"
            );
            self.publish().await;
        }
    }

    fn take(&self, message: Message) {
        let mut schedule = self.shared.schedule();
        match message {
            Message::Asked(image, arch) => schedule.asked(&image, arch),
            Message::Request(image, arch) => {
                schedule.request(&image, arch);
            }
        }
    }

    async fn start_due(self: &Arc<Self>, running: &mut JoinSet<Finished>) {
        let mut started = false;
        while let Some(job) = self.next() {
            started = true;
            let task = self.clone();
            running.spawn(async move {
                let live = task.shared.open_live(&job.image);
                let text = format!("building {} for {}", job.image, job.arch);
                live.lock().unwrap_or_else(PoisonError::into_inner).begin(&text);
                tracing::info!(image = job.image, arch = %job.arch, "build started");
                let result = task.workshop.run(&job, &live, &task.stop).await;
                let text = match &result {
                    Ok(version) => format!("built {} for {}: {version}", job.image, job.arch),
                    Err(error) => format!("failed: {error}"),
                };
                live.lock().unwrap_or_else(PoisonError::into_inner).log(&text);
                (job, result)
            });
        }
        if started {
            self.publish().await;
        }
    }

    fn next(&self) -> Option<Job> {
        if self.stop.is_cancelled() { None } else { self.shared.schedule().next(now_ms()) }
    }

    async fn finish(&self, done: Result<Finished, tokio::task::JoinError>) {
        let (job, result) = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a build was lost");
                return;
            }
        };
        match &result {
            Ok(version) => {
                tracing::info!(image = job.image, arch = %job.arch, %version, "image built");
            }
            Err(error) => {
                tracing::warn!(image = job.image, arch = %job.arch, error, "build failed");
            }
        }
        let memory = {
            let mut schedule = self.shared.schedule();
            schedule.finished(&job, result, now_ms());
            schedule.memory().clone()
        };
        if let Err(error) = memory::write(&self.memory, &memory) {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, path = %self.memory.display(), "state of images not kept");
        }
        self.publish().await;
    }

    /// Lets the servers see what is built and what is being built.
    async fn publish(&self) {
        let bakes = self.shared.schedule().bakes();
        if let Err(error) = self.view.set_bakes(bakes).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "images not read");
        }
        self.changed.send_modify(|count| *count += 1);
    }
}
