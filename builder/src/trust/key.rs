use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey};
use kiln_types::Digest;
use serde::{Deserialize, Serialize};

use super::pem;
use crate::hash::sha256;

const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What stands before the 32 bytes of a public key in its DER form (RFC 8410 §4).
const SPKI_PREFIX: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ID_LEN: usize = 16;

/// A key's short name: the first 16 hexadecimal digits of the SHA-256 of its public part in DER form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct KeyId(String);

/// The text is not a key's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not the name of a key (16 hexadecimal digits)")]
pub struct ParseKeyIdError(String);

impl FromStr for KeyId {
    type Err = ParseKeyIdError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digit = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
        match text.len() == ID_LEN && text.chars().all(digit) {
            true => Ok(Self(text.to_owned())),
            false => Err(ParseKeyIdError(text.chars().take(80).collect())),
        }
    }
}

impl TryFrom<String> for KeyId {
    type Error = ParseKeyIdError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<KeyId> for String {
    fn from(id: KeyId) -> Self {
        id.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The public part of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads the PEM form (`BEGIN PUBLIC KEY`). Returns nothing when it is not an Ed25519 key.
    pub fn from_pem(text: &str) -> Option<Self> {
        let der = pem::decode(PUBLIC, text)?;
        let raw: [u8; 32] = der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()?;
        ParsedPublicKey::new(&ED25519, raw).ok()?;
        Some(Self(raw))
    }

    /// Returns the PEM form.
    pub fn to_pem(&self) -> String {
        pem::encode(PUBLIC, &self.to_der())
    }

    /// Returns its 32 bytes as hexadecimal digits.
    pub fn hex(&self) -> String {
        Digest::from_bytes(self.0).hex()
    }

    /// Returns its short name.
    pub fn id(&self) -> KeyId {
        let mut hex = sha256(&self.to_der()).hex();
        hex.truncate(ID_LEN);
        KeyId(hex)
    }

    /// Returns whether this key made the signature of the message.
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        ParsedPublicKey::new(&ED25519, self.0)
            .is_ok_and(|key| key.verify_sig(message, signature).is_ok())
    }

    fn to_der(&self) -> Vec<u8> {
        [SPKI_PREFIX.as_slice(), &self.0].concat()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.id())
    }
}

/// The key that this site signs with.
pub struct SiteKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SiteKey {
    /// Makes a new key. Returns nothing when there are no random numbers.
    pub fn generate() -> Option<Self> {
        Self::new(Ed25519KeyPair::generate().ok()?)
    }

    fn new(pair: Ed25519KeyPair) -> Option<Self> {
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// Reads the PEM form (PKCS#8, `BEGIN PRIVATE KEY`). Returns nothing when it is not an Ed25519 key.
    pub fn from_pem(text: &str) -> Option<Self> {
        Self::new(Ed25519KeyPair::from_pkcs8(&pem::decode(PRIVATE, text)?).ok()?)
    }

    /// Returns the PEM form of the private key. Nothing else of this type ever shows it.
    pub fn to_pem(&self) -> Option<String> {
        // The first version of PKCS#8 is the one that other programs read too.
        Some(pem::encode(PRIVATE, self.pair.to_pkcs8v1().ok()?.as_ref()))
    }

    /// Returns the public part.
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Returns the key's short name.
    pub fn id(&self) -> KeyId {
        self.public.id()
    }

    /// Signs a message, which says itself of what kind it is.
    pub(super) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

impl fmt::Debug for SiteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SiteKey({})", self.id())
    }
}

/// The keys whose signatures count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedKeys(BTreeMap<KeyId, PublicKey>);

impl TrustedKeys {
    /// Returns the key with this name.
    pub fn get(&self, id: &KeyId) -> Option<&PublicKey> {
        self.0.get(id)
    }

    /// Returns whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns every name, sorted.
    pub fn ids(&self) -> impl Iterator<Item = &KeyId> {
        self.0.keys()
    }
}

impl FromIterator<PublicKey> for TrustedKeys {
    fn from_iter<I: IntoIterator<Item = PublicKey>>(keys: I) -> Self {
        Self(keys.into_iter().map(|key| (key.id(), key)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of RFC 8410 §10.3, and its public part (§10.1).
    const EXAMPLE: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
    const EXAMPLE_PUBLIC: &str = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";

    #[test]
    fn keys_keep_their_name_through_their_text_form() {
        let key = SiteKey::generate().unwrap();
        let again = SiteKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(again.public(), key.public());
        let public = PublicKey::from_pem(&key.public().to_pem()).unwrap();
        assert_eq!(public.id(), key.id());
        assert_eq!(key.id().to_string().parse(), Ok(key.id()));
        let example = SiteKey::from_pem(EXAMPLE).unwrap();
        assert_eq!(example.public().to_pem(), EXAMPLE_PUBLIC);
        assert_eq!(example.to_pem().unwrap(), EXAMPLE);
        assert!(PublicKey::from_pem(EXAMPLE).is_none());
        assert!(SiteKey::from_pem(&key.public().to_pem()).is_none());
    }

    #[test]
    fn a_private_key_is_not_shown_by_accident() {
        let key = SiteKey::generate().unwrap();
        assert_eq!(format!("{key:?}"), format!("SiteKey({})", key.id()));
    }

    #[test]
    fn the_name_of_a_key_is_the_hash_of_its_der_form() {
        let der = pem::decode(PUBLIC, EXAMPLE_PUBLIC).unwrap();
        let key = PublicKey::from_pem(EXAMPLE_PUBLIC).unwrap();
        assert_eq!(key.id().to_string(), sha256(&der).hex()[..16]);
    }

    #[test]
    fn only_the_key_itself_verifies_and_only_its_message() {
        let (key, other) = (SiteKey::generate().unwrap(), SiteKey::generate().unwrap());
        let signature = key.sign(b"a");
        assert!(key.public().verifies(b"a", &signature));
        assert!(!key.public().verifies(b"b", &signature));
        assert!(!key.public().verifies(b"a", &signature[1..]));
        assert!(!other.public().verifies(b"a", &signature));
    }

    #[test]
    fn names_of_keys_are_hexadecimal() {
        for bad in ["", "0123", "0123456789abcdeg", "0123456789ABCDEF", "../../../../etc/x"] {
            assert!(bad.parse::<KeyId>().is_err(), "{bad}");
        }
    }
}
