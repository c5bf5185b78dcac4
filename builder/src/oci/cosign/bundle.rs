//! Bundles of sigstore: the form in which `cosign` writes signatures since its version 3 (its document
//! `BUNDLE_SPEC.md`, and `protos/sigstore_bundle.proto` of sigstore's protobuf-specs).
//!
//! A bundle is a JSON document around a DSSE envelope; in it is an in-toto statement whose subject is the digest of the
//! image. Of the material for its verification nothing is used: whose key it has to be, the rules of the site say.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kiln_types::Digest;
use serde::Deserialize;

use super::{Form, MAX_SIGNATURE, Signed};
use crate::trust::{Envelope, pre_authentication};

/// What every version of the format begins with.
const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// The type of what the envelope holds.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// The statement that an image is signed. Bundles with other ones say what an image is made of, or how.
const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    predicate_type: String,
    #[serde(default)]
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    #[serde(default)]
    digest: Digests,
}

#[derive(Default, Deserialize)]
struct Digests {
    sha256: Option<String>,
}

/// Returns whether a layer of this type is a bundle.
pub(super) fn is_bundle(media_type: &str) -> bool {
    media_type.starts_with(BUNDLE)
}

/// Reads the signatures of a bundle. What is none has none.
pub(super) fn signatures(bytes: &[u8], subject: &Digest) -> Vec<Signed> {
    let Ok(Bundle { dsse_envelope: envelope }) = serde_json::from_slice(bytes) else {
        return Vec::new();
    };
    let payload = STANDARD.decode(&envelope.payload).ok();
    let payload = payload.and_then(|payload| String::from_utf8(payload).ok());
    let Some(payload) = payload.filter(|_| envelope.payload_type == STATEMENT) else {
        return Vec::new();
    };
    // A statement of another kind is no signature of the image, whoever made it.
    if parse(&payload).is_none_or(|statement| statement.predicate_type != SIGN) {
        return Vec::new();
    }
    let signatures = envelope.signatures.into_iter().filter(|it| it.sig.len() <= MAX_SIGNATURE);
    let signed = signatures.take(4).map(|signature| Signed {
        subject: *subject,
        payload: payload.clone(),
        signature: signature.sig,
        form: Form::Statement,
    });
    signed.collect()
}

/// Returns the bytes that the signature of a statement is over.
pub(super) fn message(statement: &str) -> Vec<u8> {
    pre_authentication(STATEMENT, statement.as_bytes())
}

/// Returns whether a statement says that this subject is signed.
pub(super) fn names(statement: &str, subject: &Digest) -> bool {
    let hex = subject.hex();
    parse(statement).is_some_and(|statement| {
        let mut digests = statement.subject.iter().map(|subject| &subject.digest.sha256);
        statement.predicate_type == SIGN && digests.any(|digest| digest.as_ref() == Some(&hex))
    })
}

fn parse(statement: &str) -> Option<Statement> {
    serde_json::from_str(statement).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: Digest = Digest::from_bytes([0xab; 32]);

    fn statement(kind: &str, digest: &Digest) -> String {
        let hex = digest.hex();
        format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{hex}"}}}}],"predicateType":"{kind}"}}"#
        )
    }

    fn bundle(kind: &str, statement: &str) -> String {
        format!(
            r#"{{"mediaType":"{BUNDLE}.v0.3+json","verificationMaterial":{{"publicKey":{{"hint":"x"}}}},
            "dsseEnvelope":{{"payload":"{}","payloadType":"{kind}","signatures":[{{"sig":"AAAA"}}]}}}}"#,
            STANDARD.encode(statement)
        )
    }

    #[test]
    fn a_bundle_gives_its_statement_and_signature() {
        let text = statement(SIGN, &DIGEST);
        let found = signatures(bundle(STATEMENT, &text).as_bytes(), &DIGEST);
        let signature = "AAAA".to_owned();
        let form = Form::Statement;
        assert_eq!(found, [Signed { subject: DIGEST, payload: text, signature, form }]);
    }

    #[test]
    fn statements_of_another_kind_and_what_is_no_bundle_are_no_signatures() {
        let other = statement("https://slsa.dev/provenance/v1", &DIGEST);
        let good = statement(SIGN, &DIGEST);
        for text in [
            bundle(STATEMENT, &other),
            bundle("text/plain", &good),
            bundle(STATEMENT, "?"),
            bundle(STATEMENT, &good).replace("\"payload\":\"", "\"payload\":\"*"),
            "{}".to_owned(),
        ] {
            assert_eq!(signatures(text.as_bytes(), &DIGEST), [], "{text}");
        }
    }

    #[test]
    fn a_statement_is_of_the_digest_that_it_names_and_of_no_other() {
        assert!(names(&statement(SIGN, &DIGEST), &DIGEST));
        assert!(!names(&statement(SIGN, &DIGEST), &Digest::from_bytes([1; 32])));
        assert!(!names(&statement("other", &DIGEST), &DIGEST));
        assert!(!names("[]", &DIGEST));
    }
}
