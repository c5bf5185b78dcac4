use kiln_builder::trust::{SIGNATURE, SiteKey, sign_version};
use serde_json::json;

use super::*;

struct Site {
    _dir: tempfile::TempDir,
    artifacts: Artifacts,
    keys: KeyDir,
    key: SiteKey,
}

fn site() -> Site {
    let dir = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
    let keys = KeyDir::beside(artifacts.dir());
    let key = keys.site_key().unwrap();
    Site { _dir: dir, artifacts, keys, key }
}

impl Site {
    /// Publishes a version, signed by a key if there is one.
    fn publish(&self, text: &str, key: Option<&SiteKey>) -> Digest {
        let blob = self.artifacts.put(text.as_bytes()).unwrap();
        let manifest = json!({
            "schema": 1, "image": "web", "arch": "x86_64", "cmdline": "", "min_ram": 1, "packages": [],
            "kernel": {"digest": blob, "size": text.len(), "release": "6.12", "efi_stub": true},
            "segments": [],
        });
        let manifest: Manifest = serde_json::from_value(manifest).unwrap();
        let digest = self.artifacts.put(&manifest.to_canonical_json().unwrap()).unwrap();
        let mut entry = VersionEntry::new(digest, 0, 0);
        if let Some(key) = key {
            entry = entry.with(SIGNATURE, sign_version(&self.artifacts, key, &digest).unwrap());
        }
        self.artifacts.publish(&"web".parse().unwrap(), Arch::X86_64, entry).unwrap();
        digest
    }

    fn read(&self, before: &Images) -> Images {
        read(&self.artifacts, Some(&self.keys), before).unwrap()
    }
}

fn served_version(images: &Images) -> Option<Digest> {
    images.version(&"web".parse().unwrap(), Arch::X86_64)
}

#[test]
fn only_what_a_trusted_key_signed_is_served() {
    let site = site();
    let bare = site.publish("bare", None);
    let images = site.read(&Images::default());
    assert_eq!(served_version(&images), None);
    assert!(images.blobs.is_empty());
    assert!(images.refused[&bare].starts_with("it is not signed"), "{:?}", images.refused);
    // Where no signature is asked for, it is served.
    let images = read(&site.artifacts, None, &Images::default()).unwrap();
    assert_eq!(served_version(&images), Some(bare));

    let stranger = SiteKey::generate().unwrap();
    let foreign = site.publish("foreign", Some(&stranger));
    let images = site.read(&Images::default());
    assert!(images.refused[&foreign].contains("not trusted here"), "{:?}", images.refused);
    site.keys.trust(stranger.public()).unwrap();
    assert_eq!(served_version(&site.read(&images)), Some(foreign));
    site.keys.distrust(&stranger.id().to_string()).unwrap();
    assert_eq!(served_version(&site.read(&Images::default())), None);
}

#[test]
fn a_channel_that_moves_to_a_bad_version_keeps_the_good_one() {
    let site = site();
    let good = site.publish("good", Some(&site.key));
    let first = site.read(&Images::default());
    assert_eq!(served_version(&first), Some(good));
    let bad = site.publish("bad", None);
    let second = site.read(&first);
    assert_eq!(served_version(&second), Some(good));
    assert!(second.refused.contains_key(&bad));
    assert!(second.blobs.contains_key(&sha256(b"good")));
    assert!(!second.blobs.contains_key(&sha256(b"bad")));
    // And so it is after the server was started again.
    assert_eq!(served_version(&site.read(&Images::default())), Some(good));
    let signature = sign_version(&site.artifacts, &site.key, &bad).unwrap();
    let attachment = [(SIGNATURE.to_owned(), signature)];
    site.artifacts.attach("web", Arch::X86_64, &bad, attachment).unwrap();
    assert_eq!(served_version(&site.read(&second)), Some(bad));
}

#[test]
fn a_manifest_that_is_damaged_is_refused_with_its_reason() {
    let site = site();
    let version = site.publish("good", Some(&site.key));
    let path = site.artifacts.artifact(&version);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(path, "{}").unwrap();
    let images = site.read(&Images::default());
    assert_eq!(served_version(&images), None);
    assert!(images.refused[&version].contains("is damaged"), "{:?}", images.refused);
}
