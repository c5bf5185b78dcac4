use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::key::{KeyId, SiteKey, TrustedKeys};
use super::{SignatureError, TrustError};
use crate::hash::sha256;

const ALGORITHM: &str = "ed25519";
/// What a signed message begins with, so that it is never taken for one of another kind.
const KIND: &str = "kiln-manifest-v1";

/// The signature of a manifest, as it is kept: a small JSON document of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Signature {
    /// The key that made it.
    pub key: KeyId,
    /// `ed25519`.
    pub algorithm: String,
    /// The signature, in base64.
    pub signature: String,
}

impl Signature {
    /// Signs the version that this digest names: the digest of a manifest's canonical form.
    ///
    /// What is signed are two lines, `kiln-manifest-v1` and the digest as Kiln writes it, each with a newline.
    pub fn sign(key: &SiteKey, manifest: &Digest) -> Self {
        Self {
            key: key.id(),
            algorithm: ALGORITHM.to_owned(),
            signature: STANDARD.encode(key.sign(&message(manifest))),
        }
    }

    /// Signs a manifest by the bytes of its canonical form.
    pub fn sign_manifest(key: &SiteKey, canonical: &[u8]) -> Self {
        Self::sign(key, &sha256(canonical))
    }

    /// Returns the 64 bytes of the signature as hexadecimal digits. Nothing where they are not there.
    pub fn hex(&self) -> Option<String> {
        let bytes: [u8; 64] = STANDARD.decode(&self.signature).ok()?.try_into().ok()?;
        let (first, second) = bytes.split_first_chunk::<32>()?;
        let second: [u8; 32] = second.try_into().ok()?;
        Some(Digest::from_bytes(*first).hex() + &Digest::from_bytes(second).hex())
    }

    /// Reads the document.
    ///
    /// # Errors
    ///
    /// Fails when it is none.
    pub fn from_json(bytes: &[u8]) -> Result<Self, SignatureError> {
        serde_json::from_slice(bytes).map_err(|error| SignatureError::Malformed(error.to_string()))
    }

    /// Returns the document.
    ///
    /// # Errors
    ///
    /// Fails only when a value has no JSON form, which none of ours lacks.
    pub fn to_json(&self) -> Result<Vec<u8>, TrustError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Checks that a trusted key signed this version.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the signature.
    pub fn verify(&self, manifest: &Digest, keys: &TrustedKeys) -> Result<(), SignatureError> {
        if self.algorithm != ALGORITHM {
            let name = self.algorithm.chars().take(40).collect();
            return Err(SignatureError::Algorithm(name));
        }
        let key = keys.get(&self.key).ok_or_else(|| SignatureError::Untrusted(self.key.clone()))?;
        let wrong = || SignatureError::Wrong(self.key.clone());
        let signature = STANDARD.decode(&self.signature).map_err(|_| wrong())?;
        match key.verifies(&message(manifest), &signature) {
            true => Ok(()),
            false => Err(wrong()),
        }
    }

    /// Checks a manifest by the bytes of its canonical form.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the signature.
    pub fn verify_manifest(
        &self,
        canonical: &[u8],
        keys: &TrustedKeys,
    ) -> Result<(), SignatureError> {
        self.verify(&sha256(canonical), keys)
    }
}

fn message(manifest: &Digest) -> Vec<u8> {
    format!("{KIND}\n{manifest}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> (SiteKey, TrustedKeys) {
        let key = SiteKey::generate().unwrap();
        let keys = [key.public().clone()].into_iter().collect();
        (key, keys)
    }

    #[test]
    fn a_signature_survives_its_document() {
        let (key, keys) = site();
        let signature = Signature::sign_manifest(&key, b"{}");
        let again = Signature::from_json(&signature.to_json().unwrap()).unwrap();
        assert_eq!(again, signature);
        again.verify_manifest(b"{}", &keys).unwrap();
    }

    #[test]
    fn everything_that_is_wrong_has_a_sentence_of_its_own() {
        let (key, keys) = site();
        let good = Signature::sign_manifest(&key, b"{}");
        let id = key.id();
        assert_eq!(
            good.verify_manifest(b"[]", &keys),
            Err(SignatureError::Wrong(id.clone())),
            "a changed manifest"
        );
        let mut bytes = STANDARD.decode(&good.signature).unwrap();
        bytes[40] ^= 1;
        for changed in [STANDARD.encode(bytes), String::new(), "?".to_owned()] {
            let signature = Signature { signature: changed, ..good.clone() };
            let error = signature.verify_manifest(b"{}", &keys).unwrap_err();
            assert_eq!(error, SignatureError::Wrong(id.clone()), "a changed signature");
        }
        let (other, _) = site();
        let foreign = Signature::sign_manifest(&other, b"{}");
        let error = foreign.verify_manifest(b"{}", &keys).unwrap_err();
        assert_eq!(error, SignatureError::Untrusted(other.id()), "another key");
        // A key that is trusted does not lend its name.
        let lent = Signature { key: id.clone(), ..foreign };
        assert_eq!(lent.verify_manifest(b"{}", &keys), Err(SignatureError::Wrong(id)));
        let old = Signature { algorithm: "md5".to_owned(), ..good };
        let error = old.verify_manifest(b"{}", &keys).unwrap_err();
        assert_eq!(error, SignatureError::Algorithm("md5".to_owned()));
        for bad in ["", "[]", "{}", r#"{"key":"../x","algorithm":"ed25519","signature":""}"#] {
            let error = Signature::from_json(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, SignatureError::Malformed(_)), "{bad}: {error}");
        }
    }

    #[test]
    fn a_signature_of_another_kind_is_not_one_of_a_manifest() {
        let (key, keys) = site();
        let digest = sha256(b"{}");
        let raw = Signature {
            key: key.id(),
            algorithm: ALGORITHM.to_owned(),
            signature: STANDARD.encode(key.sign(digest.to_string().as_bytes())),
        };
        assert_eq!(raw.verify(&digest, &keys), Err(SignatureError::Wrong(key.id())));
    }
}
