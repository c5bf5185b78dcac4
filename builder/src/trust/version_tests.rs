use std::fs;

use kiln_types::{Arch, ImageRef};
use serde_json::json;

use super::*;
use crate::provenance::Recipe;

struct Site {
    _dir: tempfile::TempDir,
    store: Store,
    key: SiteKey,
    keys: TrustedKeys,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path().join("store")).unwrap();
    let key = SiteKey::generate().unwrap();
    let keys = [key.public().clone()].into_iter().collect();
    Site { _dir: dir, store, key, keys }
}

impl Site {
    /// Publishes a version with all that can belong to one.
    fn version(&self) -> VersionEntry {
        let put = |text: &str| self.store.put(text.as_bytes()).unwrap();
        let text = json!({
            "schema": 2, "image": "web", "arch": "x86_64", "cmdline": "", "min_ram": 1, "packages": [],
            "kernel": {"digest": put("kernel"), "size": 6, "release": "6.12", "efi_stub": true},
            "segments": [{"component": "init", "digest": put("init"), "size": 4, "unpacked": 4}],
            "sbom": put(r#"{"spdxVersion":"SPDX-2.3"}"#),
        });
        let manifest: Manifest = serde_json::from_value(text).unwrap();
        let digest = self.store.put(&manifest.to_canonical_json().unwrap()).unwrap();
        let statement =
            provenance::signed(&self.key, &manifest, &digest, &Recipe::default()).unwrap();
        let entry = VersionEntry::new(digest, 0, 10)
            .with(SIGNATURE, sign_version(&self.store, &self.key, &digest).unwrap())
            .with(PROVENANCE, self.store.put(&statement).unwrap());
        let image: ImageRef = "web".parse().unwrap();
        self.store.publish(&image, Arch::X86_64, entry.clone()).unwrap();
        entry
    }

    fn problems(&self, version: &VersionEntry) -> Vec<String> {
        verify_version(&self.store, version, &self.keys).unwrap().problems
    }

    /// Writes other bytes where an artifact is.
    fn damage(&self, digest: &Digest) {
        let path = self.store.artifact(digest);
        fs::remove_file(&path).unwrap();
        fs::write(path, "other").unwrap();
    }
}

#[test]
fn a_version_that_is_whole_and_signed_is_good() {
    let site = site();
    let found = verify_version(&site.store, &site.version(), &site.keys).unwrap();
    assert!(found.is_good(), "{:?}", found.problems);
    assert_eq!(found.signed_by, Some(site.key.id()));
    assert!(found.sbom && found.provenance.is_some());
    assert_eq!(found.artifacts, 5);
}

#[test]
fn each_thing_that_is_wrong_is_told() {
    let site = site();
    let version = site.version();
    let bare = VersionEntry::new(version.digest, 0, 0);
    assert!(site.problems(&bare)[0].starts_with("it is not signed; `kiln image sign`"));
    let unread = bare.clone().with(SIGNATURE, sha256(b"nowhere"));
    let problems = site.problems(&unread);
    assert!(problems[1].starts_with("its signature cannot be read"), "{problems:?}");
    // The signature of another version is no signature of this one.
    let other = sign_version(&site.store, &site.key, &sha256(b"other")).unwrap();
    let moved = bare.clone().with(SIGNATURE, other);
    assert!(site.problems(&moved)[0].contains("does not fit"));
    let stranger = SiteKey::generate().unwrap();
    let foreign = sign_version(&site.store, &stranger, &version.digest).unwrap();
    let problems = site.problems(&bare.with(SIGNATURE, foreign));
    assert!(problems[0].contains(&format!("key {}, which is not trusted", stranger.id())));

    let manifest = site.store.manifest(&version.digest).unwrap();
    site.damage(&manifest.segments[0].digest);
    let problems = site.problems(&version);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].contains("is damaged: its content has the digest"), "{problems:?}");
    site.damage(&version.attachments[PROVENANCE]);
    let problems = site.problems(&version);
    assert!(problems.iter().any(|it| it.starts_with("the statement of how it was built")));
    site.damage(&manifest.sbom.unwrap());
    assert!(site.problems(&version).iter().any(|it| it.starts_with("the list of what is in it")));
}

#[test]
fn what_is_damaged_is_not_signed() {
    let site = site();
    let version = site.version();
    site.damage(&version.attachments[SIGNATURE]);
    let again = sign_checked(&site.store, &site.key, &version).unwrap();
    // The right bytes are the same bytes, and stand where they did.
    assert_eq!(again, version.attachments[SIGNATURE]);
    let manifest = site.store.manifest(&version.digest).unwrap();
    site.damage(&manifest.kernel.digest);
    let error = sign_checked(&site.store, &site.key, &version).unwrap_err();
    assert!(matches!(error, TrustError::NotWhole { .. }), "{error}");
}
