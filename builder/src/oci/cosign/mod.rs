//! Signatures of images by public keys, in the form of `cosign` (its documents `SIGNATURE_SPEC.md` and
//! `PAYLOAD_SPEC.md`).
//!
//! What is signed is a small JSON document that names the digest of an index or a manifest. It is a layer of a
//! manifest of its own, and the signature an annotation of that layer. The manifest has the tag `sha256-HEX.sig` in the
//! repository of the image, or refers to it (OCI distribution specification 1.1, "referrers").
//!
//! Newer releases write a bundle instead ([`bundle`]), which always refers to the image.

mod bundle;
mod find;
mod key;
mod policy;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

pub use self::policy::{ImagePolicy, ImageRule, Verdict};

use self::key::Key;

/// The layer that is signed.
const PAYLOAD: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature, in base64.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// What the signed document says it is.
const KIND: &str = "cosign container image signature";
/// The largest document that is signed, in bytes.
const MAX_PAYLOAD: u64 = 64 << 10;
/// The longest signature in base64. One of P-256 has 96 letters.
const MAX_SIGNATURE: usize = 1024;
/// The most signatures of an image that are looked at.
const MAX_SIGNATURES: usize = 64;

/// A signature with what it signs. It proves itself: wherever it was kept, it is checked against the keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Signed {
    /// The index or manifest that it should be of.
    subject: Digest,
    /// What was signed.
    payload: String,
    /// The signature, in base64.
    signature: String,
    /// What kind of document that is.
    #[serde(default)]
    form: Form,
}

/// The two kinds of documents that are signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Form {
    /// A "simple signing" document, signed as it is.
    #[default]
    Simple,
    /// A statement out of a bundle, signed with its type before it.
    Statement,
}

#[derive(Deserialize)]
struct Payload {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Subject,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Why signatures do not count, the closest miss last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Miss {
    /// There is none.
    None,
    /// None of the keys made it.
    Key,
    /// A key made it, but for something else.
    Other,
}

impl Signed {
    /// Checks that one of the keys made it, and that it is of its subject.
    fn check(&self, keys: &[Key]) -> Result<(), Miss> {
        let signature = STANDARD.decode(self.signature.trim()).map_err(|_| Miss::Key)?;
        // Nothing of a document is believed before somebody who is trusted has signed it.
        let message = match self.form {
            Form::Simple => self.payload.as_bytes().to_vec(),
            Form::Statement => bundle::message(&self.payload),
        };
        if !keys.iter().any(|key| key.verifies(&message, &signature)) {
            return Err(Miss::Key);
        }
        let names = match self.form {
            Form::Simple => self.is_of_subject(),
            Form::Statement => bundle::names(&self.payload, &self.subject),
        };
        if names { Ok(()) } else { Err(Miss::Other) }
    }

    fn is_of_subject(&self) -> bool {
        let payload = serde_json::from_str(&self.payload);
        payload.is_ok_and(|Payload { critical }| {
            critical.kind == KIND && critical.image.digest == self.subject.to_string()
        })
    }
}

#[cfg(test)]
mod tests;
