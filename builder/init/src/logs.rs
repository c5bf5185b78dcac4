//! What containers print: to the console with their name, and to a file that stays small.

use std::fs::{File, rename};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::PathBuf;

use crate::console;

const DIRECTORY: &str = "/var/log";
/// When a log is this large it becomes `NAME.log.1` and a new one begins.
const LARGEST_FILE: u64 = 1 << 20;
/// A longer line is cut in pieces.
const LONGEST_LINE: u64 = 4096;

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
        console::write_line(name, text);
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
