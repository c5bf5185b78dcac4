//! What the kernel says of this process.

use std::fs;

/// Memory, open files and time of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Process {
    /// Bytes of memory that are in use now.
    pub(super) resident: Option<u64>,
    /// Open files, sockets among them.
    pub(super) fds: Option<usize>,
    /// How many there may be.
    pub(super) most_fds: Option<u64>,
    pub(super) threads: Option<u64>,
}

impl Process {
    /// Asks for them. What cannot be had, as `/proc` is not there, is left out.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self {
            // One of them is that of this very look.
            fds: fs::read_dir("/proc/self/fd").ok().map(|fds| fds.count().saturating_sub(1)),
            ..Self::parse(&status, &limits)
        }
    }

    fn parse(status: &str, limits: &str) -> Self {
        let number = |text: &str, name: &str, place: usize| {
            let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
            rest.split_whitespace().nth(place)?.parse::<u64>().ok()
        };
        Self {
            resident: number(status, "VmRSS:", 0).map(|kib| kib.saturating_mul(1024)),
            threads: number(status, "Threads:", 0),
            most_fds: number(limits, "Max open files", 0),
            fds: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_kernel_are_read() {
        let status = "Name:\tkiln\nVmRSS:\t   12288 kB\nThreads:\t7\n";
        let limits = "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 524288               files\n";
        let process = Process::parse(status, limits);
        assert_eq!(process.resident, Some(12 << 20));
        assert_eq!((process.threads, process.most_fds), (Some(7), Some(1024)));
        assert_eq!(Process::parse("", ""), Process::default());
        assert!(Process::read().fds.is_some_and(|fds| fds > 2));
    }
}
