//! What containers print: to the console with their name, to a file that stays small, and to memory, where the last lines
//! of each can be asked for.

use std::fs::{File, rename};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock;
use crate::console;
use crate::ring::{Line, Rings};

const DIRECTORY: &str = "/var/log";
/// When a log is this large it becomes `NAME.log.1` and a new one begins.
const LARGEST_FILE: u64 = 1 << 20;
/// A longer line is cut in pieces.
const LONGEST_LINE: u64 = 4096;

static RINGS: Mutex<Rings> = Mutex::new(Rings::new());
static NEW_LINE: Condvar = Condvar::new();

/// Returns the last lines of a container, or of `kiln-init`, each with its time; nothing when no such one has ever
/// written. Control characters are taken out.
pub(crate) fn tail(name: &str, lines: usize) -> Option<String> {
    let (lines, _) = last(name, lines)?;
    Some(lines.iter().map(written).collect())
}

/// Returns the last lines and the number of the next.
pub(crate) fn last(name: &str, lines: usize) -> Option<(Vec<Line>, u64)> {
    rings().last(name, lines)
}

/// Returns the lines from a number on and the number of the next, waiting a while when there are none.
pub(crate) fn since(name: &str, number: u64, patience: Duration) -> (Vec<Line>, u64) {
    let none = |rings: &mut Rings| rings.since(name, number).0.is_empty();
    let (rings, _) = NEW_LINE
        .wait_timeout_while(rings(), patience, none)
        .unwrap_or_else(PoisonError::into_inner);
    rings.since(name, number)
}

/// Writes a line as it is shown.
pub(crate) fn written(line: &Line) -> String {
    format!("{} {}\n", clock::stamp(line.millis), line.text)
}

/// Keeps a line in memory.
pub(crate) fn keep(name: &str, text: &str) {
    rings().push(name, clock::uptime_millis(), text);
    NEW_LINE.notify_all();
}

fn rings() -> MutexGuard<'static, Rings> {
    RINGS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Copies the output of one run of a container until its last process has closed it.
pub(crate) fn follow(name: &str, output: impl Read) {
    let mut log = Log::open(name);
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST_LINE).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        let clean = console::clean(text);
        console::write_line(name, &clean);
        keep(name, &clean);
        log.write(text);
    }
}

/// A full disk or a missing directory costs the file, never the container.
struct Log {
    path: PathBuf,
    file: Option<File>,
    written: u64,
}

impl Log {
    fn open(name: &str) -> Self {
        let path = PathBuf::from(DIRECTORY).join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&path).ok();
        let written =
            file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |data| data.len());
        Self { path, file, written }
    }

    fn write(&mut self, text: &str) {
        if self.written >= LARGEST_FILE {
            let _ = rename(&self.path, self.path.with_extension("log.1"));
            self.file = File::create(&self.path).ok();
            self.written = 0;
        }
        if let Some(file) = &mut self.file {
            let line = format!("{text}\n");
            if file.write_all(line.as_bytes()).is_ok() {
                self.written += u64::try_from(line.len()).unwrap_or_default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_text_or_has_no_end_is_kept_as_lines_that_can_be_shown() {
        let mut output = b"one\r\n\x1b[2Jtwo\xff\0\n".to_vec();
        output.extend([b'x'; 10_000]);
        follow("logs test", output.as_slice());
        let tail = tail("logs test", 100).unwrap();
        let texts: Vec<_> = tail.lines().map(|line| line.split_once("Z ").unwrap().1).collect();
        assert_eq!(texts[..2], ["one", "\u{b7}[2Jtwo\u{fffd}\u{b7}"]);
        assert_eq!(
            texts[2..].iter().map(|text| text.len()).collect::<Vec<_>>(),
            [4096, 4096, 1808]
        );
    }

    #[test]
    fn who_follows_is_woken_by_a_line() {
        let (_, number) = since("follow test", 0, Duration::ZERO);
        let writer = std::thread::spawn(|| keep("follow test", "here"));
        let (lines, next) = since("follow test", number, Duration::from_secs(60));
        assert_eq!((lines.len(), next), (1, 1));
        writer.join().unwrap();
    }
}
