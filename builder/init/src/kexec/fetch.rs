//! Fetches files by their digests: what comes is hashed on its way, and nothing else than what was named is kept.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest as _, Sha256};

use super::error::KexecError;
use super::manifest::{LARGEST_MANIFEST, from_hex};
use crate::http::{self, Limits, Request};

/// A file of some hundred megabytes may come over a slow line.
const PATIENCE: Limits = Limits {
    connect: Duration::from_secs(10),
    silence: Duration::from_secs(30),
    total: Duration::from_secs(20 * 60),
};
/// The largest machine segment that is read.
const LARGEST_SEGMENT: usize = 1 << 20;

/// Where files come from, for one boot.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) boot: i64,
}

impl Server {
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
        let hash = from_hex::<32>(wanted).ok_or_else(|| KexecError::Digest(name.to_owned()))?;
        let path = format!("/blob/{wanted}/{name}?boot={}", self.boot);
        let mut hashed = Hashed { into, hasher: Sha256::new() };
        let answer = http::fetch(self.address, &Request::get(&path), PATIENCE, size, &mut hashed)
            .map_err(|source| KexecError::Fetch { what: name.to_owned(), source })?;
        if answer.status != 200 {
            return Err(KexecError::Status { what: name.to_owned(), status: answer.status });
        }
        let found: [u8; 32] = hashed.hasher.finalize().into();
        if found == hash { Ok(()) } else { Err(KexecError::Digest(name.to_owned())) }
    }

    /// Appends the machine's own segment, whose path is a secret between the server and this machine.
    pub(super) fn segment(&self, path: &str, mut into: &File) -> Result<(), KexecError> {
        let what = || "the segment of this machine".to_owned();
        let request = Request::get(path);
        let answer = http::ask(self.address, &request, Limits::SHORT, LARGEST_SEGMENT)
            .map_err(|source| KexecError::Fetch { what: what(), source })?;
        if answer.status != 200 {
            return Err(KexecError::Status { what: what(), status: answer.status });
        }
        into.write_all(&answer.body).map_err(|error| {
            KexecError::Memory(nix::Error::from_raw(error.raw_os_error().unwrap_or_default()))
        })
    }
}

/// Makes a file that is in memory only.
pub(super) fn memory_file(name: &str) -> Result<File, KexecError> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from).map_err(KexecError::Memory)
}

/// Hashes what goes through.
struct Hashed<'a> {
    into: &'a mut dyn Write,
    hasher: Sha256,
}

impl Write for Hashed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.into.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.into.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader, Read as _, Seek as _};
    use std::net::TcpListener;

    use super::*;

    /// SHA-256 of `hello`.
    const HELLO: &str = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";

    /// Answers one request with these bytes.
    fn server(answer: &'static [u8]) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines.next().is_some_and(|line| line.is_ok_and(|line| !line.is_empty())) {}
            // The client may have heard enough before the end.
            let _ = stream.write_all(answer);
        });
        Server { address, boot: 7 }
    }

    fn fetched(answer: &'static [u8]) -> Result<String, String> {
        let file = memory_file("test").unwrap();
        let result = server(answer).file(HELLO, "web.cpio.zst", 5, &file);
        let mut text = String::new();
        (&file).rewind().unwrap();
        (&file).read_to_string(&mut text).unwrap();
        result.map(|()| text).map_err(|error| crate::error::chain(&error))
    }

    #[test]
    fn a_file_is_taken_by_its_digest() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(fetched(answer).unwrap(), "hello");
    }

    #[test]
    fn a_server_that_lies_is_found_out() {
        for (answer, expected) in [
            (
                &b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellO"[..],
                "web.cpio.zst is not what its digest says",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel",
                "cannot fetch web.cpio.zst: the server closed the connection before its answer was complete",
            ),
            (
                b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\nhello",
                "cannot fetch web.cpio.zst: the server sends 99999999999 bytes where 5 are wanted",
            ),
            (
                b"HTTP/1.1 200 OK\r\n\r\nhello",
                "cannot fetch web.cpio.zst: the server's answer cannot be understood: it does not tell its length",
            ),
            (
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
                "cannot fetch web.cpio.zst: the server answers 404",
            ),
        ] {
            assert_eq!(fetched(answer).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_manifest_is_bounded_and_its_name_is_its_digest() {
        let error = server(b"").manifest(HELLO, LARGEST_MANIFEST + 1).unwrap_err();
        assert!(matches!(error, KexecError::ManifestSize(_)));
        for name in ["", "sha256:", "zz", "../../etc"] {
            let error = server(b"").manifest(name, 5).unwrap_err();
            assert!(matches!(error, KexecError::Digest(_)), "{name}");
        }
    }

    #[test]
    fn a_machine_segment_that_never_ends_is_not_read() {
        let file = memory_file("test").unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n";
        let error = server(answer).segment("/machine/7/x.cpio", &file).unwrap_err();
        assert!(matches!(error, KexecError::Fetch { source: http::HttpError::TooLarge(_), .. }));
        assert_eq!(file.metadata().unwrap().len(), 0);
    }
}
