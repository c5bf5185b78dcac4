//! Fetches files by their digests: what comes is hashed on its way, and nothing else than what was named is kept.
//!
//! A server that has too much to do or goes away for a while is asked again, and sends what is missing only.

use std::fs::File;
use std::io::{self, Write};
use std::thread::sleep;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest as _, Sha256};

use super::error::KexecError;
use super::manifest::LARGEST_MANIFEST;
use crate::clock::uptime;
use crate::console::say;
use crate::hex;
use crate::http::{self, Answer, Backoff, HttpError, Limits, Request, Server};

/// A file of some hundred megabytes may come over a slow line.
const PATIENCE: Limits = Limits {
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(30),
    total: Duration::from_secs(20 * 60),
};
/// The largest machine segment that is read.
const LARGEST_SEGMENT: usize = 1 << 20;
/// How often in a row the server may send nothing.
const TRIES: u32 = 10;
/// All files together, with every pause. The order is given up then.
const ALL: Duration = Duration::from_secs(40 * 60);
/// A server that wants a longer pause gets this one.
const LONGEST_PAUSE: u64 = 60;

/// Where files come from, for one boot.
pub(super) struct Source {
    server: Server,
    boot: i64,
    /// In time since the kernel started.
    deadline: Duration,
    /// The pause before the next try is so many times shorter, in tests.
    haste: u32,
}

impl Source {
    pub(super) fn new(server: Server, boot: i64) -> Self {
        Self { server, boot, deadline: uptime() + ALL, haste: 1 }
    }

    /// Returns the manifest of a version, which is named by its digest.
    pub(super) fn manifest(&self, version: &str, size: u64) -> Result<Vec<u8>, KexecError> {
        if size > LARGEST_MANIFEST {
            return Err(KexecError::ManifestSize(LARGEST_MANIFEST));
        }
        let mut bytes = Vec::new();
        self.fetch(version, "manifest", size, &mut bytes)?;
        Ok(bytes)
    }

    /// Appends a file to another one.
    pub(super) fn file(
        &self,
        digest: &str,
        name: &str,
        size: u64,
        mut into: &File,
    ) -> Result<(), KexecError> {
        self.fetch(digest, name, size, &mut into)
    }

    fn fetch(
        &self,
        digest: &str,
        name: &str,
        size: u64,
        into: &mut dyn Write,
    ) -> Result<(), KexecError> {
        let wanted = digest.strip_prefix("sha256:").unwrap_or(digest);
        let hash = hex::array(wanted).ok_or_else(|| KexecError::Digest(name.to_owned()))?;
        let path = format!("/blob/{wanted}/{name}?boot={}", self.boot);
        let mut hashed = Hashed { into, hasher: Sha256::new(), count: 0 };
        self.again_and_again(name, || {
            let from = hashed.count;
            let request = Request { from, ..Request::get(&path) };
            let answer = http::fetch(&self.server, &request, PATIENCE, size, &mut hashed);
            (answer, hashed.count > from)
        })?;
        let found: [u8; 32] = hashed.hasher.finalize().into();
        if found == hash { Ok(()) } else { Err(KexecError::Digest(name.to_owned())) }
    }

    /// Appends the machine's own segment, whose path is a secret between the server and this machine.
    pub(super) fn segment(&self, path: &str, mut into: &File) -> Result<(), KexecError> {
        let request = Request::get(path);
        let answer = self.again_and_again("the segment of this machine", || {
            (http::ask(&self.server, &request, Limits::SHORT, LARGEST_SEGMENT), false)
        })?;
        into.write_all(&answer.body).map_err(|error| {
            KexecError::Memory(nix::Error::from_raw(error.raw_os_error().unwrap_or_default()))
        })
    }

    /// Tries until it succeeds, there is no sense in trying again, or patience ends. A try says whether something came.
    fn again_and_again(
        &self,
        what: &str,
        mut attempt: impl FnMut() -> (Result<Answer, HttpError>, bool),
    ) -> Result<Answer, KexecError> {
        let mut backoff = Backoff::default();
        let mut tries = 0;
        loop {
            let (result, something_came) = attempt();
            let mut asked_for = None;
            let failure = match result {
                Ok(answer) if answer.is_success() => return Ok(answer),
                Ok(answer) => {
                    asked_for = answer.retry_after();
                    KexecError::Status { what: what.to_owned(), status: answer.status }
                }
                Err(source) => KexecError::Fetch { what: what.to_owned(), source },
            };
            if something_came {
                (backoff, tries) = (Backoff::default(), 0);
            }
            tries += 1;
            let pause = asked_for.map(|seconds| Duration::from_secs(seconds.min(LONGEST_PAUSE)));
            let pause = pause.unwrap_or_default().max(backoff.next()) / self.haste;
            if !failure.is_passing() || tries >= TRIES || uptime() + pause >= self.deadline {
                return Err(failure);
            }
            let seconds = pause.as_secs();
            say(&format!("{}; again in {seconds} s", crate::error::chain(&failure)));
            sleep(pause);
        }
    }
}

/// Makes a file that is in memory only.
pub(super) fn memory_file(name: &str) -> Result<File, KexecError> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from).map_err(KexecError::Memory)
}

/// Hashes and counts what goes through.
struct Hashed<'a> {
    into: &'a mut dyn Write,
    hasher: Sha256,
    count: u64,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.count += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
#[path = "fetch_tests.rs"]
mod tests;
