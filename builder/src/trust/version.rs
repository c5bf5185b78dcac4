use std::fs::File;
use std::io::{self, Read as _};

use kiln_types::Digest;

use super::key::{KeyId, SiteKey, TrustedKeys};
use super::{PROVENANCE, SIGNATURE, Signature, SignatureError, TrustError};
use crate::hash::sha256;
use crate::manifest::Manifest;
use crate::provenance::{self, Statement};
use crate::store::{Store, StoreError, VersionEntry};

/// The largest signature that is read.
const MAX_SIGNATURE: u64 = 16 << 10;
/// The largest document that belongs to a version.
const MAX_DOCUMENT: u64 = 64 << 20;

/// What the check of a version has found.
#[derive(Clone, Debug)]
pub struct Verification {
    /// What it consists of.
    pub manifest: Manifest,
    /// The trusted key that signed it, if one did.
    pub signed_by: Option<KeyId>,
    /// Whether there is a list of what is in it, and it is the one that the manifest names.
    pub sbom: bool,
    /// How it was built, if a trusted key says so.
    pub provenance: Option<Statement>,
    /// How many artifacts were compared with their digests.
    pub artifacts: usize,
    /// All that is wrong, one sentence each. A version without a list or a statement is not wrong.
    pub problems: Vec<String>,
}

impl Verification {
    /// Returns whether the version is what a trusted key signed.
    pub fn is_good(&self) -> bool {
        self.problems.is_empty() && self.signed_by.is_some()
    }
}

/// Signs a version and stores the signature. Returns the digest of the attachment [`SIGNATURE`].
///
/// # Errors
///
/// Fails when the signature cannot be stored.
pub fn sign_version(store: &Store, key: &SiteKey, version: &Digest) -> Result<Digest, TrustError> {
    Ok(store.put(&Signature::sign(key, version).to_json()?)?)
}

/// Checks that a trusted key signed a version. Its artifacts are not read: their digests are in the manifest, and
/// the digest of the manifest is what was signed.
///
/// # Errors
///
/// Says what is wrong with the signature.
pub fn check_signature(
    store: &Store,
    version: &VersionEntry,
    keys: &TrustedKeys,
) -> Result<KeyId, SignatureError> {
    let attachment = version.attachments.get(SIGNATURE).ok_or(SignatureError::Unsigned)?;
    let bytes = read(store, attachment, MAX_SIGNATURE)
        .map_err(|error| SignatureError::Unreadable(error.to_string()))?;
    let signature = Signature::from_json(&bytes)?;
    signature.verify(&version.digest, keys)?;
    Ok(signature.key)
}

/// Checks all that belongs to a version: the manifest and every artifact against their digests, the signature, the
/// list of what is in it, and the statement of how it was built.
///
/// # Errors
///
/// Fails when the manifest cannot be read. All else that is wrong is in the result.
pub fn verify_version(
    store: &Store,
    version: &VersionEntry,
    keys: &TrustedKeys,
) -> Result<Verification, StoreError> {
    let manifest = store.manifest(&version.digest)?;
    let faults = store.verify(version)?;
    let mut problems: Vec<_> = faults
        .into_iter()
        .map(|fault| format!("{} is damaged: {}", fault.path.display(), fault.problem))
        .collect();
    let signed_by = match check_signature(store, version, keys) {
        Ok(key) => Some(key),
        Err(error) => {
            problems.push(error.to_string());
            None
        }
    };
    let sbom = manifest.sbom.is_some_and(|digest| match check_sbom(store, &digest) {
        Ok(()) => true,
        Err(problem) => {
            problems.push(format!("the list of what is in it cannot be used: {problem}"));
            false
        }
    });
    let mut statement = None;
    if let Some(digest) = version.attachments.get(PROVENANCE) {
        let opened = read(store, digest, MAX_DOCUMENT).map_err(|error| error.to_string()).and_then(
            |bytes| {
                provenance::open(&bytes, &version.digest, keys).map_err(|error| error.to_string())
            },
        );
        match opened {
            Ok((found, _)) => statement = Some(found),
            Err(problem) => {
                problems.push(format!("the statement of how it was built is not good: {problem}"));
            }
        }
    }
    let artifacts = manifest.artifacts().count() + version.attachments.len();
    Ok(Verification { manifest, signed_by, sbom, provenance: statement, artifacts, problems })
}

/// Checks a version against its digests and signs it.
///
/// # Errors
///
/// Fails when it is damaged, or when the signature cannot be stored.
pub fn sign_checked(
    store: &Store,
    key: &SiteKey,
    version: &VersionEntry,
) -> Result<Digest, TrustError> {
    // A signature that was lost is no reason not to make a new one.
    let mut bare = version.clone();
    bare.attachments.remove(SIGNATURE);
    if let Some(fault) = store.verify(&bare)?.into_iter().next() {
        let problem = format!("{}: {}", fault.path.display(), fault.problem);
        return Err(TrustError::NotWhole { version: version.digest, problem });
    }
    sign_version(store, key, &version.digest)
}

fn check_sbom(store: &Store, digest: &Digest) -> Result<(), String> {
    let bytes = read(store, digest, MAX_DOCUMENT).map_err(|error| error.to_string())?;
    let document: serde_json::Value =
        serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    match document["spdxVersion"].as_str() {
        Some("SPDX-2.3") => Ok(()),
        _ => Err("it is not an SPDX 2.3 document".to_owned()),
    }
}

/// Reads a small artifact and compares it with its digest.
fn read(store: &Store, digest: &Digest, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(store.artifact(digest))?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::other(format!("it is larger than {limit} bytes")));
    }
    match sha256(&bytes) == *digest {
        true => Ok(bytes),
        false => Err(io::Error::other("its content does not have its digest")),
    }
}

#[cfg(test)]
#[path = "version_tests.rs"]
mod tests;
