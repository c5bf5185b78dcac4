use std::sync::Arc;

use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{Boot, Flag, Loader, NewBoot, NewMachine, Outcome, Settings, Store};
use kiln_types::{Arch, Digest, Mac};

use super::*;
use crate::boots::tests::open_boot;
use crate::secrets::{OwnerKind, Secrets};
use crate::trouble::tests::Lines;

fn machine(number: u8) -> NewMachine {
    NewMachine::new(format!("n{number}"), [Mac::new([2, 0, 0, 0, 0, number])])
}

#[tokio::test]
async fn machines_are_made_anew_only_when_the_inventory_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
    let first = store.add_machine(&machine(1)).await.unwrap();
    let view = View::load(store.clone(), artifacts, UnknownMachines::Hold, None).await.unwrap();
    let before = view.snapshot();
    assert_eq!(before.change, store.last_change().await.unwrap());
    assert!(Arc::ptr_eq(&view.machines().await.unwrap(), &before.shared_machines()));

    view.set_absent(vec![(Loader::Grub, Arch::Arm64)]).await.unwrap();
    let again = view.snapshot();
    assert_eq!(again.absent, [(Loader::Grub, Arch::Arm64)]);
    assert!(Arc::ptr_eq(&again.shared_machines(), &before.shared_machines()));
    assert!(again.settings_of(first.id).is_some());
    assert_eq!(again.unknown, UnknownMachines::Hold);

    // Somebody else: another server, or a program beside this one.
    let second = store.add_machine(&machine(2)).await.unwrap();
    let names = |machines: &[Arc<Machine>]| {
        machines.iter().map(|machine| machine.spec.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(view.snapshot().machines()), ["n1"]);
    assert_eq!(names(&view.machines().await.unwrap()), ["n1", "n2"]);
    let now = view.snapshot();
    assert_eq!(names(now.machines()), ["n1", "n2"]);
    assert!(now.settings_of(second.id).is_some());
    assert!(Arc::ptr_eq(&view.machines().await.unwrap(), &now.shared_machines()));
    assert_eq!(now.absent, again.absent);
}

async fn view_of(store: &Store, dir: &tempfile::TempDir) -> View {
    let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
    View::load(store.clone(), artifacts, UnknownMachines::Hold, None).await.unwrap()
}

#[tokio::test]
async fn a_change_of_one_machine_is_read_and_the_others_are_not() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let mut all = Vec::new();
    for number in 0..20 {
        all.push(store.add_machine(&machine(number)).await.unwrap());
    }
    let view = view_of(&store, &dir).await;
    let before = view.snapshot();
    for place in [3, 17] {
        let spec = NewMachine { cmdline: "quiet".to_owned(), ..all[place].spec.clone() };
        store.change_machine(all[place].id, &spec, None).await.unwrap();
    }
    view.refresh_inventory().await.unwrap();
    let now = view.snapshot();
    assert_eq!(now.change, store.last_change().await.unwrap());
    for (place, (old, new)) in before.machines().iter().zip(now.machines()).enumerate() {
        assert_eq!(Arc::ptr_eq(old, new), ![3, 17].contains(&place), "{place}");
        let cmdline = now.settings_of(new.id).unwrap().arguments();
        assert_eq!(cmdline == "quiet", [3, 17].contains(&place), "{place}");
    }
    store.remove_machine(all[5].id, None).await.unwrap();
    view.refresh_inventory().await.unwrap();
    let now = view.snapshot();
    assert_eq!(now.machines().len(), 19);
    let found = |number: usize| now.machine_by_mac(*all[number].spec.macs.first().unwrap());
    assert_eq!(found(5), None);
    assert_eq!(found(6).map(|machine| machine.id), Some(all[6].id));
}

#[tokio::test]
async fn one_reading_serves_all_who_had_asked_before_it_began() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let view = Arc::new(view_of(&store, &dir).await);
    let held = view.refreshing.lock().await;
    let mut waiting = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let view = view.clone();
        waiting.spawn(async move {
            view.refresh_inventory().await.unwrap();
            view.snapshot()
        });
    }
    while view.asked.load(Ordering::SeqCst) < 20 {
        tokio::task::yield_now().await;
    }
    store.add_machine(&machine(1)).await.unwrap();
    drop(held);
    let seen = waiting.join_all().await;
    assert!(seen.iter().all(|snapshot| snapshot.machines().len() == 1));
    assert!(seen.iter().all(|snapshot| Arc::ptr_eq(snapshot, &seen[0])), "each read by itself");
    view.refresh_inventory().await.unwrap();
    assert!(!Arc::ptr_eq(&view.snapshot(), &seen[0]), "who asks later is not served by it");
}

#[tokio::test]
async fn groups_and_secrets_of_a_change_hold_for_machines_that_did_not_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let mut spec = machine(1);
    spec.labels = [("rack".to_owned(), "r1".to_owned())].into();
    let n1 = store.add_machine(&spec).await.unwrap();
    let view = view_of(&store, &dir).await;
    let secrets = Arc::new(Secrets::open(&dir.path().join("secrets.json")).unwrap());
    view.keeps(secrets.clone()).await.unwrap();
    let group = Group {
        name: "g".to_owned(),
        selector: "rack=r1".parse().unwrap(),
        priority: 0,
        settings: Settings { cmdline: "quiet".to_owned(), ..Settings::default() },
    };
    let group = store.add(&group).await.unwrap();
    view.refresh_inventory().await.unwrap();
    let told = || {
        let snapshot = view.snapshot();
        let settings = snapshot.settings_of(n1.id).unwrap();
        (settings.arguments(), secrets.has(&n1, settings))
    };
    assert_eq!(told(), ("quiet".to_owned(), false));
    let place = (OwnerKind::Group, group.id, "password");
    secrets.set(&store, place, b"hunter2", "uid 0").await.unwrap();
    view.refresh_inventory().await.unwrap();
    assert_eq!(told(), ("quiet".to_owned(), true));
    // Under its new name it has the same secrets.
    let renamed = Group { name: "h".to_owned(), ..group.document.clone() };
    store.change(group.id, &renamed, None).await.unwrap();
    view.refresh_inventory().await.unwrap();
    assert_eq!(told(), ("quiet".to_owned(), true));
    store.remove::<Group>(group.id, None).await.unwrap();
    view.refresh_inventory().await.unwrap();
    assert_eq!(told(), (String::new(), false));
}

#[tokio::test]
async fn what_cordoned_machines_ran_well_stays_known_while_others_change() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let view = view_of(&store, &dir).await;
    let mut all = Vec::new();
    for number in 0..2 {
        let added = store.add_machine(&machine(number)).await.unwrap();
        let new = NewBoot {
            image: "demo:edge".parse().ok(),
            version: Some(Digest::from_bytes([number; 32])),
            arch: Some(Arch::Arm64),
            ..NewBoot::new(added.id, &*added.spec.name, *added.spec.macs.first().unwrap(), 1)
        };
        let boot = open_boot(&store, new).await;
        store.update_boot(&Boot { outcome: Outcome::Healthy, ..boot }).await.unwrap();
        all.push(added);
    }
    let mark = async |place: usize, flags: &[Flag]| {
        let mut spec = all[place].spec.clone();
        spec.flags = flags.iter().copied().collect();
        store.change_machine(all[place].id, &spec, None).await.unwrap();
        view.refresh_inventory().await.unwrap();
        let mut kept: Vec<_> = view.snapshot().kept.keys().copied().collect();
        kept.sort_unstable();
        kept
    };
    assert_eq!(mark(0, &[Flag::Cordoned]).await, [all[0].id]);
    assert_eq!(mark(1, &[Flag::Cordoned]).await, [all[0].id, all[1].id]);
    assert_eq!(mark(0, &[]).await, [all[1].id]);
    view.refresh().await.unwrap();
    assert_eq!(view.snapshot().kept.len(), 1);
}

#[tokio::test]
async fn what_cannot_be_read_for_a_while_is_told_once_and_once_more_when_it_is_over() {
    use std::os::unix::fs::PermissionsExt as _;

    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("keys");
    let mode = |mode| std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(mode));
    std::fs::create_dir(&keys).unwrap();
    mode(0o755).unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
    let trusted = Some(kiln_builder::trust::KeyDir::new(&keys));
    let view = View::load(store, artifacts, UnknownMachines::Hold, trusted).await.unwrap();
    // Others may write to it: nothing in it counts.
    mode(0o777).unwrap();
    let (lines, _guard) = Lines::collect();
    let stop = tokio_util::sync::CancellationToken::new();
    let watch = view.watch(stop.clone());
    let judge = async {
        let seen = async |level: &str, text: &str| {
            let look = async {
                while lines.with(level, text) == 0 {
                    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                }
            };
            let long = std::time::Duration::from_secs(60);
            tokio::time::timeout(long, look).await.expect("it is told");
        };
        // The second try, of which only those who look closely are told.
        seen("DEBUG", "images not read").await;
        mode(0o755).unwrap();
        seen("INFO", "images are read again").await;
        stop.cancel();
    };
    tokio::join!(watch, judge);
    assert_eq!(lines.with("WARN", "images not read"), 1, "{lines:?}");
    assert_eq!(lines.with("INFO", "images are read again"), 1, "{lines:?}");
}
