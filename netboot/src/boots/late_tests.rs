//! Boots that begin while the database cannot be written.

use std::fs;
use std::path::PathBuf;

use kiln_inventory::{Asker, Command, NewOrder, OrderState, Outcome, Phase};

use super::next_tests::{healthy, restarted};
use super::tests::{MACHINE, Rig, report, reports};
use super::*;

/// Takes the file of the database away for a while, as a disk that fails does.
struct Away(PathBuf, PathBuf);

impl Away {
    fn of(rig: &Rig) -> Self {
        let here = rig.dir.path().join("inventory.db");
        let there = rig.dir.path().join("elsewhere.db");
        fs::rename(&here, &there).unwrap();
        Self(here, there)
    }

    fn put_back(self) {
        fs::rename(self.1, self.0).unwrap();
    }
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
    assert!(rig.store.boot(new.boot).await.unwrap().is_none());

    away.put_back();
    written(&rig, &other.to_string()).await;
    let orders = rig.store.orders(machine, 9).await.unwrap();
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
