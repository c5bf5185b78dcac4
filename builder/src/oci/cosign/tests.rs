use std::fs;
use std::path::{Path, PathBuf};

use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use kiln_types::Arch;

use super::*;
use crate::hash::sha256;
use crate::oci::testing::Registry;
use crate::oci::{ImageSettings, Images, OciError, Reference};
use crate::progress::Silent;
use crate::trust::pem;

/// A key that signs as cosign does.
enum Signer {
    P256(EcdsaKeyPair),
    Ed(Ed25519KeyPair),
}

impl Signer {
    fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap())
    }

    fn sign(&self, payload: &str) -> String {
        let bytes = payload.as_bytes();
        STANDARD.encode(match self {
            Self::P256(key) => key.sign(&SystemRandom::new(), bytes).unwrap().as_ref().to_vec(),
            Self::Ed(key) => key.sign(bytes).as_ref().to_vec(),
        })
    }

    fn write(&self, path: PathBuf) -> PathBuf {
        let der: PublicKeyX509Der<'_> = match self {
            Self::P256(key) => key.public_key().as_der().unwrap(),
            Self::Ed(key) => key.public_key().as_der().unwrap(),
        };
        fs::write(&path, pem::encode("PUBLIC KEY", der.as_ref())).unwrap();
        path
    }
}

fn payload(subject: &Digest) -> String {
    format!(
        r#"{{"critical":{{"identity":{{"docker-reference":""}},"image":{{"docker-manifest-digest":"{subject}"}},"type":"{KIND}"}},"optional":null}}"#
    )
}

/// Returns a manifest with one signature.
fn signature_manifest(payload: &str, signature: &str) -> String {
    let (digest, size) = (sha256(payload.as_bytes()), payload.len());
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"{}","size":2}},
        "layers":[{{"mediaType":"{PAYLOAD}","digest":"{digest}","size":{size},"annotations":{{"{SIGNATURE}":"{signature}"}}}}]}}"#,
        sha256(b"{}")
    )
}

/// An image of one layer in one index, as documents: layer, configuration, manifest, index.
fn image(what: &str) -> [String; 4] {
    let layer = what.to_owned();
    let digest = |text: &str| sha256(text.as_bytes());
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","rootfs":{{"diff_ids":["{}"]}}}}"#,
        digest(&layer)
    );
    let manifest = format!(
        r#"{{"config":{{"digest":"{}","size":{}}},"layers":[{{"mediaType":"application/vnd.oci.image.layer.v1.tar","digest":"{}","size":{}}}]}}"#,
        digest(&config),
        config.len(),
        digest(&layer),
        layer.len()
    );
    let index = format!(
        r#"{{"manifests":[{{"digest":"{}","size":{},"platform":{{"architecture":"amd64","os":"linux"}}}}]}}"#,
        digest(&manifest),
        manifest.len()
    );
    [layer, config, manifest, index]
}

/// Puts an image into a registry under a tag, and returns the digests of its index and manifest.
fn publish(registry: &Registry, tag: &str, what: &str) -> (Digest, Digest) {
    let [layer, config, manifest, index] = image(what);
    registry.put_blob(layer.as_bytes());
    registry.put_blob(config.as_bytes());
    let manifest = registry.put_manifest(manifest.as_bytes());
    registry.put_manifest(index.as_bytes());
    (registry.put(&format!("manifests/{tag}"), index.as_bytes()), manifest)
}

/// Puts a signature beside its image.
fn attach(registry: &Registry, subject: &Digest, payload: &str, signature: &str) {
    registry.put_blob(payload.as_bytes());
    let manifest = signature_manifest(payload, signature);
    registry.put(&format!("manifests/sha256-{}.sig", subject.hex()), manifest.as_bytes());
}

fn signed_by(images: &str, keys: Vec<PathBuf>) -> ImagePolicy {
    let rule = ImageRule { images: images.to_owned(), verdict: Verdict::Signed(keys) };
    ImagePolicy { rules: vec![rule] }
}

async fn resolve(
    settings: &ImageSettings,
    cache: &Path,
    reference: &Reference,
    pin: Option<Digest>,
) -> Result<Digest, OciError> {
    let images = Images::open(settings, cache, &Silent).unwrap();
    images.resolve(reference, Arch::X86_64, pin).await.map(|image| image.digest)
}

struct Site {
    dir: tempfile::TempDir,
    registry: Registry,
    signer: Signer,
    settings: ImageSettings,
    index: Digest,
    manifest: Digest,
}

impl Site {
    /// Starts a registry with one image that must be signed by a key, and is not yet.
    async fn new(signer: Signer) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::start().await;
        let (index, manifest) = publish(&registry, "1", "one");
        let key = signer.write(dir.path().join("base.pub"));
        let policy = signed_by(&format!("{}/team/*", registry.address), vec![key]);
        let settings = ImageSettings { policy, ..registry.settings() };
        Self { dir, registry, signer, settings, index, manifest }
    }

    /// Signs what the payload says, and puts that beside a subject.
    fn sign(&self, subject: &Digest, payload: &str) {
        attach(&self.registry, subject, payload, &self.signer.sign(payload));
    }

    async fn resolve(&self, pin: Option<Digest>) -> Result<Digest, OciError> {
        let reference = self.registry.reference("1");
        // Each time with a cache of its own: nothing but what is at the registry counts.
        let cache = tempfile::tempdir_in(self.dir.path()).unwrap();
        resolve(&self.settings, cache.path(), &reference, pin).await
    }

    async fn refused(&self) -> String {
        let error = self.resolve(None).await.unwrap_err();
        assert!(matches!(error, OciError::Untrusted { .. }), "{error}");
        let [_, config, ..] = image("one");
        // Nothing of the image was fetched.
        let path = format!("GET /v2/team/web/blobs/{}", sha256(config.as_bytes()));
        assert_eq!(self.registry.asked(&path), 0);
        error.to_string()
    }
}

#[tokio::test]
async fn an_image_whose_index_a_key_of_either_kind_has_signed_is_used() {
    for signer in [Signer::p256(), Signer::Ed(Ed25519KeyPair::generate().unwrap())] {
        let site = Site::new(signer).await;
        site.sign(&site.index, &payload(&site.index));
        assert_eq!(site.resolve(None).await.unwrap(), site.manifest);
    }
}

#[tokio::test]
async fn a_signature_of_the_manifest_does_as_well() {
    let site = Site::new(Signer::p256()).await;
    site.sign(&site.manifest, &payload(&site.manifest));
    assert_eq!(site.resolve(None).await.unwrap(), site.manifest);
    assert_eq!(site.resolve(Some(site.manifest)).await.unwrap(), site.manifest);
}

#[tokio::test]
async fn a_pinned_image_is_used_by_the_signature_of_the_index_that_names_it() {
    let site = Site::new(Signer::p256()).await;
    site.sign(&site.index, &payload(&site.index));
    let (pin, reference) = (Some(site.manifest), site.registry.reference("1"));
    let cache = site.dir.path().join("cache");
    resolve(&site.settings, &cache, &reference, pin).await.unwrap();
    // What was found stays with the cache: the tag may move, and no registry need be there.
    publish(&site.registry, "1", "two");
    resolve(&site.settings, &cache, &reference, pin).await.unwrap();
    let offline = ImageSettings { offline: true, ..site.settings.clone() };
    resolve(&offline, &cache, &reference, pin).await.unwrap();
    // It is checked again each time: another key makes an end of it.
    Signer::p256().write(site.dir.path().join("base.pub"));
    let error = resolve(&offline, &cache, &reference, pin).await.unwrap_err().to_string();
    assert!(error.contains("no registry may be asked"), "{error}");
    // Where nothing was kept, an index that no longer names the manifest does not help it.
    site.signer.write(site.dir.path().join("base.pub"));
    assert!(site.resolve(pin).await.is_err());
}

#[tokio::test]
async fn signatures_that_refer_to_the_image_are_found_by_the_call_and_by_the_tag() {
    for fallback in [false, true] {
        let site = Site::new(Signer::p256()).await;
        let payload = payload(&site.index);
        site.registry.put_blob(payload.as_bytes());
        let manifest = signature_manifest(&payload, &site.signer.sign(&payload));
        let digest = site.registry.put_manifest(manifest.as_bytes());
        let list = format!(
            r#"{{"manifests":[{{"digest":"{digest}","size":{},"artifactType":"application/vnd.dev.cosign.artifact.sig.v1+json"}}]}}"#,
            manifest.len()
        );
        let place = match fallback {
            true => format!("manifests/sha256-{}", site.index.hex()),
            false => format!("referrers/{}", site.index),
        };
        site.registry.put(&place, list.as_bytes());
        assert_eq!(site.resolve(None).await.unwrap(), site.manifest);
    }
}

#[tokio::test]
async fn a_bundle_that_refers_to_the_image_counts_if_a_key_signed_it_for_this_image() {
    let site = Site::new(Signer::p256()).await;
    let (other, _) = publish(&site.registry, "2", "two");
    let attach = |digest: &Digest, signer: &Signer| {
        let statement = format!(
            r#"{{"_type":"https://in-toto.io/Statement/v1","subject":[{{"digest":{{"sha256":"{}"}}}}],"predicateType":"https://sigstore.dev/cosign/sign/v1"}}"#,
            digest.hex()
        );
        // DSSE signs the lengths of type and text before each of them.
        let signed =
            format!("DSSEv1 28 application/vnd.in-toto+json {} {statement}", statement.len());
        let bundle = format!(
            r#"{{"dsseEnvelope":{{"payload":"{}","payloadType":"application/vnd.in-toto+json","signatures":[{{"sig":"{}","keyid":""}}]}}}}"#,
            STANDARD.encode(&statement),
            signer.sign(&signed)
        );
        site.registry.put_blob(bundle.as_bytes());
        let manifest = format!(
            r#"{{"schemaVersion":2,"config":{{"mediaType":"application/vnd.oci.empty.v1+json","digest":"{}","size":2}},
            "layers":[{{"mediaType":"application/vnd.dev.sigstore.bundle.v0.3+json","digest":"{}","size":{}}}]}}"#,
            sha256(b"{}"),
            sha256(bundle.as_bytes()),
            bundle.len()
        );
        let digest = site.registry.put_manifest(manifest.as_bytes());
        move |kind: &str| {
            let size = manifest.len();
            format!(
                r#"{{"manifests":[{{"digest":"{digest}","size":{size},"artifactType":"{kind}"}}]}}"#
            )
        }
    };
    let place = format!("referrers/{}", site.index);
    let put = |list: String| site.registry.put(&place, list.as_bytes());
    put(attach(&other, &site.signer)("application/vnd.dev.sigstore.bundle.v0.3+json"));
    assert!(site.refused().await.contains("what is signed is another image"));
    put(attach(&site.index, &Signer::p256())("application/vnd.dev.sigstore.bundle.v0.3+json"));
    assert!(site.refused().await.contains("none of its signatures is by the key"));
    // Some releases of cosign tell another type in the list.
    let good = attach(&site.index, &site.signer);
    for kind in
        ["application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.oci.empty.v1+json"]
    {
        put(good(kind));
        assert_eq!(site.resolve(None).await.unwrap(), site.manifest);
    }
}

#[tokio::test]
async fn an_image_without_a_signature_is_refused_with_what_to_do() {
    let site = Site::new(Signer::p256()).await;
    let text = site.refused().await;
    let key = site.dir.path().join("base.pub");
    assert!(text.contains("it has no signature"), "{text}");
    assert!(text.contains(&format!("`{}`", key.display())), "{text}");
    assert!(text.contains(&format!("sign {} with `cosign sign --key`", site.index)), "{text}");
}

#[tokio::test]
async fn the_signature_of_another_key_does_not_count() {
    let site = Site::new(Signer::p256()).await;
    let payload = payload(&site.index);
    attach(&site.registry, &site.index, &payload, &Signer::p256().sign(&payload));
    assert!(site.refused().await.contains("none of its signatures is by the key"));
}

#[tokio::test]
async fn the_signature_of_another_image_does_not_count() {
    let site = Site::new(Signer::p256()).await;
    let (other, _) = publish(&site.registry, "2", "two");
    site.sign(&site.index, &payload(&other));
    assert!(site.refused().await.contains("what is signed is another image"));
}

#[tokio::test]
async fn a_payload_that_was_changed_or_is_of_another_kind_does_not_count() {
    let site = Site::new(Signer::p256()).await;
    let signature = site.signer.sign(&payload(&site.manifest));
    attach(&site.registry, &site.index, &payload(&site.index), &signature);
    assert!(site.refused().await.contains("none of its signatures is by the key"));
    site.sign(&site.index, &payload(&site.index).replace(KIND, "a greeting"));
    assert!(site.refused().await.contains("what is signed is another image"));
}

#[tokio::test]
async fn a_payload_beyond_the_limit_is_not_even_fetched() {
    let site = Site::new(Signer::p256()).await;
    let long = payload(&site.index).replace("null", &format!("\"{}\"", "x".repeat(70_000)));
    site.sign(&site.index, &long);
    assert!(site.refused().await.contains("it has no signature"));
    let path = format!("GET /v2/team/web/blobs/{}", sha256(long.as_bytes()));
    assert_eq!(site.registry.asked(&path), 0);
}

#[tokio::test]
async fn an_image_that_the_policy_rejects_is_not_asked_for_and_others_are_used() {
    let mut site = Site::new(Signer::p256()).await;
    let images = site.registry.address.clone();
    site.settings.policy.rules[0] = ImageRule { images, verdict: Verdict::Reject };
    let text = site.refused().await;
    assert!(text.contains("under [[trust.image]] rejects it"), "{text}");
    assert_eq!(site.registry.asked("GET"), 0);
    site.settings.policy.rules[0].images = "registry.example".to_owned();
    assert_eq!(site.resolve(None).await.unwrap(), site.manifest);
}

#[tokio::test]
async fn a_key_that_cannot_be_used_is_told_and_lets_nothing_through() {
    let site = Site::new(Signer::p256()).await;
    site.sign(&site.index, &payload(&site.index));
    let key = site.dir.path().join("base.pub");
    fs::write(&key, pem::encode("PUBLIC KEY", &[0x30, 0])).unwrap();
    assert!(site.refused().await.contains("it is not a public key of ECDSA P-256 or Ed25519"));
    fs::remove_file(&key).unwrap();
    assert!(site.refused().await.contains("No such file"));
}

#[tokio::test]
async fn a_layout_has_signatures_beside_its_images() {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let put = |text: &str| {
        let digest = sha256(text.as_bytes());
        fs::write(layout.join("blobs/sha256").join(digest.hex()), text).unwrap();
        (digest, text.len())
    };
    let [(index, size), (manifest, _), ..] = {
        let mut all = image("one").map(|text| put(&text));
        all.reverse();
        all
    };
    let signer = Signer::p256();
    let payload = payload(&index);
    put(&payload);
    let (signature, signature_size) = put(&signature_manifest(&payload, &signer.sign(&payload)));
    let name = |tag: &str| format!("registry.example/web:{tag}");
    let entry = |digest: &Digest, size: usize, tag: &str| {
        format!(
            r#"{{"digest":"{digest}","size":{size},"annotations":{{"org.opencontainers.image.ref.name":"{}"}}}}"#,
            name(tag)
        )
    };
    let image = entry(&index, size, "1");
    let beside = entry(&signature, signature_size, &format!("sha256-{}.sig", index.hex()));
    let policy = signed_by("registry.example", vec![signer.write(dir.path().join("base.pub"))]);
    let dirs = vec![layout.clone()];
    let settings = ImageSettings { dirs, offline: true, policy, ..ImageSettings::default() };
    let (reference, cache) = (name("1").parse().unwrap(), dir.path().join("cache"));
    fs::write(layout.join("index.json"), format!(r#"{{"manifests":[{image}]}}"#)).unwrap();
    let error = resolve(&settings, &cache, &reference, None).await.unwrap_err();
    assert!(matches!(error, OciError::Untrusted { .. }), "{error}");
    fs::write(layout.join("index.json"), format!(r#"{{"manifests":[{image},{beside}]}}"#)).unwrap();
    assert_eq!(resolve(&settings, &cache, &reference, None).await.unwrap(), manifest);
}
