use std::fs;
use std::path::Path;

use kiln_types::ImageRef;

use super::*;
use crate::manifest::{KernelEntry, Manifest, SCHEMA, SegmentEntry};
use crate::oci::testing::Registry;
use crate::oci::{ImagePolicy, ImageRule, ImageSettings, Verdict};
use crate::progress::Silent;

/// Puts a version of an image into a store, with a signature.
fn build(store: &Store, image: &str, arch: Arch, segment: &[u8]) -> VersionEntry {
    let kernel = format!("kernel for {arch}");
    let entry = |component: &str, bytes: &[u8], compression| SegmentEntry {
        component: component.to_owned(),
        digest: store.put(bytes).unwrap(),
        size: bytes.len() as u64,
        unpacked: 9,
        compression,
    };
    let manifest = Manifest {
        schema: SCHEMA,
        image: image.to_owned(),
        arch,
        kernel: KernelEntry {
            digest: store.put(kernel.as_bytes()).unwrap(),
            size: kernel.len() as u64,
            release: "6.12".to_owned(),
            efi_stub: true,
        },
        segments: vec![
            entry("init", b"init", SegmentCompression::None),
            entry("web", segment, SegmentCompression::Zstd),
        ],
        cmdline: String::new(),
        min_ram: 1,
        packages: Vec::new(),
        sources: Vec::new(),
        sbom: Some(store.put(b"{}").unwrap()),
    };
    let digest = store.put(&manifest.to_canonical_json().unwrap()).unwrap();
    let signature = store.put(b"a signature").unwrap();
    let entry = VersionEntry::new(digest, 7, manifest.download_size()).with("signature", signature);
    store.publish(&image.parse().unwrap(), arch, entry.clone()).unwrap();
    entry
}

fn store(dir: &Path, name: &str) -> Store {
    Store::open(dir.join(name)).unwrap()
}

async fn pull_into(
    store: &Store,
    from: PullFrom,
    arch: Arch,
    settings: &ImageSettings,
) -> Result<Pulled, OciError> {
    pull(&from, arch, store, None, settings, &Silent).await
}

#[tokio::test]
async fn what_is_pushed_for_both_architectures_is_pulled_elsewhere_byte_for_byte() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (store(dir.path(), "here"), store(dir.path(), "there"));
    let registry = Registry::start().await;
    // Longer than one piece of an upload.
    let segment = vec![7; 2500];
    let versions: Vec<_> =
        Arch::ALL.into_iter().map(|arch| (arch, build(&here, "web", arch, &segment))).collect();
    let (reference, settings) = (registry.reference("1"), registry.settings());
    let pushed = push(&here, &versions, &reference, &settings, &Silent).await.unwrap();
    let index = registry.get("manifests/1").unwrap();
    assert_eq!(pushed.digest, sha256(&index));
    for (arch, version) in &versions {
        let from = PullFrom::Name(reference.clone());
        let pulled = pull_into(&there, from, *arch, &settings).await.unwrap();
        assert_eq!((pulled.version, pulled.image.to_string().as_str()), (version.digest, "web"));
        let found = there.find("web", *arch).unwrap();
        assert_eq!(found.attachments, version.attachments);
        assert!(there.verify(&found).unwrap().is_empty());
    }
    // The cache has no second copy of what the store has.
    let segment = sha256(&segment);
    assert!(there.artifact(&segment).exists());
    assert!(!there.cache_dir().join("oci/blobs/sha256").join(segment.hex()).exists());

    // A registry that has everything is sent nothing but manifests.
    let uploads = registry.asked("POST");
    let again = push(&here, &versions, &registry.reference("2"), &settings, &Silent).await.unwrap();
    assert_eq!((again.sent, again.digest), (0, pushed.digest));
    assert_eq!(registry.asked("POST"), uploads);
}

#[tokio::test]
async fn a_push_logs_in_where_writing_needs_it() {
    let dir = tempfile::tempdir().unwrap();
    let here = store(dir.path(), "here");
    let registry = Registry::start().await;
    registry.held.lock().unwrap().login = Some("Basic bWU6c2VjcmV0".to_owned());
    let versions = [(Arch::X86_64, build(&here, "web", Arch::X86_64, b"x"))];
    let reference = registry.reference("1");
    let error =
        push(&here, &versions, &reference, &registry.settings(), &Silent).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("wants a login for team/web"), "{cause}");
    assert_eq!(registry.get("manifests/1"), None);
    let settings = registry.settings_with_login(dir.path().join("password"));
    push(&here, &versions, &reference, &settings, &Silent).await.unwrap();
    assert!(registry.get("manifests/1").is_some());
}

#[tokio::test]
async fn an_archive_is_the_same_each_time_and_is_pulled_into_another_store() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (store(dir.path(), "here"), store(dir.path(), "there"));
    let version = build(&here, "web", Arch::Arm64, b"segment");
    let path = dir.path().join("web-arm64.oci.tar");
    write_archive(&here, Arch::Arm64, &version, &path).unwrap();
    let first = fs::read(&path).unwrap();
    write_archive(&here, Arch::Arm64, &version, &path).unwrap();
    assert_eq!(fs::read(&path).unwrap(), first);

    let settings = ImageSettings::default();
    let from = || PullFrom::Path(path.clone());
    let pulled = pull_into(&there, from(), Arch::Arm64, &settings).await.unwrap();
    assert_eq!(pulled.version, version.digest);
    let name: ImageRef = "other:test".parse().unwrap();
    pull(&from(), Arch::Arm64, &there, Some(&name), &settings, &Silent).await.unwrap();
    assert_eq!(there.find("other:test", Arch::Arm64).unwrap().digest, version.digest);
    let error = pull_into(&there, from(), Arch::X86_64, &settings).await.unwrap_err();
    assert!(matches!(error, OciError::NotForArch { .. }), "{error}");
    assert!(fs::read_dir(there.dir().join("tmp")).unwrap().next().is_none());
}

#[tokio::test]
async fn a_part_that_was_changed_on_the_way_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (store(dir.path(), "here"), store(dir.path(), "there"));
    let version = build(&here, "web", Arch::X86_64, b"segment!");
    let path = dir.path().join("web.oci.tar");
    write_archive(&here, Arch::X86_64, &version, &path).unwrap();
    let text = fs::read(&path).unwrap();
    let at = text.windows(8).position(|part| part == b"segment!").unwrap();
    let changed = [&text[..at], b"sEgment!", &text[at + 8..]].concat();
    fs::write(&path, changed).unwrap();
    let settings = ImageSettings::default();
    let error = pull_into(&there, PullFrom::Path(path), Arch::X86_64, &settings).await.unwrap_err();
    assert!(matches!(error, OciError::Digest { .. }), "{error}");
    assert!(there.index().unwrap().images.is_empty());
    assert!(!there.artifact(&sha256(b"sEgment!")).exists());
}

#[tokio::test]
async fn what_kiln_has_not_built_or_the_policy_rejects_is_not_pulled() {
    let dir = tempfile::tempdir().unwrap();
    let (here, there) = (store(dir.path(), "here"), store(dir.path(), "there"));
    let registry = Registry::start().await;
    let config = registry.put_blob(b"{}");
    let manifest = format!(r#"{{"config":{{"digest":"{config}","size":2}},"layers":[]}}"#);
    registry.put("manifests/1", manifest.as_bytes());
    let mut settings = registry.settings();
    let from = |tag: &str| PullFrom::Name(registry.reference(tag));
    let error = pull_into(&there, from("1"), Arch::X86_64, &settings).await.unwrap_err();
    assert!(matches!(error, OciError::NotBuilt { .. }), "{error}");

    let versions = [(Arch::X86_64, build(&here, "web", Arch::X86_64, b"x"))];
    push(&here, &versions, &registry.reference("2"), &settings, &Silent).await.unwrap();
    let rule = ImageRule { images: "*".to_owned(), verdict: Verdict::Reject };
    settings.policy = ImagePolicy { rules: vec![rule] };
    let error = pull_into(&there, from("2"), Arch::X86_64, &settings).await.unwrap_err();
    assert!(matches!(error, OciError::Untrusted { .. }), "{error}");
}
