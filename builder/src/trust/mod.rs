//! Who made a version, and whether it is still what was made: the site's key, signatures of manifests, and the check
//! of all that belongs to a version.
//!
//! ```text
//! KeyDir ── site key ──▶ sign(manifest digest) ──▶ Signature ──▶ attachment `signature` of the version
//!    └───── trusted public keys ──▶ verify(manifest digest, Signature) ──▶ served, or refused with a reason
//! ```
//!
//! The key is an Ed25519 key (RFC 8032). Everything that is signed begins with a text of its own kind, so that a
//! signature of one kind never passes for one of another.

mod dsse;
mod error;
mod folder;
mod key;
pub(crate) mod pem;
mod signature;
mod version;

pub(crate) use self::dsse::pre_authentication;
pub use self::dsse::{Envelope, EnvelopeSignature};
pub use self::error::{SignatureError, TrustError};
pub use self::folder::{KeyDir, TrustedKey};
pub use self::key::{KeyId, ParseKeyIdError, PublicKey, SiteKey, TrustedKeys};
pub use self::signature::Signature;
pub use self::version::{
    Verification, check_signature, sign_checked, sign_version, verify_version,
};

/// The attachment of a version that holds its [`Signature`].
pub const SIGNATURE: &str = "signature";
/// The attachment of a version that says how it was built: an [`Envelope`] around an in-toto statement.
pub const PROVENANCE: &str = "provenance";
