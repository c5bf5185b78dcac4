//! Systems that go on with the next server, and boots that running systems start.

use super::tests::{MACHINE, Rig, report, reports};
use kiln_inventory::{Asker, Firmware, Outcome, Phase};
use kiln_types::{Arch, Digest};

use super::*;

/// Lets a machine boot until its system reports, and returns its token.
pub(super) async fn healthy(rig: &Rig) -> (BootTicket, String) {
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    let told = vec![report(Phase::Healthy, Some(9))];
    reports(rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    (ticket, identity.token)
}

pub(super) async fn restarted(rig: Rig) -> Rig {
    let Rig { dir, store, boots, tracker, snapshot, mac } = rig;
    drop(boots);
    tracker.await.unwrap();
    let (boots, tracker) = Boots::start(store.clone());
    Rig { dir, store, boots, tracker, snapshot, mac }
}

#[tokio::test]
async fn a_system_that_has_its_token_goes_on_with_the_next_server() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    let rig = restarted(rig).await;
    let (boot, token) = (ticket.boot, identity.token.as_str());
    let again = rig.boots.identity(MACHINE, boot, &ticket.machine_key).await;
    assert_eq!(again, Err(BootsError::Forbidden), "the key was in the memory of that server");
    let other = IpAddr::from([10, 0, 0, 101]);
    assert_eq!(rig.boots.proven(other, boot, token).await, Err(BootsError::Forbidden));
    assert_eq!(rig.boots.proven(MACHINE, boot, &token[1..]).await, Err(BootsError::Forbidden));
    let machine = rig.boots.proven(MACHINE, boot, token).await.unwrap();
    assert_eq!(rig.boots.running(machine).await, None, "it has not reported");
    let told = vec![report(Phase::Healthy, Some(9))];
    reports(&rig, MACHINE, boot, token, told).await.unwrap();
    assert_eq!(rig.boots.running(machine).await.unwrap().id, boot);
    let rig = restarted(rig).await;
    assert_eq!(rig.boots.running(machine).await.unwrap().id, boot);
    // Its next start is another boot, and the token of this one is worth nothing then.
    rig.dhcp(Asker::Firmware, true);
    rig.script().await.unwrap();
    assert_eq!(rig.boots.proven(MACHINE, boot, token).await, Err(BootsError::Unknown));
    let boots = rig.stop().await;
    let outcomes: Vec<_> = boots.iter().map(|(boot, _)| boot.outcome).collect();
    assert_eq!(outcomes, [Outcome::Healthy, Outcome::Booting]);
}

fn next_plan() -> NextPlan {
    NextPlan {
        image: "web:edge".parse().unwrap(),
        version: Digest::from_bytes([3; 32]),
        arch: Arch::X86_64,
    }
}

#[tokio::test]
async fn a_boot_by_kexec_takes_the_place_of_the_one_that_runs_when_its_system_reports() {
    let rig = Rig::start(None).await;
    let (old, old_token) = healthy(&rig).await;
    let machine = rig.boots.proven(MACHINE, old.boot, &old_token).await.unwrap();
    let order = OrderId(1);
    let ticket = rig.boots.next(machine, next_plan(), order).await.unwrap();
    assert_eq!(rig.boots.next(machine, next_plan(), order).await, Some(ticket.clone()));
    assert_ne!(ticket.boot, old.boot);
    // The system that runs fetches for the next one, and still is the one that runs.
    let transfer = Transfer::of(Phase::Kernel, "kernel".to_owned(), 1, 1, 1);
    rig.boots.transfer(MACHINE, ticket.boot, transfer);
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    assert_eq!(identity.version, Digest::from_bytes([3; 32]));
    assert_eq!(rig.boots.running(machine).await.unwrap().id, old.boot);
    rig.boots.proven(MACHINE, old.boot, &old_token).await.unwrap();
    // A server that starts in between knows both.
    let rig = restarted(rig).await;
    rig.boots.proven(MACHINE, old.boot, &old_token).await.unwrap();
    let told = vec![report(Phase::Healthy, Some(9))];
    reports(&rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    assert_eq!(rig.boots.running(machine).await.unwrap().id, ticket.boot);
    let stale = rig.boots.proven(MACHINE, old.boot, &old_token).await;
    assert_eq!(stale, Err(BootsError::Unknown));
    let boots = rig.stop().await;
    assert_eq!(boots.len(), 2);
    assert_eq!(boots[1].0.firmware, Some(Firmware::Kexec));
    assert_eq!(boots[1].1, [Phase::Kexec, Phase::Kernel, Phase::Healthy]);
    assert!(boots.iter().all(|(boot, _)| boot.outcome == Outcome::Healthy));
}

#[tokio::test]
async fn a_kexec_that_fails_leaves_the_machine_with_the_boot_that_it_has() {
    let rig = Rig::start(None).await;
    let (old, token) = healthy(&rig).await;
    let machine = rig.boots.proven(MACHINE, old.boot, &token).await.unwrap();
    assert_eq!(rig.boots.next(MachineId(99), next_plan(), OrderId(1)).await, None);
    let first = rig.boots.next(machine, next_plan(), OrderId(1)).await.unwrap();
    rig.boots.next_failed(machine, "no memory".to_owned()).await;
    let gone = rig.boots.identity(MACHINE, first.boot, &first.machine_key).await;
    assert_eq!(gone, Err(BootsError::Unknown));
    rig.boots.next(machine, next_plan(), OrderId(2)).await.unwrap();
    // Now it comes back through its firmware.
    rig.dhcp(Asker::Firmware, true);
    rig.script().await.unwrap();
    let boots = rig.stop().await;
    let outcomes: Vec<_> = boots.iter().map(|(boot, _)| boot.outcome).collect();
    use Outcome::{Abandoned, Booting, Failed, Healthy};
    assert_eq!(outcomes, [Healthy, Failed, Abandoned, Booting]);
}
