use super::*;
use crate::manifest::{KernelEntry, SCHEMA, SegmentCompression, SegmentEntry};

/// Puts a version of two artifacts into a store.
pub(super) fn version(store: &Store, text: &str) -> Digest {
    let kernel = format!("kernel {text}");
    let segment = format!("segment {text}");
    let digest = store.put(kernel.as_bytes()).unwrap();
    let manifest = Manifest {
        schema: SCHEMA,
        image: "web".to_owned(),
        arch: Arch::Arm64,
        kernel: KernelEntry {
            digest,
            size: kernel.len() as u64,
            release: "6.12".to_owned(),
            efi_stub: true,
        },
        segments: vec![SegmentEntry {
            component: "init".to_owned(),
            digest: store.put(segment.as_bytes()).unwrap(),
            size: segment.len() as u64,
            unpacked: 1,
            compression: SegmentCompression::None,
        }],
        cmdline: String::new(),
        min_ram: 0,
        packages: Vec::new(),
        sources: Vec::new(),
        sbom: None,
    };
    store.put(&manifest.to_canonical_json().unwrap()).unwrap()
}

#[test]
fn an_artifact_appears_whole_read_only_and_under_its_digest() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let mut writer = store.writer().unwrap();
    writer.write_all(b"abc").unwrap();
    assert!(!store.artifact(&sha256(b"abc")).exists());
    let (digest, size) = writer.commit().unwrap();
    assert_eq!((digest, size), (sha256(b"abc"), 3));
    let path = store.artifact(&digest);
    assert_eq!(fs::read(&path).unwrap(), b"abc");
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o444);
    assert_eq!(store.put(b"abc").unwrap(), digest);
    assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
}

#[test]
fn a_manifest_that_is_not_what_its_digest_says_is_not_used() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let digest = sha256(b"{}");
    assert!(matches!(store.manifest(&digest), Err(StoreError::Read { .. })));
    fs::write(store.artifact(&digest), b"[]").unwrap();
    assert!(matches!(store.manifest(&digest), Err(StoreError::Damaged { source: None, .. })));
}

#[test]
fn publishing_moves_the_channel_and_keeps_older_versions() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image: ImageRef = "web:edge".parse().unwrap();
    let [a, b] = ["a", "b"].map(|text| version(&store, text));
    for (n, digest) in [(1, a), (2, b), (3, a)] {
        store.publish(&image, Arch::Arm64, VersionEntry::new(digest, n, n)).unwrap();
    }
    let index = store.index().unwrap();
    let entry = &index.images["web"][&Arch::Arm64];
    assert_eq!(entry.channels["edge"], a);
    let order: Vec<_> = entry.versions.iter().map(|v| v.digest).collect();
    assert_eq!(order, [a, b]);
    fs::remove_file(store.artifact(&sha256(b"kernel b"))).unwrap();
    let incomplete = store.publish(&image, Arch::Arm64, VersionEntry::new(b, 4, 4));
    assert!(matches!(incomplete, Err(StoreError::Incomplete { .. })), "{incomplete:?}");
}

#[test]
fn what_a_crash_left_of_a_memory_counts_as_forgotten_and_is_written_anew() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let key = sha256(b"key");
    store.remember(&key, &["a segment"]).unwrap();
    let path = store.memory_path(&key);
    let whole = fs::read(&path).unwrap();
    // A name may outlive a crash of the machine without the bytes, or with zeros in their place.
    for left in [Vec::new(), vec![0; whole.len()], whole[..whole.len() / 2].to_vec()] {
        fs::write(&path, left).unwrap();
        assert_eq!(store.remembered::<Vec<String>>(&key), None);
    }
    store.remember(&key, &["a segment"]).unwrap();
    assert_eq!(store.remembered::<Vec<String>>(&key).unwrap(), ["a segment"]);
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o7777, 0o644);
    assert_eq!(fs::read_dir(store.tmp_dir()).unwrap().count(), 0);
}
