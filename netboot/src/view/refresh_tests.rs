use std::sync::Arc;

use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{Loader, NewMachine, Store};
use kiln_types::{Arch, Mac};

use super::*;
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
    assert_eq!(names(&view.machines().await.unwrap()), ["n1", "n2"]);
    assert_eq!(names(view.snapshot().machines()), ["n1"]);
    view.refresh().await.unwrap();
    let now = view.snapshot();
    assert_eq!(names(now.machines()), ["n1", "n2"]);
    assert!(now.settings_of(second.id).is_some());
    assert!(Arc::ptr_eq(&view.machines().await.unwrap(), &now.shared_machines()));
    assert_eq!(now.absent, again.absent);
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
