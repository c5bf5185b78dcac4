//! Boots that begin while the database cannot be written.

use std::fs;
use std::path::{Path, PathBuf};

use kiln_inventory::{Asker, Command, NewBoot, NewOrder, OrderState, Outcome, Phase};

use super::next_tests::{healthy, restarted};
use super::tests::{MACHINE, Rig, open_boot, report, reports};
use super::*;

/// Takes the file of the database away for a while, as a disk that fails does.
struct Away(PathBuf, PathBuf);

impl Away {
    fn of(rig: &Rig) -> Self {
        Self::within(rig.dir.path())
    }

    fn within(dir: &Path) -> Self {
        let (here, there) = (dir.join("inventory.db"), dir.join("elsewhere.db"));
        fs::rename(&here, &there).unwrap();
        Self(here, there)
    }

    fn put_back(self) {
        fs::rename(self.1, self.0).unwrap();
    }
}

/// Starts the server anew while its database is away, with a part of the numbers that there are.
async fn started_without(rig: Rig) -> (Rig, Away) {
    let spare = rig.store.spare_boots().await.unwrap().split(256);
    let Rig { dir, store, boots, tracker, snapshot, mac } = rig;
    drop(boots);
    tracker.await.unwrap();
    let away = Away::within(dir.path());
    let (boots, tracker) = Boots::start_with(store.clone(), spare);
    (Rig { dir, store, boots, tracker, snapshot, mac }, away)
}

/// Waits until what waited is written, the last of which is who was refused.
async fn written(rig: &Rig, actor: &str) {
    for _ in 0..600 {
        let changes = rig.store.changes_since(0, 100).await.unwrap();
        if changes.iter().any(|change| change.actor == actor) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not written although the database is there");
}

#[tokio::test]
async fn a_machine_boots_to_the_end_without_the_database_and_its_story_is_written_later() {
    let rig = Rig::start(None).await;
    let (old, old_token) = healthy(&rig).await;
    let machine = rig.boots.running(MachineId(1)).await.unwrap().machine;
    let order = NewOrder {
        machine,
        machine_name: "n1".to_owned(),
        boot: old.boot,
        command: Command::Reboot,
        asked: 1,
        asked_by: "uid 0".to_owned(),
        expires: i64::MAX,
    };
    rig.store.add_order(&order).await.unwrap();
    let away = Away::of(&rig);
    rig.dhcp(Asker::Firmware, true);
    rig.loader();
    let (new, token) = healthy(&rig).await;
    assert_ne!(new.boot, old.boot);
    assert_eq!(rig.boots.running(machine).await.unwrap().id, new.boot);
    let stale = rig.boots.proven(MACHINE, old.boot, &old_token).await;
    assert_eq!(stale, Err(BootsError::Unknown));
    let facts = rig.boots.facts(MACHINE, new.boot, &token, "{}".to_owned()).await;
    assert_eq!(facts, Err(BootsError::NotKept), "the machine tells it again");
    let other = IpAddr::from([10, 0, 0, 101]);
    let stolen = rig.boots.proven(other, new.boot, &token).await;
    assert_eq!(stolen, Err(BootsError::Forbidden));
    // And once more, so that two boots wait.
    rig.dhcp(Asker::Firmware, true);
    let (last, last_token) = healthy(&rig).await;
    // It may have no connection left to read by either.
    let read = rig.store.boot(new.boot).await;
    assert!(!matches!(read, Ok(Some(_))), "{read:?}");

    away.put_back();
    written(&rig, &other.to_string()).await;
    let orders = rig.store.orders(machine, None, 9).await.unwrap();
    assert_eq!(orders[0].state, OrderState::Expired, "the machine started anew");
    // A server that starts now knows the last system, and nothing of those before.
    let rig = restarted(rig).await;
    rig.boots.proven(MACHINE, last.boot, &last_token).await.unwrap();
    let stale = rig.boots.proven(MACHINE, new.boot, &token).await;
    assert_eq!(stale, Err(BootsError::Unknown));
    let later = rig.script().await.unwrap();
    let boots = rig.stop().await;
    let ids: Vec<_> = boots.iter().map(|(boot, _)| boot.id).collect();
    assert_eq!(ids, [old.boot, new.boot, last.boot, later.boot]);
    use Phase::{Dhcp, Healthy, Loader, Script, Warning};
    assert_eq!(boots[1].1, [Dhcp, Loader, Script, Healthy, Warning]);
    assert_eq!(boots[1].0.address, Some(MACHINE));
    assert!(boots[..3].iter().all(|(boot, _)| boot.outcome == Outcome::Healthy));
}

#[tokio::test]
async fn a_server_whose_database_never_comes_back_ends_and_waits_for_nothing() {
    let rig = Rig::start(None).await;
    rig.dhcp(Asker::System, true);
    rig.boots.who(MACHINE).await;
    let _away = Away::of(&rig);
    let (ticket, token) = healthy(&rig).await;
    reports(&rig, MACHINE, ticket.boot, &token, vec![report(Phase::Service, None)]).await.unwrap();
    let Rig { boots, tracker, dir, .. } = rig;
    drop(boots);
    tracker.await.unwrap();
    drop(dir);
}

#[tokio::test]
async fn who_asks_for_a_script_while_a_server_that_started_is_without_its_database_ends_nothing() {
    let rig = Rig::start(None).await;
    let (old, token) = healthy(&rig).await;
    let (rig, away) = started_without(rig).await;
    let other = IpAddr::from([10, 0, 0, 101]);
    let asked = rig.script_for(other).await.unwrap();
    assert_ne!(asked.boot, old.boot);
    assert_eq!(rig.boots.proven(MACHINE, old.boot, &token).await, Err(BootsError::NotKept));
    away.put_back();
    let mut proven = Err(BootsError::NotKept);
    for _ in 0..600 {
        proven = rig.boots.proven(MACHINE, old.boot, &token).await;
        if proven != Err(BootsError::NotKept) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(proven.is_ok(), "{proven:?}");
    let boots = rig.stop().await;
    let outcomes: Vec<_> = boots.iter().map(|(boot, _)| boot.outcome).collect();
    assert_eq!(outcomes, [Outcome::Healthy, Outcome::Booting]);
}

#[tokio::test]
async fn a_system_that_began_without_the_database_goes_on_whoever_asks_for_its_script() {
    let rig = Rig::start(None).await;
    let (old, old_token) = healthy(&rig).await;
    let (rig, away) = started_without(rig).await;
    rig.dhcp(Asker::Firmware, true);
    let (new, token) = healthy(&rig).await;
    let other = IpAddr::from([10, 0, 0, 101]);
    let asked = rig.script_for(other).await.unwrap();
    rig.boots.identity(other, asked.boot, &asked.machine_key).await.unwrap();
    away.put_back();
    let _ = rig.boots.proven(other, new.boot, &token).await;
    written(&rig, &other.to_string()).await;
    rig.boots.proven(MACHINE, new.boot, &token).await.unwrap();
    // What the server before knew is over, also for the next server.
    let rig = restarted(rig).await;
    rig.boots.proven(MACHINE, new.boot, &token).await.unwrap();
    let stale = rig.boots.proven(MACHINE, old.boot, &old_token).await;
    assert_eq!(stale, Err(BootsError::Unknown));
    let boots = rig.stop().await;
    assert_eq!(boots.len(), 3);
}

#[tokio::test]
async fn a_boot_whose_number_another_has_runs_on_and_writes_nothing_into_its_story() {
    let rig = Rig::start(None).await;
    rig.dhcp(Asker::System, true);
    rig.boots.who(MACHINE).await;
    // Somebody takes the number that is next for this server.
    let new = NewBoot::new(MachineId(99), "other", rig.mac, 1);
    let other = open_boot(&rig.store, new).await;
    let away = Away::of(&rig);
    let (ticket, token) = healthy(&rig).await;
    assert_eq!(ticket.boot, other.id);
    away.put_back();
    let stranger = IpAddr::from([10, 0, 0, 101]);
    let _ = rig.boots.proven(stranger, ticket.boot, &token).await;
    written(&rig, &stranger.to_string()).await;
    let told = vec![report(Phase::Service, Some(10))];
    reports(&rig, MACHINE, ticket.boot, &token, told).await.unwrap();
    let boots = rig.stop().await;
    assert_eq!(boots.len(), 1);
    assert_eq!(boots[0].0.machine_name, "other");
    assert_eq!((boots[0].0.outcome, boots[0].1.len()), (Outcome::Booting, 0));
}
