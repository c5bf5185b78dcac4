use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey};

use crate::trust::pem;

/// The largest file that is read as a key.
const MAX_KEY: u64 = 64 << 10;
/// What stands before the 65 bytes of a point of P-256 in DER form (RFC 5480 §2).
const P256: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
/// What stands before the 32 bytes of an Ed25519 key in DER form (RFC 8410 §4).
const ED: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key out of a file.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) path: PathBuf,
    key: ParsedPublicKey,
}

impl Key {
    /// Reads a key of one of the kinds that cosign signs with by itself (ECDSA over P-256 with SHA-256) or with keys
    /// made elsewhere (Ed25519).
    ///
    /// # Errors
    ///
    /// Says why the file cannot be used.
    pub(super) fn read(path: &Path) -> Result<Self, String> {
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_KEY).read_to_string(&mut text))
            .map_err(|error| error.to_string())?;
        let wrong = "it is not a public key of ECDSA P-256 or Ed25519 in PEM form; \
                     `cosign public-key` and `openssl pkey -pubout` write such files";
        let der = pem::decode("PUBLIC KEY", &text).ok_or(wrong)?;
        let key = match (der.strip_prefix(&P256), der.strip_prefix(&ED)) {
            (Some(point), _) => ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point),
            (_, Some(key)) => ParsedPublicKey::new(&ED25519, key),
            _ => return Err(wrong.to_owned()),
        };
        Ok(Self { path: path.to_owned(), key: key.map_err(|_| wrong)? })
    }

    pub(super) fn verifies(&self, payload: &[u8], signature: &[u8]) -> bool {
        self.key.verify_sig(payload, signature).is_ok()
    }
}
