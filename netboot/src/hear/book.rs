//! The last lines of each boot: in memory while they come, and in a file of their own, so that they are there after a
//! restart of the server and after the machine is gone.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kiln_inventory::BootId;
use serde::{Deserialize, Serialize};

use super::line::Source;

/// What is kept of one boot.
const RING: usize = 128 << 10;
/// What all boots together have in memory.
const ALL: usize = 32 << 20;
/// Boots that are held in memory at a time; the others are in their files.
const HELD: usize = 64;
/// Boots whose files are kept.
const KEPT: usize = 500;
/// A file is what a ring holds, with its times.
const LARGEST_FILE: u64 = 1 << 20;

/// One line that a machine said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct HeardLine {
    /// When it arrived, in milliseconds since 1970.
    pub at: i64,
    /// Where from.
    pub source: Source,
    /// The line. Nothing in it can move a cursor.
    pub text: String,
}

/// The lines of all boots. Clones share them.
#[derive(Clone, Debug)]
pub struct Book(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    rings: Mutex<BTreeMap<BootId, Ring>>,
}

#[derive(Clone, Debug, Default)]
struct Ring {
    lines: VecDeque<HeardLine>,
    bytes: usize,
    /// When the last line came.
    last: i64,
    /// Whether the file lacks something.
    is_new: bool,
}

impl Ring {
    fn push(&mut self, line: HeardLine) {
        self.bytes += line.text.len();
        (self.last, self.is_new) = (line.at, true);
        self.lines.push_back(line);
        while self.bytes > RING {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.text.len();
        }
    }
}

impl Book {
    /// Opens the book whose files are in a folder, which need not be there yet.
    pub fn new(folder: PathBuf) -> Self {
        Self(Arc::new(Inner { folder, rings: Mutex::default() }))
    }

    fn rings(&self) -> MutexGuard<'_, BTreeMap<BootId, Ring>> {
        // Every change of a ring is whole when it is made.
        self.0.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds lines to a boot.
    pub fn push(&self, boot: BootId, lines: impl IntoIterator<Item = HeardLine>) {
        if !self.rings().contains_key(&boot) {
            // The server before may have heard the beginning.
            let mut ring = Ring::default();
            self.read(boot).into_iter().for_each(|line| ring.push(line));
            self.rings().entry(boot).or_insert(ring);
        }
        let mut rings = self.rings();
        // Many machines at once, before the next look at the disk: the newest lines wait no longer than that.
        if rings.len() > HELD && rings.values().map(|ring| ring.bytes).sum::<usize>() > ALL {
            return;
        }
        if let Some(ring) = rings.get_mut(&boot) {
            lines.into_iter().for_each(|line| ring.push(line));
        }
    }

    /// Returns the lines of a boot, in the order in which they came.
    pub fn lines(&self, boot: BootId) -> Vec<HeardLine> {
        let held = self.rings().get(&boot).map(|ring| ring.lines.iter().cloned().collect());
        held.unwrap_or_else(|| self.read(boot))
    }

    fn path(&self, boot: BootId) -> PathBuf {
        self.0.folder.join(format!("{boot}.jsonl"))
    }

    /// Reads a file; what cannot be read is not there.
    fn read(&self, boot: BootId) -> Vec<HeardLine> {
        let mut text = String::new();
        let Ok(file) = fs::File::open(self.path(boot)) else { return Vec::new() };
        if file.take(LARGEST_FILE).read_to_string(&mut text).is_err() {
            return Vec::new();
        }
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Writes what is new to the files, lets go of boots that say nothing more, and removes the oldest files.
    ///
    /// # Errors
    ///
    /// When a file cannot be written; the lines stay in memory.
    pub fn save(&self) -> io::Result<()> {
        let new: Vec<(BootId, Vec<HeardLine>, i64)> = self
            .rings()
            .iter()
            .filter(|(_, ring)| ring.is_new)
            .map(|(boot, ring)| (*boot, ring.lines.iter().cloned().collect(), ring.last))
            .collect();
        if new.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.0.folder)?;
        for (boot, lines, last) in new {
            self.write(boot, &lines)?;
            if let Some(ring) = self.rings().get_mut(&boot) {
                ring.is_new = ring.last != last;
            }
        }
        let mut rings = self.rings();
        while rings.len() > HELD {
            let quiet = rings.iter().filter(|(_, ring)| !ring.is_new).min_by_key(|(_, r)| r.last);
            let Some(boot) = quiet.map(|(boot, _)| *boot) else { break };
            rings.remove(&boot);
        }
        drop(rings);
        self.prune()
    }

    fn write(&self, boot: BootId, lines: &[HeardLine]) -> io::Result<()> {
        let path = self.path(boot);
        let new = path.with_extension("new");
        let mut file = fs::File::create(&new)?;
        let mut text = Vec::new();
        for line in lines {
            serde_json::to_writer(&mut text, line)?;
            text.push(b'\n');
        }
        file.write_all(&text)?;
        file.sync_all()?;
        fs::rename(new, path)
    }

    fn prune(&self) -> io::Result<()> {
        let mut boots: Vec<i64> = fs::read_dir(&self.0.folder)?
            .flatten()
            .filter_map(|entry| {
                entry.file_name().to_str()?.strip_suffix(".jsonl")?.parse::<i64>().ok()
            })
            .collect();
        boots.sort_unstable();
        let old = boots.len().saturating_sub(KEPT);
        for boot in boots.into_iter().take(old) {
            fs::remove_file(self.path(BootId(boot)))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(at: i64, text: &str) -> HeardLine {
        HeardLine { at, source: Source::Netconsole, text: text.to_owned() }
    }

    #[test]
    fn lines_outlive_the_server_and_go_on_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("heard");
        let book = Book::new(folder.clone());
        book.push(BootId(3), [line(1, "a"), line(2, "b\"\\é")]);
        book.save().unwrap();
        let after = Book::new(folder);
        assert_eq!(after.lines(BootId(3)), [line(1, "a"), line(2, "b\"\\é")]);
        after.push(BootId(3), [line(3, "c")]);
        after.save().unwrap();
        assert_eq!(book.lines(BootId(3)).len(), 2);
        assert_eq!(after.lines(BootId(3)).len(), 3);
        assert!(after.lines(BootId(4)).is_empty());
    }

    #[test]
    fn neither_memory_nor_disk_fills_up() {
        let dir = tempfile::tempdir().unwrap();
        let book = Book::new(dir.path().to_owned());
        for at in 0..1_000 {
            book.push(BootId(1), [line(at, &"x".repeat(1_000))]);
        }
        let lines = book.lines(BootId(1));
        assert!(lines.len() <= RING / 1_000, "{}", lines.len());
        assert_eq!(lines.last().map(|line| line.at), Some(999));
        for boot in 2..600 {
            book.push(BootId(boot), [line(boot, "x")]);
        }
        book.save().unwrap();
        assert_eq!(book.rings().len(), HELD);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), KEPT);
        assert!(book.lines(BootId(2)).is_empty() && !book.lines(BootId(599)).is_empty());
    }
}
