use std::fs::Permissions;

use super::*;

fn folder() -> (tempfile::TempDir, KeyDir) {
    let dir = tempfile::tempdir().unwrap();
    let keys = KeyDir::new(dir.path().join("keys"));
    (dir, keys)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_key_is_made_at_first_use_and_is_the_same_from_then_on() {
    let (_dir, keys) = folder();
    assert!(keys.trusted().unwrap().is_empty());
    let key = keys.site_key().unwrap();
    assert_eq!(keys.site_key().unwrap().id(), key.id());
    assert_eq!(keys.trusted().unwrap().get(&key.id()), Some(key.public()));
    assert_eq!(mode(&keys.path().join(SITE)), 0o600);
    assert_eq!(mode(keys.path()), 0o755);
    // Nothing else is left, such as a temporary file with a key in it.
    assert_eq!(fs::read_dir(keys.path()).unwrap().count(), 2);
}

#[test]
fn builds_that_begin_at_once_agree_on_one_key() {
    let (_dir, keys) = folder();
    let ids: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| keys.site_key())).collect();
        threads.into_iter().map(|it| it.join().unwrap().unwrap().id()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(keys.list().unwrap()[0].key.id(), ids[0]);
}

#[test]
fn the_key_before_stays_trusted_until_it_is_removed() {
    let (_dir, keys) = folder();
    let old = keys.site_key().unwrap();
    let (before, new) = keys.rotate().unwrap();
    assert_eq!(before, Some(old.id()));
    assert_eq!(keys.site_key().unwrap().id(), new.id());
    let trusted = keys.trusted().unwrap();
    assert!(trusted.get(&old.id()).is_some() && trusted.get(&new.id()).is_some());
    assert_eq!(keys.distrust(&old.id().to_string()).unwrap(), old.id());
    assert!(keys.trusted().unwrap().get(&old.id()).is_none());
    assert!(matches!(keys.distrust(&old.id().to_string()), Err(TrustError::Unknown { .. })));
    assert!(matches!(keys.distrust(&new.id().to_string()), Err(TrustError::Own { .. })));
    assert!(matches!(keys.distrust("../site"), Err(TrustError::Unknown { .. })));
}

#[test]
fn a_crash_between_the_two_files_of_a_key_is_mended() {
    let (_dir, keys) = folder();
    let key = keys.site_key().unwrap();
    fs::remove_file(keys.path().join(SITE_PUBLIC)).unwrap();
    assert!(keys.trusted().unwrap().is_empty());
    keys.site_key().unwrap();
    assert!(keys.trusted().unwrap().get(&key.id()).is_some());
}

#[test]
fn a_key_that_others_can_read_or_replace_is_not_used() {
    let (_dir, keys) = folder();
    keys.site_key().unwrap();
    let path = keys.path().join(SITE);
    fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
    let error = keys.site_key().unwrap_err().to_string();
    assert!(error.contains("others can read the private key") && error.contains("0640"), "{error}");
    fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(keys.path(), Permissions::from_mode(0o777)).unwrap();
    for error in [keys.site_key().unwrap_err(), keys.trusted().unwrap_err()] {
        assert!(matches!(error, TrustError::FolderOpen { mode: 0o777, .. }), "{error}");
    }
}

#[test]
fn files_that_are_no_keys_are_told_by_name() {
    let (dir, keys) = folder();
    let key = keys.site_key().unwrap();
    let odd = dir.path().join("odd.pub");
    fs::write(&odd, "hello").unwrap();
    assert!(matches!(KeyDir::read_public(&odd), Err(TrustError::NotPublic { .. })));
    assert!(matches!(KeyDir::read_public(dir.path()), Err(TrustError::Read { .. })));
    fs::write(&odd, key.to_pem().unwrap()).unwrap();
    assert!(matches!(KeyDir::read_public(&odd), Err(TrustError::NotPublic { .. })));
    fs::write(keys.path().join(SITE), "hello").unwrap();
    assert!(matches!(keys.site_key(), Err(TrustError::NotPrivate { .. })));
    // A damaged key is never replaced by itself: versions would lose their signer.
    assert!(matches!(keys.rotate(), Err(TrustError::NotPrivate { .. })));
}

#[test]
fn other_sites_are_trusted_once() {
    let (_dir, keys) = folder();
    let other = SiteKey::generate().unwrap();
    assert!(keys.trust(other.public()).unwrap());
    assert!(!keys.trust(other.public()).unwrap());
    // A site that only serves needs no key of its own.
    assert_eq!(keys.list().unwrap().len(), 1);
    assert!(!keys.list().unwrap()[0].own);
}

#[test]
fn the_folder_is_beside_the_store() {
    for (store, want) in [("/var/lib/kiln/store", "/var/lib/kiln/keys"), ("store", "keys")] {
        assert_eq!(KeyDir::beside(Path::new(store)).path(), Path::new(want));
    }
}
