use std::fs::File;
use std::io;
use std::path::PathBuf;

use kiln_types::Digest;

use super::{Store, StoreError, VersionEntry};
use crate::hash::{Hasher, HashingWriter};

/// What is wrong with an artifact.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The artifact.
    pub digest: Digest,
    /// Where it is, or should be.
    pub path: PathBuf,
    /// What is wrong.
    pub problem: String,
}

impl Store {
    /// Reads every artifact of a version and compares it with its digest. Returns what differs.
    ///
    /// # Errors
    ///
    /// Fails when the manifest cannot be read.
    pub fn verify(&self, version: &VersionEntry) -> Result<Vec<Fault>, StoreError> {
        let manifest = self.manifest(&version.digest)?;
        let all = manifest.artifacts().chain(version.attachments.values().copied());
        Ok(all.filter_map(|digest| self.fault(digest)).collect())
    }

    fn fault(&self, digest: Digest) -> Option<Fault> {
        let path = self.artifact(&digest);
        let problem = match digest_of(&path) {
            Ok(found) if found == digest => return None,
            Ok(found) => format!("its content has the digest {found}"),
            Err(error) => error.to_string(),
        };
        Some(Fault { digest, path, problem })
    }
}

fn digest_of(path: &std::path::Path) -> io::Result<Digest> {
    let mut file = File::open(path)?;
    let mut out = HashingWriter { out: io::sink(), hasher: Hasher::default(), written: 0 };
    let mut buffer = vec![0; 1 << 18];
    loop {
        let n = io::Read::read(&mut file, &mut buffer)?;
        if n == 0 {
            return Ok(out.hasher.finish());
        }
        io::Write::write_all(&mut out, &buffer[..n])?;
    }
}
