use super::*;

fn digest(n: u8) -> Digest {
    Digest::from_bytes([n; 32])
}

fn package(name: &str, version: &str) -> PackagePin {
    PackagePin {
        name: name.to_owned(),
        version: version.to_owned(),
        arch: "amd64".to_owned(),
        file: format!("pool/{name}.deb"),
        size: 3,
        sha256: digest(9),
    }
}

fn lock() -> Lock {
    let mut lock = Lock::default();
    lock.pin_image("registry.example/web:1", Arch::X86_64, Some(digest(1)), digest(2));
    lock.pin_image("registry.example/web:1", Arch::Arm64, Some(digest(1)), digest(3));
    let names = |names: &[&str]| {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        ClosureKey::new(Arch::X86_64, "trixie main", &names)
    };
    lock.pin_closure(names(&["web", "ssh"]), vec![package("web", "2"), package("libc6", "1")]);
    lock.pin_closure(names(&["ssh"]), vec![package("libc6", "1")]);
    lock
}

#[test]
fn what_is_written_is_read_again_and_does_not_depend_on_the_order() {
    let text = lock().to_text().unwrap();
    assert_eq!(text.matches("name = \"libc6\"").count(), 1, "{text}");
    let read = Lock::parse(Path::new("web.lock"), &text).unwrap();
    assert_eq!(read, lock());
    assert_eq!(read.to_text().unwrap(), text);
    let key = ClosureKey::new(Arch::X86_64, "trixie main", &["ssh".to_owned(), "web".to_owned()]);
    assert_eq!(read.closure(&key).unwrap()[0].name, "libc6");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("web.lock");
    assert_eq!(Lock::load(&path).unwrap(), None);
    read.save(&path).unwrap();
    assert_eq!(Lock::load(&path).unwrap(), Some(read));
}

#[test]
fn one_architecture_moves_without_the_other() {
    let lock = lock();
    let mut moved = lock.without(Arch::X86_64);
    moved.pin_image("registry.example/web:1", Arch::X86_64, Some(digest(1)), digest(4));
    let text: Vec<_> = lock.changes_to(&moved).iter().map(ToString::to_string).collect();
    let expected = [
        format!("image registry.example/web:1 (x86_64): {} → {}", digest(2), digest(4)),
        "package libc6 (x86_64): 1 → (none)".to_owned(),
        "package web (x86_64): 2 → (none)".to_owned(),
    ];
    assert_eq!(text, expected);
    assert_eq!(lock.only(Arch::Arm64), lock.without(Arch::X86_64));
    moved.extend(&lock);
    assert_eq!(moved.image("registry.example/web:1").unwrap().manifests[&Arch::X86_64], digest(4));
    assert_eq!(moved.only(Arch::Arm64), lock.only(Arch::Arm64));
    assert_eq!(lock.changes_to(&moved).len(), 1);
}

#[test]
fn a_lock_that_cannot_be_used_says_so() {
    let parse = |text: &str| Lock::parse(Path::new("web.lock"), text).unwrap_err();
    assert!(matches!(parse("schema = 2\nother = 1"), LockError::Newer { schema: 2, .. }));
    assert!(matches!(parse("schema = 1\nother = 1"), LockError::Parse { .. }));
    let text = lock().to_text().unwrap();
    let (before, _) = text.split_once("[[package]]").unwrap();
    assert!(matches!(parse(before), LockError::Incomplete { .. }));
}

#[test]
fn fuzzed_locks_are_read_or_refused() {
    let text = lock().to_text().unwrap();
    kiln_fuzz::check("lock", &[text.as_bytes()], |bytes| {
        if let Ok(lock) = Lock::parse(Path::new("web.lock"), &String::from_utf8_lossy(bytes)) {
            let again = lock.to_text().unwrap();
            assert_eq!(Lock::parse(Path::new("web.lock"), &again).unwrap(), lock);
        }
    });
}
