//! How a version was built, in a form that other programs can check: an in-toto statement (in-toto.io/Statement/v1)
//! with SLSA's provenance (slsa.dev/provenance/v1), in an envelope that the site's key signs.

use std::collections::BTreeMap;

use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::manifest::{Manifest, PackageEntry};
use crate::sbom::rfc3339;
use crate::trust::{Envelope, KeyId, SignatureError, SiteKey, TrustedKeys};

/// The media type of an in-toto statement in an envelope.
pub const PAYLOAD_TYPE: &str = "application/vnd.in-toto+json";
const STATEMENT: &str = "https://in-toto.io/Statement/v1";
const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// Names the meaning of the parameters below.
const BUILD_TYPE: &str = "urn:kiln:build:v1";

/// What a version was built from, and with which settings.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// What the user chose: files of the specification, name, architecture, layout, mirror.
    pub parameters: BTreeMap<String, Value>,
    /// Images, packages, specification and lock file.
    pub materials: Vec<Material>,
    /// When it was built, in seconds since 1970; the time of all files where that is set.
    pub finished: u64,
}

/// One thing that a version was built from (in-toto's `ResourceDescriptor`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Material {
    /// A name such as that of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it is from, or its package URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digest, under `sha256`.
    pub digest: BTreeMap<String, String>,
}

impl Material {
    /// Names a file, such as the specification or the lock.
    pub fn file(name: impl Into<String>, digest: &Digest) -> Self {
        Self { name: Some(name.into()), uri: None, digest: hex(digest) }
    }

    /// Names an image by what the specification calls it.
    pub fn image(reference: &str, digest: &Digest) -> Self {
        let uri = Some(crate::sbom::image_purl(reference, digest));
        Self { name: Some(reference.to_owned()), uri, digest: hex(digest) }
    }

    /// Names a Debian package.
    pub fn package(package: &PackageEntry) -> Self {
        let uri = Some(crate::sbom::debian_purl(package));
        Self { name: None, uri, digest: hex(&package.sha256) }
    }
}

/// The statement of a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    /// What was built: the manifest first, then each file.
    pub subject: Vec<Material>,
    #[serde(rename = "predicateType")]
    predicate_type: String,
    /// How.
    pub predicate: Predicate,
}

/// SLSA's provenance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Predicate {
    /// What went in.
    pub build_definition: BuildDefinition,
    /// Who did it, and when.
    pub run_details: RunDetails,
}

/// What went into a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BuildDefinition {
    build_type: String,
    /// What the user chose.
    pub external_parameters: BTreeMap<String, Value>,
    /// Images, packages and files, sorted.
    pub resolved_dependencies: Vec<Material>,
}

/// Who built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunDetails {
    /// The site and its program.
    pub builder: Builder,
    /// When.
    pub metadata: Metadata,
}

/// The site that built, and its program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Builder {
    /// Names the site by its key.
    pub id: String,
    /// Versions of the programs.
    pub version: BTreeMap<String, String>,
}

/// When it was built.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Metadata {
    /// RFC 3339, UTC.
    pub finished_on: String,
}

/// A statement says something other than what is there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ProvenanceError {
    /// The signature is not good.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// It is no statement of provenance.
    #[error("it is not a statement of how a version was built ({0})")]
    Malformed(String),
    /// It is of another version.
    #[error("it is of another version")]
    Subject,
}

/// Says how a version was built. The same build gives the same statement.
pub fn statement(manifest: &Manifest, version: &Digest, recipe: &Recipe, key: &KeyId) -> Statement {
    let name = format!("{}-{}", manifest.image, manifest.arch);
    let part = |part: &str, digest| Material::file(format!("{name}/{part}"), digest);
    let mut subject = vec![Material::file(&name, version), part("kernel", &manifest.kernel.digest)];
    subject.extend(manifest.segments.iter().map(|it| part(&it.component, &it.digest)));
    let mut materials = recipe.materials.clone();
    materials.sort();
    materials.dedup();
    let kiln = ("kiln".to_owned(), env!("CARGO_PKG_VERSION").to_owned());
    Statement {
        kind: STATEMENT.to_owned(),
        subject,
        predicate_type: PREDICATE.to_owned(),
        predicate: Predicate {
            build_definition: BuildDefinition {
                build_type: BUILD_TYPE.to_owned(),
                external_parameters: recipe.parameters.clone(),
                resolved_dependencies: materials,
            },
            run_details: RunDetails {
                builder: Builder {
                    id: format!("urn:kiln:site:{key}"),
                    version: BTreeMap::from([kiln]),
                },
                metadata: Metadata { finished_on: rfc3339(recipe.finished) },
            },
        },
    }
}

/// Says how a version was built and signs that. Returns the envelope as JSON.
///
/// # Errors
///
/// Fails only when a value has no JSON form, which none of ours lacks.
pub fn signed(
    key: &SiteKey,
    manifest: &Manifest,
    version: &Digest,
    recipe: &Recipe,
) -> Result<Vec<u8>, serde_json::Error> {
    let statement = serde_json::to_vec(&statement(manifest, version, recipe, &key.id()))?;
    let mut bytes = serde_json::to_vec_pretty(&Envelope::sign(key, PAYLOAD_TYPE, &statement))?;
    bytes.push(b'\n');
    Ok(bytes)
}

/// Checks an envelope and returns the statement in it and who signed it.
///
/// # Errors
///
/// Fails when no trusted key signed it or it is of another version.
pub fn open(
    envelope: &[u8],
    version: &Digest,
    keys: &TrustedKeys,
) -> Result<(Statement, KeyId), ProvenanceError> {
    let malformed = |error: serde_json::Error| ProvenanceError::Malformed(error.to_string());
    let envelope: Envelope = serde_json::from_slice(envelope).map_err(malformed)?;
    let (payload, key) = envelope.open(PAYLOAD_TYPE, keys)?;
    let statement: Statement = serde_json::from_slice(&payload).map_err(malformed)?;
    if statement.kind != STATEMENT || statement.predicate_type != PREDICATE {
        let kind = format!("it is of the type {}", statement.predicate_type);
        return Err(ProvenanceError::Malformed(kind));
    }
    if !statement.subject.iter().any(|subject| subject.digest == hex(version)) {
        return Err(ProvenanceError::Subject);
    }
    Ok((statement, key))
}

fn hex(digest: &Digest) -> BTreeMap<String, String> {
    BTreeMap::from([("sha256".to_owned(), digest.hex())])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::hash::sha256;

    fn manifest() -> Manifest {
        let zeros = Digest::from_bytes([0; 32]);
        let text = json!({
            "schema": 1, "image": "demo", "arch": "x86_64", "cmdline": "", "min_ram": 1, "packages": [],
            "kernel": {"digest": zeros, "size": 1, "release": "6.12", "efi_stub": true},
            "segments": [{"component": "init", "digest": sha256(b"init"), "size": 1, "unpacked": 1}],
        });
        serde_json::from_value(text).unwrap()
    }

    fn recipe() -> Recipe {
        let package = PackageEntry {
            name: "bash".to_owned(),
            version: "5".to_owned(),
            arch: "amd64".to_owned(),
            sha256: sha256(b"bash"),
        };
        let image = Material::image("registry.example/web:1", &sha256(b"web"));
        Recipe {
            parameters: BTreeMap::from([("name".to_owned(), json!("demo:edge"))]),
            materials: vec![
                Material::package(&package),
                image.clone(),
                Material::file("demo.yml", &sha256(b"spec")),
                image,
            ],
            finished: 0,
        }
    }

    #[test]
    fn the_statement_has_the_fields_that_slsa_asks_for() {
        let key = SiteKey::generate().unwrap();
        let version = sha256(b"manifest");
        let statement = statement(&manifest(), &version, &recipe(), &key.id());
        let value = serde_json::to_value(&statement).unwrap();
        assert_eq!(value["_type"], "https://in-toto.io/Statement/v1");
        assert_eq!(value["predicateType"], "https://slsa.dev/provenance/v1");
        assert_eq!(value["subject"][0]["digest"]["sha256"], version.hex());
        assert_eq!(value["subject"].as_array().unwrap().len(), 3);
        let definition = &value["predicate"]["buildDefinition"];
        assert_eq!(definition["buildType"], "urn:kiln:build:v1");
        assert_eq!(definition["externalParameters"]["name"], "demo:edge");
        let materials = definition["resolvedDependencies"].as_array().unwrap();
        // Each once, whatever was given, and in an order of their own.
        assert_eq!(materials.len(), 3);
        assert_eq!(materials[0]["uri"], "pkg:deb/debian/bash@5?arch=amd64");
        let run = &value["predicate"]["runDetails"];
        assert_eq!(run["builder"]["id"], format!("urn:kiln:site:{}", key.id()));
        assert_eq!(run["builder"]["version"]["kiln"], env!("CARGO_PKG_VERSION"));
        assert_eq!(run["metadata"]["finishedOn"], "1970-01-01T00:00:00Z");
    }

    #[test]
    fn only_the_statement_of_this_version_by_a_trusted_key_is_believed() {
        let (key, other) = (SiteKey::generate().unwrap(), SiteKey::generate().unwrap());
        let keys: TrustedKeys = [key.public().clone()].into_iter().collect();
        let version = sha256(b"manifest");
        let envelope = signed(&key, &manifest(), &version, &recipe()).unwrap();
        assert_eq!(envelope, signed(&key, &manifest(), &version, &recipe()).unwrap());
        assert_eq!(open(&envelope, &version, &keys).unwrap().1, key.id());
        assert_eq!(open(&envelope, &sha256(b"x"), &keys), Err(ProvenanceError::Subject));
        let foreign = signed(&other, &manifest(), &version, &recipe()).unwrap();
        let untrusted = SignatureError::Untrusted(other.id());
        assert_eq!(open(&foreign, &version, &keys), Err(untrusted.into()));
        assert!(matches!(open(b"{}", &version, &keys), Err(ProvenanceError::Malformed(_))));
    }
}
