//! Keeps the inventory as the files of a directory say: at the start, when they change, and on SIGHUP. Where they are
//! wrong, everything stays as it was until they are right.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_inventory::{Store, Wrong};
use notify::{RecursiveMode, Watcher as _};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::boots::now_ms;
use crate::files::{Described, FilesError, gather, source_of};
use crate::view::View;

/// An editor, git or a copy over the network writes in several steps. What it has written by then may be right by itself
/// and name only some of the machines, so that the others would go: files count when they are the same so much later.
const SETTLE: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 1000 });
/// The directory is looked at this often in any case: some file systems tell nothing.
const LOOK: Duration = Duration::from_secs(15);

/// What is the matter with the files, nothing when all is well, and when they were applied last. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct FilesFault(Arc<Kept>);

#[derive(Debug, Default)]
struct Kept {
    fault: Mutex<Option<String>>,
    taken: AtomicI64,
}

impl FilesFault {
    /// Returns it in one line.
    pub fn get(&self) -> Option<String> {
        self.0.fault.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns when the files were applied last, in milliseconds since 1970; 0 when they never were.
    pub fn taken(&self) -> i64 {
        self.0.taken.load(Ordering::Relaxed)
    }

    /// Returns whether it is another one than before.
    fn set(&self, fault: Option<String>) -> bool {
        let mut kept = self.0.fault.lock().unwrap_or_else(PoisonError::into_inner);
        let other = *kept != fault;
        *kept = fault;
        other
    }
}

/// Who keeps the inventory so.
#[derive(Debug)]
pub(super) struct Keeper {
    dir: PathBuf,
    inventory: Store,
    view: Arc<View>,
    fault: FilesFault,
    /// The hash of the files that were applied.
    applied: Option<u64>,
    /// The hash of the files as they were seen last, which may still be written.
    unsettled: Option<u64>,
}

impl Keeper {
    pub(super) fn new(dir: &Path, inventory: Store, view: Arc<View>, fault: FilesFault) -> Self {
        Self { dir: dir.to_owned(), inventory, view, fault, applied: None, unsettled: None }
    }

    /// Applies the files where they are others than before, or in any case.
    pub(super) async fn look(&mut self, in_any_case: bool) {
        let fault = self.try_to_look(in_any_case).await.err();
        if let (Some(error), true) = (&fault, self.fault.set(fault.clone())) {
            let dir = self.dir.display();
            tracing::error!(error, path = %dir, "the files are not applied; the inventory stays as it was");
        }
    }

    async fn try_to_look(&mut self, in_any_case: bool) -> Result<(), String> {
        let dir = self.dir.clone();
        let in_a_line = |error: FilesError| crate::cli::chain(&error).replace('\n', "; ");
        let read = tokio::task::spawn_blocking(move || gather(&dir)).await;
        let files = read.map_err(|error| error.to_string())?.map_err(in_a_line)?;
        let mut hash = DefaultHasher::new();
        for file in &files {
            (&file.name, &file.text).hash(&mut hash);
        }
        let hash = hash.finish();
        if !in_any_case && self.applied == Some(hash) {
            self.unsettled = None;
            return Ok(());
        }
        if !in_any_case && self.unsettled != Some(hash) {
            self.unsettled = Some(hash);
            return Ok(());
        }
        self.unsettled = None;
        // A directory that is not mounted is not one without machines.
        if files.is_empty() {
            return Err("there is no .yaml, .yml or .toml file in it".to_owned());
        }
        if let Some(empty) = files.iter().find(|file| file.text.trim().is_empty()) {
            let name = &empty.name;
            return Err(format!(
                "{name} is empty, as one is that is being written; remove it, or write `machines: []`"
            ));
        }
        let described = tokio::task::spawn_blocking(move || Described::of(&files)).await;
        let described = described.map_err(|error| error.to_string())?.map_err(in_a_line)?;
        let source = source_of(&self.dir).ok_or("its name cannot be that of a source")?;
        let store = self.inventory.acting(&format!("files {source}"));
        let mut edit = store.edit().await.map_err(|error| crate::cli::chain(&error))?;
        let before = edit.began_at();
        let outline = edit.apply(&described.wanted, Some(&source), true).await;
        let outline = outline.map_err(|wrong| told(&described, &wrong))?;
        let last = edit.commit().await.map_err(|error| crate::cli::chain(&error))?;
        self.applied = Some(hash);
        self.fault.0.taken.store(now_ms(), Ordering::Relaxed);
        if last != before {
            let (changes, unchanged) = (outline.changes.len(), outline.unchanged);
            tracing::info!(changes, unchanged, source, "files applied");
            self.view.refresh_inventory().await.map_err(|error| crate::cli::chain(&error))?;
        }
        Ok(())
    }

    /// Follows the directory until told to stop.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let (told, mut events) = mpsc::channel(1);
        let mut watcher =
            notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
                // Our own reading is no change.
                if event.is_ok_and(|event| event.kind.is_access()) {
                    return;
                }
                // A full queue holds all that has to be said.
                let _ = told.try_send(());
            })
            .ok();
        let mut hangup = hangups();
        let mut watched = false;
        let mut turns = tokio::time::interval(LOOK);
        loop {
            if let Some(watcher) = watcher.as_mut().filter(|_| !watched) {
                // The directory may appear later.
                watched = watcher.watch(&self.dir, RecursiveMode::Recursive).is_ok();
            }
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                () = hung_up(&mut hangup) => true,
                _ = turns.tick() => false,
                () = tokio::time::sleep(SETTLE), if self.unsettled.is_some() => false,
                Some(()) = events.recv() => {
                    tokio::time::sleep(SETTLE).await;
                    while events.try_recv().is_ok() {}
                    false
                }
            };
            if !self.dir.is_dir() {
                watched = false;
            }
            self.look(asked).await;
        }
    }
}

/// Lets SIGHUP end nothing where there are no files to read again.
pub(super) async fn nothing_to_read(stop: CancellationToken) {
    let mut hangup = hangups();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = hung_up(&mut hangup) => {
                tracing::info!("SIGHUP: there is no [inventory] files to read again");
            }
        }
    }
}

fn hangups() -> Option<Signal> {
    let hangup = signal(SignalKind::hangup());
    hangup.inspect_err(|error| tracing::warn!(%error, "SIGHUP is not heard")).ok()
}

async fn hung_up(signal: &mut Option<Signal>) {
    let heard = match signal {
        Some(signal) => signal.recv().await.is_some(),
        None => false,
    };
    if !heard {
        std::future::pending::<()>().await;
    }
}

/// Says what is wrong, and in which file.
fn told(described: &Described, wrong: &Wrong) -> String {
    let error = crate::cli::chain(&wrong.error);
    let place = wrong.at.and_then(|(list, index)| described.place_in(list, index));
    place.map_or_else(|| error.clone(), |place| format!("{place}: {error}"))
}

#[cfg(test)]
mod tests {
    use kiln_builder::store::Store as Artifacts;
    use kiln_inventory::UnknownMachines;

    use super::*;

    const N1: &str = "machines:\n  - name: n1\n    macs: ['52:54:00:00:00:01']\n";

    async fn keeper(home: &Path, dir: &Path) -> (Keeper, Arc<View>, FilesFault) {
        let inventory = Store::open(&home.join("inventory.db")).await.unwrap();
        let artifacts = Artifacts::open(home.join("store")).unwrap();
        let view = View::load(inventory.clone(), artifacts, UnknownMachines::Hold, None).await;
        let (view, fault) = (Arc::new(view.unwrap()), FilesFault::default());
        (Keeper::new(dir, inventory, view.clone(), fault.clone()), view, fault)
    }

    fn names(view: &View) -> Vec<String> {
        view.snapshot().machines().iter().map(|machine| machine.spec.name.clone()).collect()
    }

    /// Looks as often as it takes until files count.
    async fn settled(keeper: &mut Keeper) {
        keeper.look(false).await;
        keeper.look(false).await;
    }

    #[tokio::test]
    async fn files_count_only_when_nobody_writes_them_any_more() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("lab");
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("a.yaml");
        let (mut keeper, view, fault) = keeper(home.path(), &dir).await;
        let two = format!("{N1}  - name: n2\n    macs: ['52:54:00:00:00:02']\n");
        std::fs::write(&file, &two).unwrap();
        settled(&mut keeper).await;
        assert_eq!(names(&view), ["n1", "n2"]);
        // A copy over the network, of which the first part is right by itself.
        for text in ["", N1] {
            std::fs::write(&file, text).unwrap();
            keeper.look(false).await;
            assert_eq!((fault.get(), names(&view).len()), (None, 2), "{text:?}");
        }
        std::fs::write(&file, format!("{two}\n")).unwrap();
        settled(&mut keeper).await;
        assert_eq!((fault.get(), names(&view).len()), (None, 2));
        // One that broke off.
        std::fs::write(&file, "").unwrap();
        settled(&mut keeper).await;
        assert!(fault.get().unwrap().contains("a.yaml is empty"), "{fault:?}");
        assert_eq!(names(&view).len(), 2);
    }

    #[tokio::test]
    async fn wrong_files_change_nothing_and_are_named_until_they_are_right() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("lab");
        let file = dir.join("a.yaml");
        let (mut keeper, view, fault) = keeper(home.path(), &dir).await;
        settled(&mut keeper).await;
        assert!(fault.get().unwrap().contains("cannot read"), "{fault:?}");
        assert_eq!(fault.taken(), 0);
        std::fs::create_dir(&dir).unwrap();
        settled(&mut keeper).await;
        assert!(fault.get().unwrap().contains("there is no .yaml"), "{fault:?}");
        std::fs::write(&file, N1).unwrap();
        settled(&mut keeper).await;
        assert_eq!((fault.get(), names(&view)), (None, vec!["n1".to_owned()]));
        let taken = fault.taken();
        assert!(taken > 0);
        for (text, message) in [
            (format!("{N1}    imgae: web\n"), "a.yaml:4:5: unknown key `imgae`"),
            (format!("{N1}  - {{name: N2, macs: ['52:54:00:00:00:02']}}\n"), "a.yaml:4:5: `N2`"),
            (N1.replace("n1", "N1"), "a.yaml:2:5: `N1`"),
        ] {
            std::fs::write(&file, text).unwrap();
            settled(&mut keeper).await;
            assert!(fault.get().unwrap().contains(message), "{fault:?}");
            assert_eq!(
                (names(&view).as_slice(), fault.taken()),
                (["n1".to_owned()].as_slice(), taken)
            );
        }
        std::fs::remove_file(&file).unwrap();
        keeper.look(true).await;
        assert!(fault.get().unwrap().contains("there is no .yaml"), "{fault:?}");
        assert_eq!(names(&view), ["n1"], "a directory without files removes nothing");
        std::fs::write(&file, N1.replace("n1", "other").replace(":01", ":02")).unwrap();
        settled(&mut keeper).await;
        assert_eq!((fault.get(), names(&view)), (None, vec!["other".to_owned()]));
    }

    #[tokio::test]
    async fn a_directory_is_followed() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().join("lab");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("a.yaml"), N1).unwrap();
        let (keeper, view, _) = keeper(home.path(), &dir).await;
        let stop = CancellationToken::new();
        let task = tokio::spawn(keeper.run(stop.clone()));
        let until = async |count: usize| {
            while view.snapshot().machines().len() != count {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        until(1).await;
        let more = "[[machines]]\nname = \"n2\"\nmacs = [\"52:54:00:00:00:02\"]\n";
        std::fs::write(dir.join("b.toml"), more).unwrap();
        until(2).await;
        std::fs::remove_file(dir.join("b.toml")).unwrap();
        until(1).await;
        stop.cancel();
        task.await.unwrap();
    }
}
