use std::task::{Context, Waker};

use kiln_inventory::{NewMachine, Snapshot, UnknownMachines};

use super::*;

struct Rig {
    dir: tempfile::TempDir,
    store: Store,
    secrets: Secrets,
}

impl Rig {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let secrets = Secrets::open(&dir.path().join("secrets.key")).unwrap();
        Self { dir, store, secrets }
    }

    async fn set(&self, owner: (OwnerKind, i64, &str), text: &str) {
        self.secrets.set(&self.store, owner, text.as_bytes(), "uid 0").await.unwrap();
    }

    /// Returns the secrets of every machine, oldest machine first.
    async fn told(&self) -> Vec<BTreeMap<String, String>> {
        let groups = self.store.all::<Group>().await.unwrap();
        self.secrets.take(self.store.all().await.unwrap(), &groups, &[]);
        let groups: Vec<Group> = groups.into_iter().map(|group| group.document).collect();
        let machines = self.store.machines().await.unwrap().into_iter().map(Arc::new).collect();
        let all = Snapshot::with_groups(machines, &groups, BTreeMap::new(), UnknownMachines::Hold);
        let told = all.machines().iter().map(|machine| {
            let settings = all.settings_of(machine.id).unwrap();
            let secrets = self.secrets.of(machine, settings).unwrap();
            assert_eq!(self.secrets.has(machine, settings), !secrets.is_empty());
            let text = |bytes| String::from_utf8(bytes).unwrap();
            secrets.into_iter().map(|(name, bytes)| (name, text(bytes))).collect()
        });
        told.collect()
    }
}

fn of(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

fn group(name: &str, selector: &str, priority: i32) -> Group {
    let selector = selector.parse().unwrap();
    Group { name: name.to_owned(), selector, priority, settings: Default::default() }
}

#[tokio::test]
async fn a_machine_has_its_own_secrets_before_those_of_its_groups() {
    let rig = Rig::start().await;
    let labels = BTreeMap::from([("role".to_owned(), "db".to_owned())]);
    let mut one = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
    one.labels = labels.into();
    let one = rig.store.add_machine(&one).await.unwrap();
    let two = NewMachine::new("n2", ["52:54:00:00:00:02".parse().unwrap()]);
    rig.store.add_machine(&two).await.unwrap();
    let weak = rig.store.add(&group("all", "*", 0)).await.unwrap();
    let strong = rig.store.add(&group("db", "role=db", 5)).await.unwrap();
    rig.set((OwnerKind::Group, weak.id, "a"), "weak a").await;
    rig.set((OwnerKind::Group, weak.id, "b"), "weak b").await;
    rig.set((OwnerKind::Group, weak.id, "c"), "weak c").await;
    rig.set((OwnerKind::Group, strong.id, "a"), "strong a").await;
    rig.set((OwnerKind::Group, strong.id, "b"), "strong b").await;
    rig.set((OwnerKind::Machine, one.id.0, "a"), "first").await;
    rig.set((OwnerKind::Machine, one.id.0, "a"), "own a").await;
    let told = rig.told().await;
    assert_eq!(told[0], of(&[("a", "own a"), ("b", "strong b"), ("c", "weak c")]));
    assert_eq!(told[1], of(&[("a", "weak a"), ("b", "weak b"), ("c", "weak c")]));
    // With its owner goes a secret: nobody else ever has the same id.
    rig.store.remove_machine(one.id, None).await.unwrap();
    rig.store.remove::<Group>(weak.id, None).await.unwrap();
    assert_eq!(rig.store.all::<SecretDoc>().await.unwrap().len(), 2, "those of the strong group");
    assert_eq!(rig.told().await, [of(&[])]);
}

#[tokio::test]
async fn a_secret_that_is_written_while_keys_change_can_be_opened() {
    let rig = Rig::start().await;
    let machine = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
    let machine = rig.store.add_machine(&machine).await.unwrap().id;
    rig.set((OwnerKind::Machine, machine.0, "a"), "first").await;
    let key = || rig.secrets.ring.load().current().map(str::to_owned);
    let before = key();
    let owner = (OwnerKind::Machine, machine.0, "b");
    let mut set = Box::pin(rig.secrets.set(&rig.store, owner, b"second", "uid 0"));
    let mut rotate = Box::pin(rig.secrets.rotate(&rig.store));
    let mut context = Context::from_waker(Waker::noop());
    // It has sealed, and not written.
    assert!(set.as_mut().poll(&mut context).is_pending());
    assert!(rotate.as_mut().poll(&mut context).is_pending());
    assert_eq!(key(), before, "the key is in use still");
    let (set, rotated) = tokio::join!(set, rotate);
    set.unwrap();
    assert_eq!(rotated.unwrap().1, 2);
    assert_ne!(key(), before);
    assert_eq!(rig.told().await, [of(&[("a", "first"), ("b", "second")])]);
}

#[tokio::test]
async fn neither_the_inventory_nor_its_log_of_changes_holds_a_secret() {
    let rig = Rig::start().await;
    rig.set((OwnerKind::Machine, 1, "password"), "geheimnis-geheimnis").await;
    rig.set((OwnerKind::Machine, 1, "password"), "geheimnis-noch-eins").await;
    let changes = rig.store.changes_since(0, 100).await.unwrap();
    assert_eq!(changes.len(), 2);
    let sealed = rig.store.all::<SecretDoc>().await.unwrap().remove(0).document.sealed.text;
    for change in changes {
        let text = serde_json::to_string(&change).unwrap();
        assert!(text.contains("password") && !text.contains(&sealed[..40]), "{text}");
    }
    rig.store.close().await;
    for entry in std::fs::read_dir(rig.dir.path()).unwrap() {
        let bytes = std::fs::read(entry.unwrap().path()).unwrap();
        assert!(!String::from_utf8_lossy(&bytes).contains("geheim"));
        assert!(!String::from_utf8_lossy(&bytes).contains(&hex(b"geheim")));
    }
}

#[tokio::test]
async fn a_row_that_is_put_in_the_place_of_another_is_not_opened() {
    let rig = Rig::start().await;
    let machine = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
    rig.store.add_machine(&machine).await.unwrap();
    rig.set((OwnerKind::Machine, 2, "password"), "of another").await;
    let mut row = rig.store.all::<SecretDoc>().await.unwrap().remove(0);
    row.document.owner = 1;
    row.document.place = place_of(OwnerKind::Machine, 1, "password");
    rig.secrets.take(vec![row], &[], &[]);
    let machines: Vec<_> = rig.store.machines().await.unwrap().into_iter().map(Arc::new).collect();
    let all = Snapshot::new(machines, BTreeMap::new(), UnknownMachines::Hold);
    let machine = all.machines().first().unwrap();
    let error = rig.secrets.of(machine, all.settings_of(machine.id).unwrap()).unwrap_err();
    assert!(error.to_string().contains("machine/1/password"), "{error}");
}

#[tokio::test]
async fn a_rotation_seals_all_of_it_anew_and_forgets_the_key_before() {
    let rig = Rig::start().await;
    let machine = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
    let machine = rig.store.add_machine(&machine).await.unwrap();
    rig.set((OwnerKind::Machine, machine.id.0, "a"), "one").await;
    let old = std::fs::read_to_string(rig.dir.path().join("secrets.key")).unwrap();
    let (key, count) = rig.secrets.rotate(&rig.store).await.unwrap();
    assert_eq!(count, 1);
    assert_eq!(rig.store.all::<SecretDoc>().await.unwrap()[0].document.sealed.key, key);
    assert_eq!(rig.told().await, [of(&[("a", "one")])]);
    let new = std::fs::read_to_string(rig.dir.path().join("secrets.key")).unwrap();
    assert!(new.lines().count() == 1 && new != old);
    // A server with other keys says so, and gives nothing.
    let other = Secrets::open(&rig.dir.path().join("other.key")).unwrap();
    other.take(rig.store.all().await.unwrap(), &[], &[]);
    let secret = rig.store.all::<SecretDoc>().await.unwrap().remove(0).document;
    assert!(other.opened(&secret).is_err());
}

#[tokio::test]
async fn names_that_lead_elsewhere_and_secrets_without_end_are_refused() {
    let rig = Rig::start().await;
    for name in ["", "..", ".x", "a/b", "../x", "a\0", "ä", "a b", &"x".repeat(64)] {
        let owner = (OwnerKind::Machine, 1, name);
        let refused = rig.secrets.set(&rig.store, owner, b"x", "uid 0").await;
        assert!(matches!(refused, Err(SecretError::Store(_))), "{name:?}");
    }
    let long = vec![0; LONGEST + 1];
    let owner = (OwnerKind::Machine, 1, "x");
    let refused = rig.secrets.set(&rig.store, owner, &long, "uid 0").await;
    assert!(matches!(refused, Err(SecretError::TooLong)));
    for number in 0..MOST {
        rig.set((OwnerKind::Machine, 1, &format!("x{number}")), "").await;
    }
    let refused = rig.secrets.set(&rig.store, (OwnerKind::Machine, 1, "y"), b"x", "uid 0").await;
    assert!(matches!(refused, Err(SecretError::TooMany)));
}

#[tokio::test]
async fn no_key_is_made_where_secrets_are_sealed_with_one_that_was_left_behind() {
    let rig = Rig::start().await;
    let machine = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
    let machine = rig.store.add_machine(&machine).await.unwrap().id.0;
    rig.set((OwnerKind::Machine, machine, "a"), "one").await;
    // Another host has the inventory and not the file.
    let path = rig.dir.path().join("other.key");
    let other = Secrets::open(&path).unwrap();
    other.check().unwrap();
    let owner = (OwnerKind::Machine, machine, "b");
    for refused in [
        other.set(&rig.store, owner, b"x", "uid 0").await.unwrap_err(),
        other.may_set(&rig.store, owner, b"x").await.unwrap_err(),
        other.rotate(&rig.store).await.unwrap_err(),
        other.would_rotate(&rig.store).await.unwrap_err(),
        check_keys(&path, &rig.store).await.unwrap_err(),
    ] {
        let text = refused.to_string();
        assert!(text.contains("other.key is missing") && text.contains("copy it"), "{text}");
        assert!(text.contains("1 of them, as `a` of machine n1;"), "{text}");
    }
    assert!(Seal::seal(&other, "secrets.p", b"x").is_err() && other.check().is_err());
    assert!(!path.exists());
    // The file comes after all.
    std::fs::copy(rig.dir.path().join("secrets.key"), &path).unwrap();
    check_keys(&path, &rig.store).await.unwrap();
    other.set(&rig.store, owner, b"two", "uid 0").await.unwrap();
    other.check().unwrap();
    assert_eq!(rig.told().await, [of(&[("a", "one"), ("b", "two")])]);
}

#[tokio::test]
async fn metadata_that_is_sealed_with_a_key_of_elsewhere_is_told_too() {
    let rig = Rig::start().await;
    let secrets = Arc::new(Secrets::open(&rig.dir.path().join("secrets.key")).unwrap());
    let store = rig.store.sealing(secrets.clone());
    let mut machine = NewMachine::new("n1", ["52:54:00:00:00:01".parse().unwrap()]);
    machine.metadata.insert("secrets".to_owned(), serde_json::json!({"p": "geheim"}));
    store.add_machine(&machine).await.unwrap();
    let path = rig.dir.path().join("other.key");
    let other = Secrets::open(&path).unwrap();
    let machines: Vec<_> = store.machines().await.unwrap().into_iter().map(Arc::new).collect();
    other.take(Vec::new(), &[], &machines);
    assert!(other.check().unwrap_err().to_string().contains("other.key is missing"));
    assert!(Seal::seal(&other, "secrets.q", b"x").unwrap_err().contains("is missing"));
    // A file with another key, as an older Kiln has made it.
    Ring::read(&path).unwrap().with_new_key().unwrap();
    let other = Secrets::open(&path).unwrap();
    other.take(Vec::new(), &[], &machines);
    let error = other.check().unwrap_err().to_string();
    assert!(error.contains(&secrets.key().unwrap()) && error.contains("not in"), "{error}");
    assert!(error.contains("1 of them, as one in the metadata of machine n1;"), "{error}");
    let keys = std::fs::read(&path).unwrap();
    other.rotate(&store).await.unwrap_err();
    assert_eq!(std::fs::read(&path).unwrap(), keys, "no key is made that seals nothing");
    // Once they are gone, a key may be made.
    other.take(Vec::new(), &[], &[]);
    other.check().unwrap();
}
