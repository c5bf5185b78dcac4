//! Leases on disk before the database has them: a file to which records of one length are appended, many with one
//! `fdatasync`.
//!
//! ```text
//!  commit ─▶ leases.journal ──full──▶ leases.journal.1 ─▶ fold: into the database, then removed
//! ```
//!
//! After a crash, everything is the database, then `leases.journal.1`, then `leases.journal`, each record replacing what
//! was there. To fold the same records twice changes nothing. A record that is damaged is left out and the others are
//! read, since each begins at a place that is known.

mod record;

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use kiln_builder::durable;
use kiln_inventory::{Lease, Store};
use tokio::sync::mpsc;
use tracing::{info, warn};

use self::record::{Found, read, record};
use super::ledger::{BoxError, LeaseLog};

/// Length of the journal at which it is folded: a third of a million leases.
const FOLD_AT: u64 = 32 << 20;
/// Leases that the database takes in one go.
const CHUNK: usize = 512;

/// The journal cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what} the lease journal {path}")]
pub struct JournalError {
    what: &'static str,
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// The journal of one server.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    file: File,
    length: u64,
    fold_at: u64,
    buffer: Vec<u8>,
    fold: mpsc::Sender<()>,
}

/// Takes the leases of full journals into the database.
#[derive(Debug)]
pub struct Folder {
    dir: PathBuf,
    wake: mpsc::Receiver<()>,
}

/// Returns the leases that a server before left in its journals, to come after those of the database, and the parts that
/// go on from there.
///
/// # Errors
///
/// When the files cannot be read or made. What is damaged in them is no reason.
pub fn open(dir: &Path) -> Result<(Vec<Lease>, Journal, Folder), JournalError> {
    let path = current(dir);
    let failed = |what, path: &Path| {
        let path = path.to_owned();
        move |source| JournalError { what, path, source }
    };
    let mut leases = Vec::new();
    let mut length = 0;
    for path in [full(dir), path.clone()] {
        let Found { leases: found, damaged, end } = read(&bytes(&path)?);
        if damaged > 0 {
            let kept = path.with_extension("damaged");
            warn!(records = damaged, path = %kept.display(), "records of the lease journal are damaged and left out");
            fs::copy(&path, &kept).map_err(failed("keep a copy of", &kept))?;
        }
        leases.extend(found);
        length = if path == current(dir) { end } else { 0 };
    }
    let file = create(&path).map_err(failed("open", &path))?;
    // What a crash cut off is written over.
    file.set_len(length).map_err(failed("shorten", &path))?;
    durable::sync_folder(dir).map_err(failed("keep", &path))?;
    let (fold, wake) = mpsc::channel(1);
    let (dir, buffer, fold_at) = (dir.to_owned(), Vec::new(), FOLD_AT);
    let folder = Folder { dir: dir.clone(), wake };
    Ok((leases, Journal { dir, file, length, fold_at, buffer, fold }, folder))
}

/// Returns the leases that are in the journals of a server which may be running, the last one of each address.
///
/// # Errors
///
/// When the files cannot be read.
pub fn peek(dir: &Path) -> Result<Vec<Lease>, JournalError> {
    let mut leases = Vec::new();
    // The older one first: it may become the other one meanwhile, and is then read twice.
    for path in [full(dir), current(dir), full(dir)] {
        leases.extend(read(&bytes(&path)?).leases);
    }
    // Of those that were read out of order, the one that lasts longest.
    leases.sort_by_key(|lease| lease.expires);
    Ok(last_of_each(leases))
}

/// Returns the leases that were in the database of a server when it could last be reached.
///
/// # Errors
///
/// When the file cannot be read. That there is none is no reason.
pub fn kept(dir: &Path) -> Result<Vec<Lease>, JournalError> {
    Ok(read(&bytes(&copy(dir))?).leases)
}

/// Reads a file. Where there is none there are no bytes.
fn bytes(path: &Path) -> Result<Vec<u8>, JournalError> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.map_err(|source| JournalError { what: "read", path: path.to_owned(), source }),
    }
}

/// Keeps a copy of the leases of a database that may be away at the next start.
///
/// # Errors
///
/// When it cannot be written. What was kept before is there still.
pub fn keep(dir: &Path, leases: &[Lease]) -> Result<(), JournalError> {
    let path = copy(dir);
    let bytes: Vec<u8> = leases.iter().flat_map(record).collect();
    durable::replace(&path, &bytes, 0o600).map_err(|source| JournalError {
        what: "keep a copy of",
        path,
        source,
    })
}

fn copy(dir: &Path) -> PathBuf {
    dir.join("leases.kept")
}

/// Puts the journals of a server aside, whose database was replaced: they tell of what was before.
///
/// # Errors
///
/// When they cannot be renamed.
pub fn set_aside(dir: &Path) -> Result<(), JournalError> {
    for path in [full(dir), current(dir), copy(dir)] {
        let mut aside = path.clone().into_os_string();
        aside.push(".replaced");
        match fs::rename(&path, aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(JournalError { what: "put aside", path, source }),
        }
    }
    Ok(())
}

fn current(dir: &Path) -> PathBuf {
    dir.join("leases.journal")
}

fn full(dir: &Path) -> PathBuf {
    dir.join("leases.journal.1")
}

/// Opens a journal, private from its first moment: it names machines and their networks.
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)
}

impl LeaseLog for Journal {
    fn commit(&mut self, leases: &[Lease]) -> Result<(), BoxError> {
        self.buffer.clear();
        for lease in leases {
            self.buffer.extend(record(lease));
        }
        // Always at the end of what is known to be on disk: after a failure the same place is written again, because
        // the kernel may have dropped what it could not write.
        self.file.write_all_at(&self.buffer, self.length)?;
        self.file.sync_data()?;
        self.length += u64::try_from(self.buffer.len())?;
        if self.length >= self.fold_at
            && let Err(error) = self.turn()
        {
            warn!(error = &error as &dyn std::error::Error, "the lease journal grows on");
        }
        Ok(())
    }
}

impl Journal {
    /// Begins a new file, if the last full one is folded.
    fn turn(&mut self) -> io::Result<()> {
        let (current, full) = (current(&self.dir), full(&self.dir));
        if !full.try_exists()? {
            fs::rename(&current, &full)?;
            // Until the directory is on disk the old name may come back, with the new leases in another file of it: so
            // nothing is written before.
            self.file = create(&current)?;
            self.length = 0;
            durable::sync_folder(&self.dir)?;
        }
        // One that waits is enough.
        let _ = self.fold.try_send(());
        Ok(())
    }
}

impl Folder {
    /// Folds what there is, and then each journal that is full, until the journal is dropped; then what is left.
    pub async fn run(mut self, store: Store) {
        loop {
            if let Err(error) = fold(&full(&self.dir), &store).await {
                let error = &*error as &dyn std::error::Error;
                warn!(error, "leases stay in their journal for now");
            }
            if self.wake.recv().await.is_none() {
                break;
            }
        }
        for path in [full(&self.dir), current(&self.dir)] {
            if let Err(error) = fold(&path, &store).await {
                let error = &*error as &dyn std::error::Error;
                warn!(error, "leases stay in their journal until the next start");
                return;
            }
        }
    }
}

/// Takes a journal into the database and removes it.
async fn fold(path: &Path, store: &Store) -> Result<(), BoxError> {
    let bytes = match tokio::fs::File::open(path).await {
        Ok(_) => {
            let path = path.to_owned();
            tokio::task::spawn_blocking(move || fs::read(path)).await??
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let leases = last_of_each(read(&bytes).leases);
    drop(bytes);
    for chunk in leases.chunks(CHUNK) {
        store.commit_leases(chunk).await?;
    }
    info!(leases = leases.len(), "leases taken into the inventory");
    if let Some(dir) = path.parent().filter(|_| store.is_shared()).map(Path::to_owned) {
        let all = move || keep(&dir, &last_of_each([kept(&dir)?, leases].concat()));
        tokio::task::spawn_blocking(all).await??;
    }
    tokio::fs::remove_file(path).await?;
    Ok(())
}

/// Keeps the last lease of each address, in the order in which they came.
fn last_of_each(leases: Vec<Lease>) -> Vec<Lease> {
    let last: HashMap<Ipv4Addr, usize> =
        leases.iter().enumerate().map(|(index, lease)| (lease.address, index)).collect();
    let keep = |(index, lease): &(usize, Lease)| last.get(&lease.address) == Some(index);
    leases.into_iter().enumerate().filter(keep).map(|(_, lease)| lease).collect()
}

#[cfg(test)]
mod tests {
    use kiln_types::Mac;

    use super::record::{NAME_AT, RECORD};
    use super::*;

    fn lease(address: u32, mac: u8, hostname: Option<&str>) -> Lease {
        Lease {
            address: Ipv4Addr::from_bits(0x0a00_0000 + address),
            mac: Mac::new([2, 0, 0, 0, 0, mac]),
            expires: i64::from(address) - 5,
            hostname: hostname.map(str::to_owned),
        }
    }

    #[test]
    fn what_was_committed_is_there_after_a_restart_and_what_was_cut_off_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (before, mut journal, _folder) = open(dir.path()).unwrap();
        assert_eq!(before, []);
        let long = "x".repeat(63);
        let first = [lease(1, 1, None), lease(2, 2, Some("")), lease(3, 3, Some(&long))];
        journal.commit(&first).unwrap();
        drop(journal);
        let path = current(dir.path());
        let bytes = fs::read(&path).unwrap();
        // Killed at every byte of the next record.
        let next = record(&lease(4, 4, Some("n4")));
        for cut in 0..RECORD {
            fs::write(&path, [&bytes, &next[..cut]].concat()).unwrap();
            let (found, mut journal, _folder) = open(dir.path()).unwrap();
            assert_eq!(found, first);
            journal.commit(&[lease(5, 5, None)]).unwrap();
            drop(journal);
            let (found, ..) = open(dir.path()).unwrap();
            assert_eq!(found.last(), Some(&lease(5, 5, None)), "cut at {cut}");
            assert_eq!(found.len(), 4);
        }
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_poisoned_record_neither_keeps_the_server_from_starting_nor_hides_the_others() {
        let dir = tempfile::tempdir().unwrap();
        let leases: Vec<Lease> = (1..=9).map(|n| lease(n, 1, Some("n"))).collect();
        let good: Vec<u8> = leases.iter().flat_map(record).collect();
        for at in 0..RECORD {
            let mut bytes = good.clone();
            bytes[4 * RECORD + at] ^= 0x41;
            fs::write(current(dir.path()), &bytes).unwrap();
            let (found, ..) = open(dir.path()).unwrap();
            assert_eq!(found.len(), 8, "byte {at}");
            assert_eq!(fs::read(dir.path().join("leases.damaged")).unwrap(), bytes);
        }
        // One whose sum is right and whose name is no text.
        let mut bad = record(&lease(1, 1, Some("n")));
        bad[NAME_AT] = 0xff;
        let sum = crc32fast::hash(&bad[4..]);
        bad[..4].copy_from_slice(&sum.to_le_bytes());
        fs::write(current(dir.path()), [&bad[..], &good].concat()).unwrap();
        assert_eq!(open(dir.path()).unwrap().0, leases);
        fs::write(current(dir.path()), vec![0xa5; 10_000]).unwrap();
        assert_eq!(open(dir.path()).unwrap().0, []);
    }

    #[tokio::test]
    async fn a_full_journal_goes_into_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let (_, mut journal, folder) = open(dir.path()).unwrap();
        journal.fold_at = u64::try_from(RECORD * 3).unwrap();
        // The first machine moves, and the second takes what it left.
        for lease in [lease(1, 1, None), lease(2, 1, None), lease(1, 2, None)] {
            journal.commit(&[lease]).unwrap();
        }
        assert!(full(dir.path()).exists() && journal.length == 0);
        journal.commit(&[lease(3, 3, None)]).unwrap();
        let (found, ..) = open(dir.path()).unwrap();
        assert_eq!(found.len(), 4, "both files are read");
        drop(journal);
        folder.run(store.clone()).await;
        let expected = [lease(1, 2, None), lease(2, 1, None), lease(3, 3, None)];
        assert_eq!(store.leases().await.unwrap(), expected);
        assert!(!full(dir.path()).exists() && !current(dir.path()).exists());
        assert_eq!(open(dir.path()).unwrap().0, []);
    }

    #[test]
    fn fuzzed_journals_give_back_what_is_whole_and_nothing_else() {
        let records = [lease(1, 1, None), lease(2, 2, Some("")), lease(3, 3, Some("n3"))];
        let whole: Vec<u8> = records.iter().flat_map(record).collect();
        kiln_fuzz::check("journal", &[&whole], |bytes| {
            let Found { leases, damaged, end } = read(bytes);
            let end = usize::try_from(end).unwrap();
            assert!(end <= bytes.len() && (leases.len() + damaged) * RECORD == end);
            // What is written again is read again.
            let again: Vec<u8> = leases.iter().flat_map(record).collect();
            assert_eq!(read(&again).leases, leases);
        });
    }
}
