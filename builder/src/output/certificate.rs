use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::der::{BIT_STRING, INTEGER, OBJECT_ID, SEQUENCE, context, read, read_all};

/// No key or certificate has this many bytes.
const MAX_PEM: u64 = 256 << 10;
/// `rsaEncryption` (RFC 8017 appendix A.1).
pub(super) const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

/// A certificate for Secure Boot: what the firmware is to know, so that it takes what the key has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    der: Vec<u8>,
    issuer: Vec<u8>,
    serial: Vec<u8>,
    public_key: Vec<u8>,
}

/// A key or certificate is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read `{path}`")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no block of the right kind in the file.
    #[error("`{path}` has no PEM block `{wanted}`")]
    NoPem {
        /// The file.
        path: PathBuf,
        /// What was looked for.
        wanted: &'static str,
    },
    /// The certificate is damaged, or not for an RSA key, which is all that Secure Boot firmware knows for sure.
    #[error("`{path}` is not an X.509 certificate of an RSA key")]
    Certificate {
        /// The file.
        path: PathBuf,
    },
    /// The key is damaged or too small.
    #[error("`{path}` is not an RSA private key of at least 2048 bits ({reason})")]
    Key {
        /// The file.
        path: PathBuf,
        /// What the library says.
        reason: String,
    },
}

impl Certificate {
    /// Reads a certificate from a PEM file.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read, is damaged or not of an RSA key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let wanted = "CERTIFICATE";
        let der = pem(&read_text(path)?, wanted)
            .ok_or_else(|| KeyError::NoPem { path: path.to_owned(), wanted })?;
        Self::parse(der).ok_or_else(|| KeyError::Certificate { path: path.to_owned() })
    }

    /// Reads the fields that a signature names it by, and its key (RFC 5280 §4.1).
    pub fn parse(der: Vec<u8>) -> Option<Self> {
        let (outer, _) =
            read(&der).filter(|(value, rest)| value.tag == SEQUENCE && rest.is_empty())?;
        let (body, _) = read(outer.content)?;
        let mut fields = read_all(body.content)?.into_iter().peekable();
        fields.next_if(|version| version.tag == context(0));
        let serial = fields.next().filter(|serial| serial.tag == INTEGER)?.whole.to_vec();
        // Before the issuer is the algorithm, after it the validity and the subject.
        let issuer = fields.nth(1).filter(|issuer| issuer.tag == SEQUENCE)?.whole.to_vec();
        let key = read_all(fields.nth(2)?.content)?;
        let [algorithm, bits] = key.as_slice() else { return None };
        let (id, _) = read(algorithm.content)?;
        let (unused, public_key) = bits.content.split_first()?;
        let rsa = id.tag == OBJECT_ID && id.content == RSA;
        if !rsa || bits.tag != BIT_STRING || *unused != 0 {
            return None;
        }
        let public_key = public_key.to_vec();
        Some(Self { issuer, serial, public_key, der })
    }

    /// Returns the certificate in the form that firmware takes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// Returns the issuer's name, encoded.
    pub(super) fn issuer(&self) -> &[u8] {
        &self.issuer
    }

    /// Returns the serial number, encoded.
    pub(super) fn serial(&self) -> &[u8] {
        &self.serial
    }

    /// Returns whether a signature of a message is by the key of this certificate.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, &self.public_key)
            .verify(message, signature)
            .is_ok()
    }
}

/// Reads a small text file.
pub(super) fn read_text(path: &Path) -> Result<String, KeyError> {
    let read = || {
        let mut text = String::new();
        std::fs::File::open(path)?.take(MAX_PEM).read_to_string(&mut text)?;
        Ok(text)
    };
    read().map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

/// Returns the bytes of the first block with a label (RFC 7468 §2).
pub(super) fn pem(text: &str, label: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    STANDARD.decode(body.split_ascii_whitespace().collect::<String>()).ok()
}
