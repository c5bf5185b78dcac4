use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;

use kiln_inventory::{
    Artifact, Asker, Boot, BootPlan, Firmware, ImageVersion, NewBoot, NewMachine, Outcome, Phase,
    Plan, Snapshot, UnknownMachines, decide,
};
use kiln_types::{Arch, Digest, Mac};

use super::*;

pub(super) const MACHINE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 100));

pub(super) struct Rig {
    pub(super) dir: Arc<tempfile::TempDir>,
    pub(super) store: Store,
    pub(super) boots: Boots,
    pub(super) tracker: JoinHandle<()>,
    pub(super) snapshot: Snapshot,
    pub(super) mac: Mac,
}

impl Rig {
    pub(super) async fn start(arch: Option<Arch>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let mac: Mac = "52:54:00:00:00:01".parse().unwrap();
        let machine = NewMachine {
            arch,
            image: Some("web".parse().unwrap()),
            ..NewMachine::new("n1", [mac])
        };
        let machine = store.add_machine(&machine).await.unwrap();
        let file = |name: &str| Artifact {
            name: name.to_owned(),
            digest: Digest::from_bytes([2; 32]),
            size: 1,
        };
        let version = Arc::new(ImageVersion {
            version: Digest::from_bytes([1; 32]),
            kernel: file("kernel"),
            efi_stub: true,
            segments: vec![file("init")],
            cmdline: String::new(),
        });
        let images =
            BTreeMap::from([("web".parse().unwrap(), BTreeMap::from([(Arch::X86_64, version)]))]);
        let snapshot = Snapshot::new(vec![Arc::new(machine)], images, UnknownMachines::Ignore);
        let (boots, tracker) = Boots::start(store.clone());
        Self { dir: Arc::new(dir), store, boots, tracker, snapshot, mac }
    }

    pub(super) fn dhcp(&self, asker: Asker, fresh: bool) {
        self.dhcp_from(Some(Firmware::UefiX64), asker, fresh);
    }

    pub(super) fn dhcp_from(&self, firmware: Option<Firmware>, asker: Asker, fresh: bool) {
        let sighting = Sighting { mac: self.mac, asker, firmware, uuid: None };
        let decision = decide(&self.snapshot, &sighting);
        self.boots.seen(&sighting, Some(&decision), fresh, Some(MACHINE));
    }

    pub(super) fn loader(&self) {
        let (phase, detail) = (Phase::Loader, "ipxe-amd64.efi".to_owned());
        self.boots.loader(MACHINE, Transfer { phase, detail, bytes: 1, millis: 1, resent: 0 });
    }

    pub(super) async fn script(&self) -> Option<BootTicket> {
        self.script_for(MACHINE).await
    }

    pub(super) async fn script_for(&self, peer: IpAddr) -> Option<BootTicket> {
        let firmware = Some(Firmware::UefiX64);
        let sighting = Sighting { mac: self.mac, asker: Asker::Ipxe, firmware, uuid: None };
        let decision = decide(&self.snapshot, &sighting);
        assert!(matches!(decision.plan, Plan::Boot(BootPlan { .. }) | Plan::Refuse));
        self.boots.script(peer, sighting, decision).await
    }

    /// Lets the task write everything, and returns the boots with their events, oldest first.
    pub(super) async fn stop(self) -> Vec<(Boot, Vec<Phase>)> {
        drop(self.boots);
        self.tracker.await.unwrap();
        let mut all = Vec::new();
        for boot in self.store.boots(10).await.unwrap().into_iter().rev() {
            let (boot, events) = self.store.boot(boot.id).await.unwrap().unwrap();
            all.push((boot, events.iter().map(|event| event.phase).collect()));
        }
        all
    }
}

/// Numbers and writes a boot that begins.
pub(crate) async fn open_boot(store: &Store, new: NewBoot) -> Boot {
    let boot = new.numbered(store.spare_boots().await.unwrap().take().unwrap());
    store.begin_boot(&boot).await.unwrap();
    boot
}

pub(super) fn report(phase: Phase, millis: Option<u64>) -> Report {
    Report { phase, detail: String::new(), millis, took: None }
}

/// Reports as an older kiln-init does, which does not say how long its kernel has run.
pub(super) async fn reports(
    rig: &Rig,
    peer: IpAddr,
    boot: BootId,
    token: &str,
    reports: Vec<Report>,
) -> Result<(), BootsError> {
    let reports = Reports { uptime: None, reports };
    rig.boots.reports(now_ms(), peer, boot, token, reports).await
}

#[tokio::test]
async fn a_database_that_is_reached_once_more_ends_no_boot_that_has_begun_meanwhile() {
    let rig = Rig::start(None).await;
    rig.script().await.unwrap();
    let database = Database::Sqlite(rig.dir.path().join("inventory.db"));
    rig.boots.go_on_with(database).await.unwrap();
    let all = rig.stop().await;
    assert_eq!((all.len(), all[0].0.outcome), (1, Outcome::Booting));
}

#[tokio::test]
async fn the_blocks_of_a_transfer_that_were_sent_again_are_kept_with_it() {
    let rig = Rig::start(None).await;
    rig.dhcp(Asker::Firmware, true);
    for resent in [0, 12] {
        let loader = Transfer::of(Phase::Loader, "ipxe.efi".to_owned(), 1, 1, 1);
        rig.boots.loader(MACHINE, Transfer { resent, ..loader });
    }
    let store = rig.store.clone();
    let (boot, _) = rig.stop().await.remove(0);
    let (_, events) = store.boot(boot.id).await.unwrap().unwrap();
    let resent: Vec<_> = events.iter().map(|event| (event.phase, event.resent)).collect();
    let expected = [(Phase::Dhcp, None), (Phase::Loader, None), (Phase::Loader, Some(12))];
    assert_eq!(resent, expected);
}

#[tokio::test]
async fn one_boot_asks_many_times_and_is_told_once_per_asker() {
    let rig = Rig::start(None).await;
    for fresh in [true, true, false] {
        rig.dhcp(Asker::Firmware, fresh);
    }
    rig.loader();
    for fresh in [true, false] {
        rig.dhcp(Asker::Ipxe, fresh);
    }
    let ticket = rig.script().await.unwrap();
    assert_eq!(rig.script().await, Some(ticket));
    rig.dhcp(Asker::System, true);
    let boots = rig.stop().await;
    assert_eq!(boots.len(), 1);
    use Phase::{Dhcp, Loader, Script};
    assert_eq!(boots[0].1, [Dhcp, Loader, Dhcp, Script, Script, Dhcp]);
    assert_eq!(boots[0].0.address, Some(MACHINE));
}

#[tokio::test]
async fn a_boot_keeps_what_the_firmware_said_whatever_the_loader_says_later() {
    for (asker, told, kept) in [
        (Asker::Firmware, Some(Firmware::UefiX64Http), Firmware::UefiX64Http),
        // iPXE in the ROM of a network card, which says it in the address of its script only.
        (Asker::Ipxe, None, Firmware::UefiX64),
    ] {
        let rig = Rig::start(None).await;
        rig.dhcp_from(told, asker, true);
        rig.loader();
        rig.dhcp(Asker::Ipxe, true);
        rig.script().await.unwrap();
        let boots = rig.stop().await;
        assert_eq!(boots.len(), 1);
        assert_eq!(boots[0].0.firmware, Some(kept));
    }
}

#[tokio::test]
async fn a_machine_that_starts_again_gives_the_old_boot_up_and_its_secrets_with_it() {
    let rig = Rig::start(None).await;
    rig.dhcp(Asker::Firmware, true);
    rig.loader();
    let old = rig.script().await.unwrap();
    rig.dhcp(Asker::Firmware, true);
    let new = rig.script().await.unwrap();
    assert_ne!(old, new);
    let identity = |ticket: BootTicket| {
        let boots = rig.boots.clone();
        async move { boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await }
    };
    assert_eq!(identity(old).await, Err(BootsError::Unknown));
    assert_eq!(identity(new).await.unwrap().hostname, "n1");
    let boots = rig.stop().await;
    assert_eq!(
        boots.iter().map(|(boot, _)| boot.outcome).collect::<Vec<_>>(),
        [Outcome::Abandoned, Outcome::Booting]
    );
}

#[tokio::test]
async fn the_census_says_what_the_newest_boot_of_each_machine_came_to() {
    let rig = Rig::start(None).await;
    assert!(rig.boots.census().await.is_empty());
    rig.dhcp(Asker::Firmware, true);
    let ticket = rig.script().await.unwrap();
    let census = rig.boots.census().await;
    assert_eq!((census.len(), census[0].outcome), (1, Outcome::Booting));
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    let told = vec![report(Phase::Healthy, None)];
    reports(&rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    let census = rig.boots.census().await;
    assert_eq!((census.len(), census[0].outcome), (1, Outcome::Healthy));
    rig.stop().await;
}

#[tokio::test]
async fn a_server_that_starts_ends_what_the_one_before_left_and_nothing_else() {
    let rig = Rig::start(None).await;
    let healthy = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, healthy.boot, &healthy.machine_key).await.unwrap();
    let told = vec![report(Phase::Healthy, None)];
    reports(&rig, MACHINE, healthy.boot, &identity.token, told).await.unwrap();
    let left = rig.script().await.unwrap();
    let (snapshot, mac) = (rig.snapshot.clone(), rig.mac);
    let Rig { dir, store, boots, tracker, .. } = rig;
    drop(boots);
    tracker.await.unwrap();

    let (boots, tracker) = Boots::start(store.clone());
    let rig = Rig { dir, store, boots, tracker, snapshot, mac };
    let stale = rig.boots.identity(MACHINE, left.boot, &left.machine_key).await;
    assert_eq!(stale, Err(BootsError::Unknown));
    rig.script().await.unwrap();
    let boots = rig.stop().await;
    let outcomes: Vec<_> =
        boots.iter().map(|(boot, _)| (boot.outcome, boot.ended.is_some())).collect();
    assert_eq!(
        outcomes,
        [(Outcome::Healthy, true), (Outcome::Abandoned, true), (Outcome::Booting, false)]
    );
}

#[tokio::test]
async fn how_a_boot_ended_is_kept_when_the_next_begins_at_once() {
    let rig = Rig::start(None).await;
    let first = rig.script().await.unwrap();
    // Neither waits for an answer, so that the task finds both with the next request.
    rig.boots.loader_failed(MACHINE, first.boot, "no kernel".to_owned()).await;
    rig.dhcp(Asker::Firmware, true);
    let second = rig.script().await.unwrap();
    assert_ne!(first.boot, second.boot);
    let boots = rig.stop().await;
    let outcomes: Vec<_> = boots.iter().map(|(boot, _)| boot.outcome).collect();
    assert_eq!(outcomes, [Outcome::Failed, Outcome::Booting]);
}

#[tokio::test]
async fn a_machine_with_both_versions_of_ip_may_report_by_either() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let (boot, key) = (ticket.boot, ticket.machine_key.as_str());
    // Its system gets an address of IPv6 too, and one that it makes itself.
    let given: IpAddr = "fd77::100".parse().unwrap();
    let made: IpAddr = "fd77::5054:ff:fe00:1".parse().unwrap();
    let sighting = Sighting { mac: rig.mac, asker: Asker::System, firmware: None, uuid: None };
    let decision = decide(&rig.snapshot, &sighting);
    rig.boots.seen(&sighting, Some(&decision), false, Some(given));
    let token = rig.boots.identity(MACHINE, boot, key).await.unwrap().token;
    for peer in [MACHINE, given, made] {
        reports(&rig, peer, boot, &token, vec![report(Phase::Init, None)]).await.unwrap();
    }
    for stranger in ["fd77::101", "fd77::5054:ff:fe00:2"] {
        let told = vec![report(Phase::Healthy, None)];
        let stolen = reports(&rig, stranger.parse().unwrap(), boot, &token, told).await;
        assert_eq!(stolen, Err(BootsError::Forbidden), "{stranger}");
    }
    let boots = rig.stop().await;
    assert_eq!((boots[0].0.address, boots[0].0.outcome), (Some(MACHINE), Outcome::Booting));
}

#[tokio::test]
async fn secrets_work_from_the_address_of_the_machine_only() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let (boot, key) = (ticket.boot, ticket.machine_key.as_str());
    let other = IpAddr::from([10, 0, 0, 101]);
    let forbidden = Err(BootsError::Forbidden);
    assert_eq!(rig.boots.identity(other, boot, key).await, forbidden);
    assert_eq!(rig.boots.identity(MACHINE, boot, "").await, forbidden);
    let identity = rig.boots.identity(MACHINE, boot, key).await.unwrap();
    assert_eq!(identity.token.len(), 64);
    let told = || vec![report(Phase::Healthy, None)];
    let stolen = reports(&rig, other, boot, &identity.token, told()).await;
    assert_eq!(stolen, Err(BootsError::Forbidden));
    reports(&rig, MACHINE, boot, &identity.token, told()).await.unwrap();
    assert_eq!(rig.stop().await[0].0.outcome, Outcome::Healthy);
}

#[tokio::test]
async fn nothing_that_runs_on_a_machine_can_pose_as_its_loader() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    let told = vec![report(Phase::Init, Some(1))];
    reports(&rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    rig.boots.loader_failed(MACHINE, ticket.boot, "forged".to_owned()).await;
    let boots = rig.stop().await;
    assert_eq!(boots[0].1, [Phase::Script, Phase::Init]);
    assert_eq!(boots[0].0.outcome, Outcome::Booting);
}

#[tokio::test]
async fn a_machine_cannot_report_what_the_server_sees_for_itself() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    let report = [Phase::Kernel, Phase::Init, Phase::Failed].map(|phase| Report {
        phase,
        detail: "a\u{1b}[2Jb".to_owned(),
        millis: Some(1),
        took: None,
    });
    reports(&rig, MACHINE, ticket.boot, &identity.token, report.into()).await.unwrap();
    let (store, _dir) = (rig.store.clone(), rig.dir.clone());
    let boots = rig.stop().await;
    assert_eq!(boots[0].1, [Phase::Script, Phase::Init, Phase::Failed]);
    assert_eq!(boots[0].0.outcome, Outcome::Failed);
    let (_, events) = store.boot(ticket.boot).await.unwrap().unwrap();
    assert_eq!(events[1].detail, "a[2Jb");
}

#[tokio::test]
async fn a_refused_machine_has_one_boot_that_says_why() {
    let rig = Rig::start(Some(Arch::Arm64)).await;
    for _ in 0..3 {
        rig.dhcp(Asker::Firmware, true);
        rig.loader();
    }
    assert_eq!(rig.script().await, None);
    let (store, _dir) = (rig.store.clone(), rig.dir.clone());
    let boots = rig.stop().await;
    assert_eq!(boots.len(), 1);
    assert_eq!(boots[0].0.outcome, Outcome::Failed);
    let (_, events) = store.boot(boots[0].0.id).await.unwrap().unwrap();
    assert!(events[0].detail.starts_with("refused: "), "{events:?}");
    assert!(events[0].detail.contains("arm64"), "{events:?}");
}

#[tokio::test]
async fn what_a_machine_reports_late_is_put_where_it_belongs() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    // The times of the case lie ahead of those at which its messages are sent.
    let now = now_ms() + 60_000;
    let send = async |arrived, uptime, reports| {
        let told = Reports { uptime, reports };
        rig.boots.reports(arrived, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    };
    // Its first words waited for the network: they come after 3 s, and 40 ms late.
    let first = vec![report(Phase::Init, Some(1_000)), report(Phase::Network, Some(2_900))];
    send(now + 3_040, Some(3_000), first).await;
    let took = Report { took: Some(250), ..report(Phase::Onboot, Some(3_500)) };
    send(now + 4_000, Some(4_000), vec![took, report(Phase::Healthy, Some(3_990))]).await;
    // What comes after the end changes nothing about when it was.
    send(now + 5_000, Some(9_000), vec![report(Phase::Service, Some(4_500))]).await;
    let (store, _dir) = (rig.store.clone(), rig.dir.clone());
    rig.stop().await;
    let (boot, events) = store.boot(ticket.boot).await.unwrap().unwrap();
    assert_eq!(boot.kernel_start, Some(now));
    assert_eq!(boot.ended, Some(now + 3_990));
    let told: Vec<_> = events.iter().skip(1).map(|e| (e.phase, e.at - now, e.took)).collect();
    let expected = [
        (Phase::Init, 1_040, None),
        (Phase::Network, 2_940, None),
        (Phase::Onboot, 3_500, Some(250)),
        (Phase::Healthy, 3_990, None),
        (Phase::Service, 4_500, None),
    ];
    assert_eq!(told, expected);
}

#[test]
fn a_word_of_a_newer_system_is_kept_in_the_detail() {
    let reports: Vec<Report> = serde_json::from_str(
        r#"[{"phase":"attest","detail":"pcr 7","millis":5,"took":2,"more":1},{"phase":"attest"}]"#,
    )
    .unwrap();
    assert_eq!((reports[0].phase, reports[0].took), (Phase::Other, Some(2)));
    assert_eq!(reports[0].detail, "attest pcr 7");
    assert_eq!(reports[1].detail, "attest");
    assert!(serde_json::from_str::<Vec<Report>>(r#"[{"detail":"x"}]"#).is_err());
}

#[tokio::test]
async fn a_service_that_fails_for_ever_does_not_fill_the_disk() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let identity = rig.boots.identity(MACHINE, ticket.boot, &ticket.machine_key).await.unwrap();
    for _ in 0..50 {
        let told = vec![report(Phase::Failed, Some(1)); 10];
        reports(&rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    }
    let told = vec![report(Phase::Healthy, Some(2))];
    reports(&rig, MACHINE, ticket.boot, &identity.token, told).await.unwrap();
    let boots = rig.stop().await;
    assert_eq!(boots[0].1.len(), 401);
    assert_eq!(boots[0].0.outcome, Outcome::Healthy, "it came up after all");
}

#[tokio::test]
async fn only_the_machine_tells_about_itself_and_not_without_end() {
    let rig = Rig::start(None).await;
    let ticket = rig.script().await.unwrap();
    let boot = ticket.boot;
    let identity = rig.boots.identity(MACHINE, boot, &ticket.machine_key).await.unwrap();
    let token = identity.token.as_str();
    let facts = |peer, token| rig.boots.facts(peer, boot, token, "{}".to_owned());
    let other = IpAddr::from([10, 0, 0, 101]);
    assert_eq!(facts(other, token).await, Err(BootsError::Forbidden));
    assert_eq!(facts(MACHINE, "00").await, Err(BootsError::Forbidden));
    facts(MACHINE, token).await.unwrap();
    rig.boots.kernel_log(MACHINE, boot, token, "oops".to_owned()).await.unwrap();
    let machine = rig.store.boots(1).await.unwrap()[0].machine;
    assert_eq!(rig.store.facts(machine).await.unwrap().unwrap().boot, boot);
    assert_eq!(rig.store.kernel_log(boot).await.unwrap().as_deref(), Some("oops"));
    let mut last = Ok(());
    for _ in 0..32 {
        last = facts(MACHINE, token).await;
    }
    assert_eq!(last, Err(BootsError::TooOften));
    rig.stop().await;
}

#[tokio::test]
async fn packets_of_dhcp_are_told_one_by_one_and_not_without_end() {
    let rig = Rig::start(None).await;
    let sighting = Sighting {
        mac: rig.mac,
        asker: Asker::Firmware,
        firmware: Some(Firmware::UefiX64),
        uuid: None,
    };
    let decision = decide(&rig.snapshot, &sighting);
    let packet = |asked, answer, note| {
        let exchange = Some(Exchange { asked, answer, note });
        let fresh = asked == "DISCOVER";
        rig.boots.exchanged(&sighting, Some(&decision), fresh, Some(MACHINE), exchange);
    };
    for _ in 0..20 {
        packet("DISCOVER", Some("OFFER"), "address offered");
    }
    let (store, _dir) = (rig.store.clone(), rig.dir.clone());
    assert_eq!(rig.stop().await.len(), 1);
    let boot = store.boots(1).await.unwrap().remove(0);
    let events = store.boot(boot.id).await.unwrap().unwrap().1;
    assert_eq!(events.len(), 8);
    assert!(events.iter().all(|event| event.detail == "firmware DISCOVER, OFFER 10.0.0.100"));
}

#[tokio::test]
async fn firmware_that_gets_no_loader_and_tries_again_has_one_boot() {
    let rig = Rig::start(None).await;
    use Phase::{Absent, Broken, Dhcp, Loader};
    for _ in 0..3 {
        rig.dhcp(Asker::Firmware, true);
        rig.boots.loader(MACHINE, Transfer::absent("ipxe-amd64.efi", "there is no such file"));
        let broken = Transfer::of(Loader, "ipxe-amd64.efi".to_owned(), 5, 9, 100);
        rig.boots.loader(MACHINE, broken);
    }
    rig.loader();
    let (store, _dir) = (rig.store.clone(), rig.dir.clone());
    let boots = rig.stop().await;
    assert_eq!(boots.len(), 1);
    assert_eq!(boots[0].1, [Dhcp, Absent, Broken, Absent, Broken, Absent, Broken, Loader]);
    let events = store.boot(boots[0].0.id).await.unwrap().unwrap().1;
    assert_eq!(events[1].detail, "ipxe-amd64.efi: there is no such file");
    assert_eq!(events[2].detail, "ipxe-amd64.efi: broke off after 5 of 9 bytes");
    assert_eq!((events[2].bytes, events[2].millis), (Some(5), Some(100)));
}

#[tokio::test]
async fn files_that_are_asked_for_in_vain_do_not_use_up_the_timeline() {
    let rig = Rig::start(None).await;
    rig.dhcp(Asker::Firmware, true);
    for _ in 0..1_000 {
        rig.boots.loader(MACHINE, Transfer::absent("x", "there is no such file"));
    }
    rig.loader();
    let events = rig.stop().await.remove(0).1;
    assert_eq!((events.len(), events.last()), (42, Some(&Phase::Loader)));
}
