use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::SignatureError;
use super::key::{KeyId, SiteKey, TrustedKeys};

/// A signed document of a named type (DSSE v1, github.com/secure-systems-lab/dsse).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Envelope {
    /// The document, in base64.
    pub payload: String,
    /// Its media type.
    pub payload_type: String,
    /// Who signed it.
    pub signatures: Vec<EnvelopeSignature>,
}

/// One signature of an [`Envelope`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvelopeSignature {
    /// The name of the key.
    #[serde(default)]
    pub keyid: String,
    /// The signature, in base64.
    pub sig: String,
}

impl Envelope {
    /// Signs a document.
    pub fn sign(key: &SiteKey, payload_type: &str, payload: &[u8]) -> Self {
        let sig = STANDARD.encode(key.sign(&pre_authentication(payload_type, payload)));
        Self {
            payload: STANDARD.encode(payload),
            payload_type: payload_type.to_owned(),
            signatures: vec![EnvelopeSignature { keyid: key.id().to_string(), sig }],
        }
    }

    /// Returns the document and who signed it, if a trusted key did and it is of the type that is asked for.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the signature.
    pub fn open(
        &self,
        payload_type: &str,
        keys: &TrustedKeys,
    ) -> Result<(Vec<u8>, KeyId), SignatureError> {
        let malformed = |what: &str| SignatureError::Malformed(what.to_owned());
        if self.payload_type != payload_type {
            let found: String = self.payload_type.chars().take(80).collect();
            return Err(malformed(&format!("it is of the type `{found}`")));
        }
        let payload =
            STANDARD.decode(&self.payload).map_err(|_| malformed("its payload is not base64"))?;
        let message = pre_authentication(payload_type, &payload);
        let mut problem = SignatureError::Unsigned;
        // There are never more than a few; more would only cost time.
        for signature in self.signatures.iter().take(16) {
            let Ok(id) = signature.keyid.parse::<KeyId>() else { continue };
            let Some(key) = keys.get(&id) else {
                problem = SignatureError::Untrusted(id);
                continue;
            };
            let bytes = STANDARD.decode(&signature.sig).unwrap_or_default();
            if key.verifies(&message, &bytes) {
                return Ok((payload, id));
            }
            problem = SignatureError::Wrong(id);
        }
        Err(problem)
    }
}

/// What is signed in place of the document itself (DSSE v1, "PAE").
pub(crate) fn pre_authentication(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signed_bytes_are_those_of_the_specification() {
        // The example of the specification's protocol document.
        let bytes = pre_authentication("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }

    #[test]
    fn only_what_a_trusted_key_signed_is_opened() {
        let (key, other) = (SiteKey::generate().unwrap(), SiteKey::generate().unwrap());
        let keys: TrustedKeys = [key.public().clone()].into_iter().collect();
        let envelope = Envelope::sign(&key, "a/b", b"text");
        assert_eq!(envelope.open("a/b", &keys).unwrap(), (b"text".to_vec(), key.id()));
        assert!(matches!(envelope.open("a/c", &keys), Err(SignatureError::Malformed(_))));
        let mut changed = envelope.clone();
        changed.payload = STANDARD.encode(b"tExt");
        assert_eq!(changed.open("a/b", &keys), Err(SignatureError::Wrong(key.id())));
        let foreign = Envelope::sign(&other, "a/b", b"text");
        assert_eq!(foreign.open("a/b", &keys), Err(SignatureError::Untrusted(other.id())));
        let bare = Envelope { signatures: Vec::new(), ..envelope };
        assert_eq!(bare.open("a/b", &keys), Err(SignatureError::Unsigned));
    }
}
