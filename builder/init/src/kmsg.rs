//! The last words of the kernel, for a boot that fails.

use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;

use nix::libc;

const RING: &str = "/dev/kmsg";
/// Bytes that are kept.
const MOST: usize = 64 << 10;
/// The kernel gives one record at a time, and none is larger.
const LARGEST_RECORD: usize = 8192;
/// More records than any ring holds: the kernel may write faster than they are read.
const MOST_RECORDS: usize = 1 << 20;

/// Returns the last lines of the kernel's log, with the times that it gave them.
pub(crate) fn last_lines() -> Vec<u8> {
    let mut last = Last::default();
    // Without waiting: at its end the file says that there is nothing yet.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(RING);
    let Ok(mut file) = file else { return Vec::new() };
    let mut record = vec![0; LARGEST_RECORD];
    for _ in 0..MOST_RECORDS {
        match file.read(&mut record) {
            Ok(0) => break,
            Ok(length) => {
                last.push(line(&String::from_utf8_lossy(record.get(..length).unwrap_or_default())))
            }
            // It was overwritten before it was read; the next one is there.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    last.lines.into_iter().flat_map(String::into_bytes).collect()
}

/// The last lines that have room.
#[derive(Default)]
struct Last {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Last {
    fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.bytes > MOST {
            let Some(first) = self.lines.pop_front() else { break };
            self.bytes -= first.len();
        }
    }
}

/// Turns a record, `PRIORITY,NUMBER,MICROSECONDS,FLAGS;TEXT` and then lines about the device, into a line as `dmesg`
/// writes it.
fn line(record: &str) -> String {
    let (head, text) = record.split_once(';').unwrap_or(("", record));
    let text = text.lines().next().unwrap_or_default();
    let micros: u64 =
        head.split(',').nth(2).and_then(|micros| micros.parse().ok()).unwrap_or_default();
    format!("[{:>5}.{:06}] {text}\n", micros / 1_000_000, micros % 1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_line_with_its_time() {
        let record = "6,339,5140900,-;NET: Registered protocol family 10\n SUBSYSTEM=pci\n";
        assert_eq!(line(record), "[    5.140900] NET: Registered protocol family 10\n");
        assert_eq!(line("4,1,12345678901,c,caller=T1;a;b"), "[12345.678901] a;b\n");
        assert_eq!(line("nonsense"), "[    0.000000] nonsense\n");
    }

    #[test]
    fn the_last_lines_are_kept() {
        let mut last = Last::default();
        for number in 0..10_000 {
            last.push(format!("line {number}\n"));
        }
        assert!(last.bytes <= MOST && last.bytes > MOST - 20);
        assert_eq!(last.lines.back().map(String::as_str), Some("line 9999\n"));
        last.push("x".repeat(MOST + 1));
        assert!(last.lines.is_empty());
    }
}
