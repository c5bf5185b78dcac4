//! Scripts, which anybody can ask for who knows the address of an interface.

use kiln_inventory::{Asker, Outcome, Phase};

use super::next_tests::{healthy, restarted};
use super::tests::{MACHINE, Rig, report, reports};
use super::*;

const STRANGER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 101));

#[tokio::test]
async fn who_asks_for_the_script_of_a_machine_that_runs_takes_nothing_from_it() {
    let rig = Rig::start(None).await;
    let (old, token) = healthy(&rig).await;
    let asked = rig.script_for(STRANGER).await.unwrap();
    assert_ne!(asked.boot, old.boot);
    assert_eq!(rig.script_for(STRANGER).await, Some(asked.clone()), "it is one boot");
    // What proves that the old one runs is later than what began.
    let began = now_ms();
    while now_ms() <= began {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let told = vec![report(Phase::Service, Some(10))];
    reports(&rig, MACHINE, old.boot, &token, told).await.unwrap();
    let machine = rig.boots.proven(MACHINE, old.boot, &token).await.unwrap();
    assert_eq!(rig.boots.running(machine).await.unwrap().id, old.boot, "it can be ordered");
    assert_eq!(rig.boots.boot_at(MACHINE).await, Some(old.boot), "what it says is its own");
    // A server that starts in between knows it still.
    let rig = restarted(rig).await;
    rig.boots.proven(MACHINE, old.boot, &token).await.unwrap();
    let boots = rig.stop().await;
    let outcomes: Vec<_> = boots.iter().map(|(boot, _)| boot.outcome).collect();
    assert_eq!(outcomes, [Outcome::Healthy, Outcome::Abandoned]);
    assert_eq!(boots[0].1.last(), Some(&Phase::Service));
}

#[tokio::test]
async fn a_machine_whose_addresses_another_server_gives_follows_itself_by_its_script() {
    let rig = Rig::start(None).await;
    let (old, old_token) = healthy(&rig).await;
    let (new, token) = healthy(&rig).await;
    assert_ne!(new.boot, old.boot);
    let stale = rig.boots.proven(MACHINE, old.boot, &old_token).await;
    assert_eq!(stale, Err(BootsError::Unknown), "the new system has proved itself");
    let rig = restarted(rig).await;
    rig.boots.proven(MACHINE, new.boot, &token).await.unwrap();
    // One that reported and was never healthy is over as well.
    let half = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, half.boot, &half.machine_key).await.unwrap();
    let told = vec![report(Phase::Init, Some(1))];
    reports(&rig, MACHINE, half.boot, &identity.token, told).await.unwrap();
    let (last, _) = healthy(&rig).await;
    assert_ne!(last.boot, half.boot);
    let boots = rig.stop().await;
    let outcomes: Vec<_> = boots.iter().map(|(boot, _)| boot.outcome).collect();
    use Outcome::{Abandoned, Healthy};
    assert_eq!(outcomes, [Healthy, Healthy, Abandoned, Healthy]);
}

#[tokio::test]
async fn whoever_asks_for_scripts_and_gives_them_up_makes_few_boots() {
    let rig = Rig::start(None).await;
    let (old, token) = healthy(&rig).await;
    let mut refused = 0;
    for _ in 0..50 {
        let ticket = rig.script_for(STRANGER).await.unwrap();
        // Also where the loader has got everything before it gives up.
        let (boot, key) = (ticket.boot, ticket.machine_key);
        refused += usize::from(rig.boots.identity(STRANGER, boot, &key).await.is_err());
        rig.boots.loader_failed(STRANGER, boot, "no".to_owned()).await;
    }
    assert!((1..50).contains(&refused), "the last one is used up: {refused}");
    rig.boots.proven(MACHINE, old.boot, &token).await.unwrap();
    // The machine itself boots by its first packet.
    rig.dhcp(Asker::Firmware, true);
    let (new, _) = healthy(&rig).await;
    let stale = rig.boots.proven(MACHINE, old.boot, &token).await;
    assert_eq!(stale, Err(BootsError::Unknown));
    let boots = rig.stop().await;
    assert!((3..=9).contains(&boots.len()), "{}", boots.len());
    assert_eq!(boots.last().map(|(boot, _)| boot.id), Some(new.boot));
}

#[tokio::test]
async fn a_stranger_cannot_have_the_reports_of_a_machine_that_loads_refused() {
    let rig = Rig::start(None).await;
    rig.dhcp(Asker::Firmware, true);
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    assert_eq!(rig.script_for(STRANGER).await, Some(ticket.clone()));
    let told = vec![report(Phase::Healthy, Some(9))];
    reports(&rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    let boots = rig.stop().await;
    assert_eq!(boots[0].0.outcome, Outcome::Healthy);
}
