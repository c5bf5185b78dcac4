//! Where signatures are found: with the image in a layout, at the registry, or where an earlier build kept them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use kiln_types::Digest;

use super::{
    Form, ImageRule, Key, MAX_PAYLOAD, MAX_SIGNATURE, MAX_SIGNATURES, Miss, PAYLOAD, SIGNATURE,
    Signed, Verdict, bundle,
};
use crate::oci::document::{Descriptor, Document, Manifest, parse};
use crate::oci::images::{blocking, failed};
use crate::oci::registry::RegistryError;
use crate::oci::{Images, OciError, Reference};

/// The most manifests of signatures of an image that are read.
const MAX_MANIFESTS: usize = 16;
/// What artifacts have as their configuration when they need none.
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

impl Images<'_> {
    /// Refuses what the policy rejects, before anybody is asked for it.
    pub(in crate::oci) fn check_rejected(&self, reference: &Reference) -> Result<(), OciError> {
        match self.policy.rule(reference) {
            Some(ImageRule { images, verdict: Verdict::Reject }) => Err(OciError::Untrusted {
                reference: reference.to_string(),
                problem: format!(
                    "the rule for `{images}` under [[trust.image]] rejects it; use another image, or change the rule"
                ),
            }),
            _ => Ok(()),
        }
    }

    /// Checks that an image is signed if the policy asks for it. Of the image, nothing but the digests of its manifest
    /// and of the index that names that need be known.
    pub(in crate::oci) async fn check_signed(
        &self,
        reference: &Reference,
        manifest: &Digest,
        index: Option<&Digest>,
    ) -> Result<(), OciError> {
        let Some(rule) = self.policy.rule(reference) else { return Ok(()) };
        let Verdict::Signed(files) = &rule.verdict else { return Ok(()) };
        let untrusted =
            |problem: String| OciError::Untrusted { reference: reference.to_string(), problem };
        let mut keys = Vec::new();
        for path in files {
            keys.push(Key::read(path).map_err(|problem| {
                let path = path.display();
                untrusted(format!(
                    "the key `{path}` that must have signed it cannot be used: {problem}"
                ))
            })?);
        }
        let miss = match self.signed(reference, manifest, index, &keys).await? {
            Ok(()) => return Ok(()),
            Err(miss) => miss,
        };
        let files: Vec<_> = keys.iter().map(|key| format!("`{}`", key.path.display())).collect();
        let files = files.join(" or ");
        let what = match (miss, self.registries.is_some()) {
            (Miss::None, true) => "it has no signature; one is needed by the key",
            (Miss::None, false) => {
                "no signature of it is here, and no registry may be asked; one is needed by the key"
            }
            (Miss::Key, _) => "none of its signatures is by the key",
            (Miss::Other, _) => "what is signed is another image than this one, by the key",
        };
        Err(untrusted(format!(
            "{what} {files}, as the rule for `{}` under [[trust.image]] says; sign {} with `cosign sign --key`, use \
             an image that is signed, or change the rule",
            rule.images,
            index.unwrap_or(manifest),
        )))
    }

    /// Looks for a signature by one of the keys: of the manifest, or of an index that names it.
    async fn signed(
        &self,
        reference: &Reference,
        manifest: &Digest,
        index: Option<&Digest>,
        keys: &[Key],
    ) -> Result<Result<(), Miss>, OciError> {
        // Whether an index that was signed names the manifest must be known from the index itself.
        if let Some(kept) = self.kept(manifest)
            && kept.check(keys).is_ok()
            && (kept.subject == *manifest || self.names(&kept.subject, manifest))
        {
            return Ok(Ok(()));
        }
        let mut closest = Miss::None;
        let mut subjects: Vec<Digest> = index.copied().into_iter().chain([*manifest]).collect();
        if index.is_none() && reference.digest().is_none() && reference.given().is_none() {
            // A lock file names the manifest, and it is mostly the index that is signed.
            let root = self.root(reference).await;
            if let Ok((root, Document::Index(entries))) = root
                && entries.iter().any(|entry| entry.digest == *manifest)
            {
                subjects.push(root);
            }
        }
        let asked = reference.digest().filter(|digest| !subjects.contains(digest));
        if let Some(asked) = asked.filter(|digest| self.names(digest, manifest)) {
            subjects.push(asked);
        }
        for subject in subjects {
            for signed in self.signatures(reference, &subject).await? {
                match signed.check(keys) {
                    Ok(()) => {
                        self.keep_signature(reference, manifest, &signed).await?;
                        return Ok(Ok(()));
                    }
                    Err(miss) => closest = closest.max(miss),
                }
            }
        }
        Ok(Err(closest))
    }

    /// Returns whether an index that is here names a manifest.
    fn names(&self, index: &Digest, manifest: &Digest) -> bool {
        let entries = self.here(index).and_then(|bytes| parse(&bytes).ok());
        matches!(entries, Some(Document::Index(all)) if all.iter().any(|it| it.digest == *manifest))
    }

    /// Returns what claims to be a signature of an index or manifest.
    async fn signatures(
        &self,
        reference: &Reference,
        subject: &Digest,
    ) -> Result<Vec<Signed>, OciError> {
        let mut manifests = Vec::new();
        for digest in self.sources().flat_map(|local| local.about(subject)) {
            match self.document(reference, &digest).await? {
                Document::Manifest(manifest) => manifests.push(*manifest),
                Document::Index(entries) => {
                    self.referring(reference, &entries, &mut manifests).await?;
                }
            }
        }
        if let Some(registries) = &self.registries
            && reference.given().is_none()
        {
            let tag = format!("sha256-{}.sig", subject.hex());
            match registries.tagged(reference, &tag).await {
                Ok(bytes) => {
                    if let Ok(Document::Manifest(manifest)) = parse(&bytes) {
                        manifests.push(*manifest);
                    }
                }
                Err(RegistryError::NotFound { .. }) => {}
                Err(error) => return Err(failed(reference, error)),
            }
            let entries = registries.referrers(reference, subject).await;
            let entries = entries.map_err(|error| failed(reference, error))?;
            self.referring(reference, &entries, &mut manifests).await?;
        }
        let mut found = Vec::new();
        for manifest in manifests.iter().take(MAX_MANIFESTS) {
            self.payloads(reference, subject, manifest, &mut found).await?;
        }
        Ok(found)
    }

    /// Reads those manifests of an index that may be signatures.
    async fn referring(
        &self,
        reference: &Reference,
        entries: &[Descriptor],
        manifests: &mut Vec<Manifest>,
    ) -> Result<(), OciError> {
        let signature = |entry: &&Descriptor| match entry.artifact_type.as_deref() {
            None | Some("") => true,
            // Some releases of cosign tell the type of the (empty) configuration here.
            Some(EMPTY) => true,
            Some(kind) => kind.contains("cosign") || kind == PAYLOAD || bundle::is_bundle(kind),
        };
        for entry in entries.iter().filter(signature).take(MAX_MANIFESTS) {
            if let Document::Manifest(manifest) = self.document(reference, &entry.digest).await? {
                manifests.push(*manifest);
            }
        }
        Ok(())
    }

    /// Reads what a manifest has that was signed.
    async fn payloads(
        &self,
        reference: &Reference,
        subject: &Digest,
        manifest: &Manifest,
        found: &mut Vec<Signed>,
    ) -> Result<(), OciError> {
        let mut seen = BTreeSet::new();
        let bundles = manifest.layers.iter().filter(|layer| bundle::is_bundle(&layer.media_type));
        for layer in bundles.filter(|layer| layer.size <= MAX_PAYLOAD).take(4) {
            let bytes = self.small(reference, layer).await?;
            let room = MAX_SIGNATURES.saturating_sub(found.len());
            found.extend(bundle::signatures(&bytes, subject).into_iter().take(room));
        }
        for layer in &manifest.layers {
            let Some(signature) = layer.annotations.get(SIGNATURE) else { continue };
            let usable = layer.media_type == PAYLOAD
                && layer.size <= MAX_PAYLOAD
                && signature.len() <= MAX_SIGNATURE;
            if !usable || !seen.insert((layer.digest, signature)) || found.len() >= MAX_SIGNATURES {
                continue;
            }
            let payload = self.small(reference, layer).await?;
            if let Ok(payload) = String::from_utf8(payload) {
                let signature = signature.clone();
                found.push(Signed { subject: *subject, payload, signature, form: Form::Simple });
            }
        }
        Ok(())
    }

    /// Returns the signature that an earlier build has found for a manifest.
    fn kept(&self, manifest: &Digest) -> Option<Signed> {
        let bytes = std::fs::read(self.kept_path(manifest)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Keeps a signature, so that the next build needs neither a registry nor the tag to mean the same.
    async fn keep_signature(
        &self,
        reference: &Reference,
        manifest: &Digest,
        signed: &Signed,
    ) -> Result<(), OciError> {
        let path = self.kept_path(manifest);
        let wrong = OciError::cache(reference, &path);
        let bytes = serde_json::to_vec(signed).map_err(|error| wrong(error.into()))?;
        let place = path.clone();
        // The index goes with it: without it, nobody knows that it names the manifest.
        let index = self.here(&signed.subject);
        let blobs = self.blobs.clone();
        let kept = blocking(move || {
            if let Some(index) = index {
                blobs.write(&index)?;
            }
            let dir = place.parent().unwrap_or_else(|| blobs.dir());
            std::fs::create_dir_all(dir)?;
            crate::durable::replace(&place, &bytes, 0o644)
        });
        kept.await.map_err(wrong)
    }

    fn kept_path(&self, manifest: &Digest) -> PathBuf {
        self.blobs.dir().join("signed").join(format!("{}.json", manifest.hex()))
    }
}
