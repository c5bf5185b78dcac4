//! The two kinds of signatures that the server's certificate needs: that of the site's authority under it, by RSA as
//! firmware wants it, and that of the certificate's own key under what is agreed on, by Ed25519.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U2048};
use ed25519_compact::{PublicKey, Signature};
use rustls::SignatureScheme;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id,
};
use sha2::{Digest as _, Sha256};

pub(super) const ALL: WebPkiSupportedAlgorithms = WebPkiSupportedAlgorithms {
    all: &[&Rsa, &Ed25519],
    mapping: &[
        (SignatureScheme::ED25519, &[&Ed25519]),
        (SignatureScheme::RSA_PKCS1_SHA256, &[&Rsa]),
    ],
};

#[derive(Debug)]
struct Ed25519;

impl SignatureVerificationAlgorithm for Ed25519 {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let verify = || {
            let key = PublicKey::from_slice(key)?;
            key.verify(message, &Signature::from_slice(signature)?)
        };
        verify().map_err(|_| InvalidSignature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ED25519
    }
}

/// RSA with 2048 bits and the exponent 65537, which the site's authority always has: PKCS #1 v1.5 with SHA-256.
#[derive(Debug)]
struct Rsa;

/// `SEQUENCE { INTEGER of 257 bytes, INTEGER 65537 }`: the first byte of the modulus is 0, so that it is positive.
const KEY_BEGIN: [u8; 9] = [0x30, 0x82, 1, 0x0a, 2, 0x82, 1, 1, 0];
const KEY_END: [u8; 5] = [2, 3, 1, 0, 1];
/// `DigestInfo` for SHA-256, RFC 8017 §9.2.
const DIGEST_INFO: [u8; 19] =
    [0x30, 0x31, 0x30, 0x0d, 6, 9, 0x60, 0x86, 0x48, 1, 0x65, 3, 4, 2, 1, 5, 0, 4, 0x20];

impl SignatureVerificationAlgorithm for Rsa {
    fn verify_signature(
        &self,
        key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        let expected = padded(&Sha256::digest(message).into());
        match raised(key, signature) {
            Some(found) if found == expected => Ok(()),
            _ => Err(InvalidSignature),
        }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_PKCS1_SHA256
    }
}

/// Writes what the signer has signed. It is compared as a whole, so that nothing can hide in it.
fn padded(hash: &[u8; 32]) -> [u8; U2048::BYTES] {
    let mut text = [0xff; U2048::BYTES];
    let tail = [&[0][..], &DIGEST_INFO, hash].concat();
    text[..2].copy_from_slice(&[0, 1]);
    text[U2048::BYTES - tail.len()..].copy_from_slice(&tail);
    text
}

/// Raises the signature to the 65537th power. Nothing here is secret.
fn raised(key: &[u8], signature: &[u8]) -> Option<[u8; U2048::BYTES]> {
    let modulus = key.strip_prefix(&KEY_BEGIN)?.strip_suffix(&KEY_END)?;
    let number = |bytes: &[u8]| (bytes.len() == U2048::BYTES).then(|| U2048::from_be_slice(bytes));
    let (modulus, signature) = (number(modulus)?, number(signature)?);
    if signature >= modulus {
        return None;
    }
    let odd: Odd<U2048> = Option::from(Odd::new(modulus))?;
    let params = FixedMontyParams::new_vartime(odd);
    let base = FixedMontyForm::new(&signature, &params);
    let power = (0..16).fold(base, |power, _| power.square());
    let bytes = (power * base).retrieve().to_be_bytes();
    let bytes: &[u8] = bytes.as_ref();
    bytes.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key with the modulus 2^2048 - 1.
    fn key() -> Vec<u8> {
        [&KEY_BEGIN[..], &[0xff; 256], &KEY_END].concat()
    }

    #[test]
    fn what_is_no_signature_of_this_kind_is_none() {
        let key = key();
        assert!(raised(&key, &[1; 256]).is_some());
        // The number itself, or more.
        assert!(raised(&key, &[0xff; 256]).is_none());
        for length in [0, 1, 255, 257, 512] {
            assert!(raised(&key, &vec![1; length]).is_none(), "{length}");
        }
        for cut in [0, 9, 100, key.len() - 1] {
            assert!(raised(&key[..cut], &[1; 256]).is_none(), "{cut}");
        }
        let mut even = key.clone();
        even[264] = 0xfe;
        assert!(raised(&even, &[1; 256]).is_none());
        let mut exponent = key.clone();
        *exponent.last_mut().unwrap() = 3;
        assert!(raised(&exponent, &[1; 256]).is_none());
        // One to any power is one, which nobody has signed.
        let mut one = [0; 256];
        one[255] = 1;
        assert_eq!(raised(&key, &one), Some(one));
        assert!(Rsa.verify_signature(&key, b"x", &one).is_err());
    }

    #[test]
    fn the_padding_is_that_of_the_standard() {
        let text = padded(&[9; 32]);
        assert_eq!((text[0], text[1], text[2], text[203], text[204]), (0, 1, 0xff, 0xff, 0));
        assert_eq!(text[205..224], DIGEST_INFO);
        assert_eq!(text[224..], [9; 32]);
    }
}
