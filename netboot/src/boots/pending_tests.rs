//! What waits for a database that is full, hangs, or answers late.

use kiln_inventory::{MachineId, NewBoot, Phase};

use super::*;
use crate::boots::tests::open_boot;

async fn store() -> (tempfile::TempDir, Store, Boot) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
    let boot = NewBoot::new(MachineId(1), "n1", Mac::new([2; 6]), 1);
    let boot = open_boot(&store, boot).await;
    (dir, store, boot)
}

/// Another connection to the same database, which makes it fail.
async fn saboteur(dir: &tempfile::TempDir) -> sqlx::SqlitePool {
    let options = sqlx::sqlite::SqliteConnectOptions::new();
    let pool = sqlx::SqlitePool::connect_with(options.filename(dir.path().join("inventory.db")));
    pool.await.unwrap()
}

#[tokio::test]
async fn events_that_cannot_be_written_are_kept_in_order_and_written_later() {
    let (dir, store, boot) = store().await;
    let other = saboteur(&dir).await;
    let fail = "CREATE TRIGGER full BEFORE INSERT ON boot_events \
                BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    sqlx::query(fail).execute(&other).await.unwrap();
    let mut pending = Pending::new();
    pending.event(boot.id, BootEvent::new(1, Phase::Dhcp, "a"));
    pending.write(&store).await;
    let again = pending.again().unwrap();
    pending.event(boot.id, BootEvent::new(2, Phase::Script, "b"));
    pending.write(&store).await;
    assert_eq!(pending.again(), Some(again), "it does not try before its time");
    sqlx::query("DROP TRIGGER full").execute(&other).await.unwrap();
    while pending.is_behind() {
        pending.is_due().await;
        pending.write(&store).await;
    }
    assert_eq!((pending.again(), pending.waiting), (None, 0));
    let (_, events) = store.boot(boot.id).await.unwrap().unwrap();
    assert_eq!(events.iter().map(|e| e.detail.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[tokio::test]
async fn events_that_were_written_although_no_answer_came_are_written_once() {
    let (_dir, store, boot) = store().await;
    let mut pending = Pending::new();
    for number in 0..5 {
        pending.event(boot.id, BootEvent::new(number, Phase::Dhcp, ""));
    }
    let kept = pending.events[&boot.id].clone();
    // Three of them are there, and of the next two the answer does not come either.
    store.add_events(boot.id, &kept[..3]).await.unwrap();
    for doubt in [3, 2] {
        pending.failed(&StoreError::Silent);
        pending.doubt = Some((boot.id, doubt));
        pending.hurry();
        while pending.waiting > 0 {
            pending.write(&store).await;
            assert_eq!(pending.again(), None);
        }
        let (_, events) = store.boot(boot.id).await.unwrap().unwrap();
        assert_eq!(events, kept);
        pending.events.insert(boot.id, kept[3..].to_vec());
        pending.waiting = 2;
    }
}

#[tokio::test]
async fn a_database_that_answers_late_is_asked_for_less_at_once() {
    let (_dir, store, boot) = store().await;
    let mut pending = Pending::new();
    for steps in [64, 32, 16, 8, 4, 2, 1, 1] {
        pending.failed(&StoreError::Silent);
        assert_eq!(pending.at_once, steps);
    }
    for number in 0..5 {
        pending.event(boot.id, BootEvent::new(number, Phase::Dhcp, ""));
    }
    pending.hurry();
    while pending.waiting > 0 {
        pending.write(&store).await;
        assert_eq!(pending.again(), None);
    }
    assert_eq!(store.boot(boot.id).await.unwrap().unwrap().1.len(), 5);
    assert!(pending.at_once >= 2, "{}", pending.at_once);
}

#[tokio::test]
async fn events_of_a_boot_that_is_gone_do_not_hold_up_others() {
    let (_dir, store, boot) = store().await;
    let mut pending = Pending::new();
    pending.event(BootId(99), BootEvent::new(1, Phase::Dhcp, ""));
    pending.event(boot.id, BootEvent::new(1, Phase::Dhcp, ""));
    pending.write(&store).await;
    while pending.unfinished && pending.again().is_none() {
        pending.write(&store).await;
    }
    assert_eq!((pending.again(), pending.waiting), (None, 0));
    assert_eq!(store.boot(boot.id).await.unwrap().unwrap().1.len(), 1);
}

#[test]
fn a_crowd_of_sightings_takes_a_twentieth_of_the_time() {
    assert_eq!(rest_after(Duration::from_millis(5)), REST);
    assert_eq!(rest_after(Duration::from_millis(200)), Duration::from_millis(3800));
    assert_eq!(rest_after(Duration::from_secs(60)), LONGEST_REST);
}

#[tokio::test]
async fn what_waits_is_bounded() {
    let mut pending = Pending::new();
    for number in 0..MOST_EVENTS + 5 {
        let boot = BootId(i64::try_from(number % 100).unwrap());
        pending.event(boot, BootEvent::new(1, Phase::Dhcp, ""));
    }
    assert_eq!((pending.waiting, pending.lost), (MOST_EVENTS, 5));
    for number in 0..=MOST_SIGHTINGS {
        let number = u32::try_from(number).unwrap().to_be_bytes();
        let mac = Mac::new([2, 0, number[0], number[1], number[2], number[3]]);
        let sighting = Sighting { mac, asker: Asker::Ipxe, firmware: None, uuid: None };
        pending.sighting(sighting, 1);
    }
    assert_eq!(pending.sightings.len(), MOST_SIGHTINGS);
}
