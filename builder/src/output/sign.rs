//! Signatures for Secure Boot: Authenticode, a PKCS#7 message behind a UEFI program ("Windows Authenticode Portable
//! Executable Signature Format"; UEFI 2.10 §32.2.4).
//!
//! Nothing in a signature is from the clock or by chance, so the same program and key give the same bytes.

use std::ffi::OsString;
use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{RSA_PKCS1_SHA256, RsaKeyPair};
use kiln_types::Digest;

pub use super::certificate::{Certificate, KeyError};
use super::certificate::{RSA, pem, read_text};
use super::der::{self, INTEGER, NULL, OBJECT_ID, OCTET_STRING, SEQUENCE, SET, context};
use super::pe::{self, PeError};
use super::plan::Plan;
use crate::hash::sha256;
use crate::store::Store;

const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 7, 2];
const CONTENT_TYPE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 3];
const MESSAGE_DIGEST: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 9, 4];
const SHA_256: &[u8] = &[0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1];
/// `SPC_INDIRECT_DATA_OBJID`: the content is the digest of a file.
const INDIRECT_DATA: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 4];
/// `SPC_PE_IMAGE_DATA_OBJID`: that file is a program.
const PE_IMAGE_DATA: &[u8] = &[0x2b, 6, 1, 4, 1, 0x82, 0x37, 2, 1, 15];
/// `SpcPeImageData` without flags, with an empty name of a file.
const NO_NAME: &[u8] = &[0x30, 9, 3, 1, 0, 0xa0, 4, 0xa2, 2, 0x80, 0];
/// No signature is longer: an RSA key of 16384 bits.
const MAX_SIGNATURE: u64 = 2048;

/// Makes RSA signatures by a key, wherever that is.
pub trait Signer: Send + Sync {
    /// Returns the certificate of the key.
    fn certificate(&self) -> &Certificate;

    /// Signs a message: PKCS #1 version 1.5 with SHA-256 (RFC 8017 §8.2).
    ///
    /// # Errors
    ///
    /// Fails when there is no answer from the key.
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError>;

    /// Signs a whole file in the same way, a chunk at a time.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, and as [`sign`](Self::sign) does.
    fn sign_file(&self, file: &Plan, store: &Store) -> Result<Vec<u8>, SignError>;
}

/// A program cannot be signed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignError {
    /// The key or certificate is of no use.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The program has no place for a signature.
    #[error("cannot sign the UEFI program")]
    Program(#[from] PeError),
    /// The program cannot be read.
    #[error("cannot read the UEFI program")]
    Read(#[source] io::Error),
    /// The key did not sign.
    #[error("the key refused to sign")]
    Refused,
    /// The command could not be run.
    #[error("cannot run the signing command `{program}`")]
    Run {
        /// Its name.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The command ended with an error.
    #[error("the signing command `{program}` failed ({status}): {message}")]
    Command {
        /// Its name.
        program: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// What it said last.
        message: String,
    },
    /// The signature is by another key than that of the certificate.
    #[error(
        "the signature does not fit the certificate; check that key and certificate belong together"
    )]
    Mismatch,
}

/// A private key in a PEM file (PKCS #8 or PKCS #1).
#[derive(Debug)]
pub struct KeyFile {
    key: RsaKeyPair,
    certificate: Certificate,
}

impl KeyFile {
    /// Reads a key and its certificate.
    ///
    /// # Errors
    ///
    /// Fails when one of them cannot be read or is of no use.
    pub fn read(key: &Path, certificate: &Path) -> Result<Self, KeyError> {
        let text = read_text(key)?;
        let bad = |reason: aws_lc_rs::error::KeyRejected| KeyError::Key {
            path: key.to_owned(),
            reason: reason.to_string(),
        };
        let parsed = match (pem(&text, "PRIVATE KEY"), pem(&text, "RSA PRIVATE KEY")) {
            (Some(der), _) => RsaKeyPair::from_pkcs8(&der).map_err(bad)?,
            (None, Some(der)) => RsaKeyPair::from_der(&der).map_err(bad)?,
            (None, None) => {
                return Err(KeyError::NoPem { path: key.to_owned(), wanted: "PRIVATE KEY" });
            }
        };
        Ok(Self { key: parsed, certificate: Certificate::read(certificate)? })
    }
}

impl Signer for KeyFile {
    fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature)
            .map_err(|_| SignError::Refused)?;
        Ok(signature)
    }

    fn sign_file(&self, file: &Plan, store: &Store) -> Result<Vec<u8>, SignError> {
        let mut hasher = digest::Context::new(&digest::SHA256);
        file.each_chunk(store, |chunk| hasher.update(chunk)).map_err(SignError::Read)?;
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign_digest(&RSA_PKCS1_SHA256, &hasher.finish(), &mut signature)
            .map_err(|_| SignError::Refused)?;
        Ok(signature)
    }
}

/// A key that a command has access to, such as one in a hardware module. The command gets the bytes to sign on its
/// standard input and writes the bare signature, RSA PKCS #1 version 1.5 with SHA-256, to its standard output:
/// `openssl dgst -sha256 -sign KEY` and `pkcs11-tool --sign --mechanism SHA256-RSA-PKCS` do.
#[derive(Clone, Debug)]
pub struct SigningCommand {
    /// The program.
    pub program: OsString,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The certificate of its key.
    pub certificate: Certificate,
}

impl Signer for SigningCommand {
    fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        self.run(|input| input.write_all(message))
    }

    fn sign_file(&self, file: &Plan, store: &Store) -> Result<Vec<u8>, SignError> {
        self.run(|input| file.write(store, input))
    }
}

impl SigningCommand {
    /// Runs the command with what is to be signed as its input.
    fn run(
        &self,
        write: impl FnOnce(&mut ChildStdin) -> io::Result<()>,
    ) -> Result<Vec<u8>, SignError> {
        let program = || self.program.to_string_lossy().into_owned();
        let failed = |source| SignError::Run { program: program(), source };
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        if let Some(mut input) = child.stdin.take() {
            // A command that wants no input, or ends early, is judged by its answer, which fits into the pipe.
            drop(write(&mut input));
        }
        let mut signature = Vec::new();
        if let Some(output) = child.stdout.take() {
            output.take(MAX_SIGNATURE).read_to_end(&mut signature).map_err(failed)?;
        }
        let ended = child.wait_with_output().map_err(failed)?;
        if ended.status.success() {
            return Ok(signature);
        }
        let text = String::from_utf8_lossy(&ended.stderr);
        let message = text.trim().lines().next_back().unwrap_or_default().to_owned();
        Err(SignError::Command { program: program(), status: ended.status, message })
    }
}

/// Signs a program. Reads all of it once.
///
/// # Errors
///
/// Fails when the program cannot be read, is signed already or has no place for a signature, and when the key does
/// not sign or is not the one of its certificate.
pub fn sign(program: &Plan, store: &Store, signer: &dyn Signer) -> Result<Plan, SignError> {
    let headers = pe::headers(program, store).map_err(SignError::Read)?;
    // Signatures begin at a multiple of eight; what fills up to it is signed too.
    let mut padded = program.clone();
    padded.align(8);
    let digest = pe::authenticated(&padded, &headers)?.sha256(store).map_err(SignError::Read)?;
    let table = table(&signed_data(&digest, signer)?);
    Ok(pe::attach(&padded, &headers, table)?)
}

/// Returns the PKCS#7 message that vouches for the digest of a program.
fn signed_data(digest: &Digest, signer: &dyn Signer) -> Result<Vec<u8>, SignError> {
    let algorithm =
        |id| der::group(SEQUENCE, &[&der::value(OBJECT_ID, id), &der::value(NULL, &[])]);
    let kind = der::value(OBJECT_ID, INDIRECT_DATA);
    let content = [
        der::group(SEQUENCE, &[&der::value(OBJECT_ID, PE_IMAGE_DATA), NO_NAME]),
        der::group(SEQUENCE, &[&algorithm(SHA_256), &der::value(OCTET_STRING, digest.as_bytes())]),
    ]
    .concat();
    // Of the content without its outer tag and length (PKCS #7 §9.3).
    let attribute = |id, value: &[u8]| {
        der::group(SEQUENCE, &[&der::value(OBJECT_ID, id), &der::value(SET, value)])
    };
    let attributes = der::set(vec![
        attribute(CONTENT_TYPE, &kind),
        attribute(MESSAGE_DIGEST, &der::value(OCTET_STRING, sha256(&content).as_bytes())),
    ]);
    let signature = signer.sign(&attributes)?;
    let certificate = signer.certificate();
    if !certificate.verifies(&attributes, &signature) {
        return Err(SignError::Mismatch);
    }
    // What is signed is a SET; what is written has the tag [0] in its place.
    let inside = attributes.get(1..).unwrap_or_default();
    let one = der::value(INTEGER, &[1]);
    let info = der::group(
        SEQUENCE,
        &[
            &one,
            &der::group(SEQUENCE, &[certificate.issuer(), certificate.serial()]),
            &algorithm(SHA_256),
            &[context(0)],
            inside,
            &algorithm(RSA),
            &der::value(OCTET_STRING, &signature),
        ],
    );
    let data = der::group(
        SEQUENCE,
        &[
            &one,
            &der::value(SET, &algorithm(SHA_256)),
            &der::group(
                SEQUENCE,
                &[&kind, &der::value(context(0), &der::value(SEQUENCE, &content))],
            ),
            &der::value(context(0), certificate.der()),
            &der::value(SET, &info),
        ],
    );
    Ok(der::group(SEQUENCE, &[&der::value(OBJECT_ID, SIGNED_DATA), &der::value(context(0), &data)]))
}

/// Returns a table with one signature: `WIN_CERTIFICATE` of the type PKCS#7.
fn table(message: &[u8]) -> Vec<u8> {
    let len = (8 + message.len()).next_multiple_of(8);
    let mut table = u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes().to_vec();
    // WIN_CERT_REVISION_2_0, WIN_CERT_TYPE_PKCS_SIGNED_DATA
    table.extend([0, 2, 2, 0]);
    table.extend_from_slice(message);
    table.resize(len, 0);
    table
}

#[cfg(test)]
#[path = "sign_tests.rs"]
pub(super) mod tests;
