use std::os::unix::fs::PermissionsExt as _;

use kiln_types::{Arch, Digest, Mac};

use super::db::query;
use super::sightings::MOST_SIGHTINGS;
use super::test_stores::stores;
use super::*;
use crate::{
    Asker, Boot, BootEvent, BootId, Firmware, Lease, Machine, MachineId, NewBoot, NewMachine,
    Outcome, Phase, Sighting,
};

fn mac(last: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0, 0, last])
}

pub(super) fn machine(name: &str, macs: &[u8]) -> NewMachine {
    NewMachine::new(name, macs.iter().map(|last| mac(*last)))
}

pub(super) fn lease(last: u8, who: u8, expires: i64) -> Lease {
    Lease { address: [10, 0, 0, last].into(), mac: mac(who), expires, hostname: None }
}

pub(super) fn new_boot() -> NewBoot {
    NewBoot {
        machine: MachineId(3),
        machine_name: "n1".to_owned(),
        mac: mac(1),
        firmware: Some(Firmware::Other(27)),
        image: Some("demo:edge".parse().unwrap()),
        version: Some(Digest::from_bytes([7; 32])),
        arch: Some(Arch::Arm64),
        address: Some([10, 0, 0, 9].into()),
        started: 1_000,
    }
}

/// Numbers and writes a boot that begins.
pub(super) async fn open_boot(store: &Store, new: &NewBoot) -> Boot {
    let boot = new.clone().numbered(store.spare_boots().await.unwrap().take().unwrap());
    store.begin_boot(&boot).await.unwrap();
    boot
}

#[tokio::test]
async fn the_file_is_private_and_keeps_everything_across_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kiln.db");
    let store = Store::open(&path).await.unwrap();
    let mut spec = machine("n1", &[1, 2]);
    spec.uuid = Some("11223344-5566-7788-99aa-bbccddeeff00".to_owned());
    spec.arch = Some(Arch::Arm64);
    spec.image = Some("web:stable".parse().unwrap());
    spec.address = Some([10, 0, 0, 5].into());
    spec.cmdline = "quiet".to_owned();
    spec.labels = [("rack".to_owned(), "a \"1\"".to_owned())].into();
    spec.state_disk = Some("serial:ABC".parse().unwrap());
    let added = store.add_machine(&spec).await.unwrap();
    assert_eq!(added.spec, spec);
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{:?}", entry.path());
    }
    store.close().await;
    let store = Store::open(&path).await.unwrap();
    assert_eq!(store.machines().await.unwrap(), [added]);
}

#[tokio::test]
async fn a_machine_is_changed_as_a_whole_or_not_at_all() {
    for (_home, store) in stores().await {
        let first = store.add_machine(&machine("n1", &[1, 2])).await.unwrap();
        let other = store.add_machine(&machine("n2", &[3])).await.unwrap();
        let mut spec = machine("n1", &[2, 4]);
        spec.state_disk = Some("wwn:5000c500".parse().unwrap());
        let changed = store.change_machine(first.id, &spec, None).await.unwrap().unwrap();
        assert_eq!(changed, Machine { id: first.id, revision: 2, spec });
        assert_eq!(store.machines().await.unwrap(), [changed.clone(), other]);
        for taken in [machine("n2", &[2]), machine("n1", &[3])] {
            store.change_machine(first.id, &taken, None).await.unwrap_err();
            assert_eq!(store.machines().await.unwrap()[0], changed);
        }
        let nobody = store.change_machine(MachineId(77), &machine("n3", &[9]), None).await;
        assert_eq!(nobody.unwrap(), None);
        assert_eq!(store.machines().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn an_acknowledged_lease_is_synced_to_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("kiln.db")).await.unwrap();
    let Db::Sqlite(pool) = &store.db else { panic!("a file") };
    for (pragma, value) in [("PRAGMA journal_mode", "wal"), ("PRAGMA synchronous", "2")] {
        let row = sqlx::query(pragma).fetch_one(pool).await.unwrap();
        let found = sqlx::Row::try_get_unchecked::<String, _>(&row, 0).unwrap();
        assert_eq!(found, value, "{pragma}");
    }
    let [_, (_home, store)] = stores().await;
    let shown: (String,) = query("SHOW synchronous_commit").fetch_one(&store.db).await.unwrap();
    assert_eq!(shown.0, "on");
}

#[tokio::test]
async fn what_is_taken_is_named_with_its_owner() {
    for (_home, store) in stores().await {
        let mut first = machine("n1", &[1, 2]);
        first.address = Some([10, 0, 0, 5].into());
        first.address6 = Some("fd77::5".parse().unwrap());
        let first = store.add_machine(&first).await.unwrap();
        let mut same_address = machine("n2", &[3]);
        same_address.address = first.spec.address;
        let mut same_address6 = machine("n2", &[3]);
        same_address6.address6 = first.spec.address6;
        for (wrong, text) in [
            (machine("n1", &[3]), "there is a machine `n1` already; choose another name"),
            (machine("n2", &[3, 2]), "52:54:00:00:00:02 belongs to machine `n1` already"),
            (same_address6, "fd77::5 is reserved for machine `n1` already"),
            (same_address.clone(), "10.0.0.5 is reserved for machine `n1` already"),
        ] {
            let error = store.add_machine(&wrong).await.unwrap_err();
            assert!(error.is_conflict());
            assert_eq!(error.to_string(), text);
        }
        assert_eq!(store.machines().await.unwrap().len(), 1, "nothing is half-written");
        assert_eq!(store.remove_machine(first.id, None).await.unwrap(), Some(first.clone()));
        assert_eq!(store.remove_machine(first.id, None).await.unwrap(), None);
        let again = store.add_machine(&same_address).await.unwrap();
        assert!(again.id > first.id, "an id never names another machine");
        store.add_machine(&machine("n1", &[1, 2])).await.unwrap();
    }
}

#[tokio::test]
async fn what_no_machine_can_be_is_refused() {
    for (_home, store) in stores().await {
        let with = |change: fn(&mut NewMachine)| {
            let mut spec = machine("n1", &[1]);
            change(&mut spec);
            spec
        };
        let long = "a".repeat(64);
        for name in ["", "-a", "a-", "a.b", "A", "a b", "ä", long.as_str()] {
            let error = store.add_machine(&machine(name, &[1])).await.unwrap_err();
            assert!(matches!(error, StoreError::Name(_)), "{name}: {error}");
        }
        for (wrong, text) in [
            (machine("n1", &[]), "machine `n1` has no MAC address; give at least one"),
            (
                with(|spec| spec.macs = [Mac::new([0xff; 6])].into()),
                "ff:ff:ff:ff:ff:ff is not the MAC address of one interface",
            ),
            (
                with(|spec| spec.address = Some([224, 0, 0, 1].into())),
                "224.0.0.1 cannot be the address of a machine",
            ),
            (
                with(|spec| spec.address6 = "fe80::5".parse().ok()),
                "fe80::5 cannot be the address of a machine",
            ),
            (
                with(|spec| spec.cmdline = "a\nb".to_owned()),
                "kernel arguments `a\\nb` hold a control character, which the loader cannot pass on; \
             leave it out",
            ),
            (
                with(|spec| spec.labels = [("rack".to_owned(), "r\n1".to_owned())].into()),
                "machine `n1`: its label `rack` is longer than 256 bytes or has a control character",
            ),
            (
                with(|spec| spec.serial = Some("S".repeat(257))),
                "machine `n1`: its serial number is longer than 256 bytes or has a control character",
            ),
            (
                with(|spec| spec.serial = Some(String::new())),
                "machine `n1`: its serial number is empty; leave it out",
            ),
            (
                with(|spec| spec.asset_tag = Some(" ".to_owned())),
                "machine `n1`: its asset tag is empty; leave it out",
            ),
            (
                with(|spec| spec.uuid = Some("4c4c4544".to_owned())),
                "machine `n1`: `4c4c4544` is no UUID; write it as 4c4c4544-0042-3510-8052-b4c04f4a3132",
            ),
            (
                with(|spec| spec.cmdline = "x=${y}".to_owned()),
                "kernel arguments `x=${y}` hold `${`, which the loader cannot pass on; leave it out",
            ),
        ] {
            let error = store.add_machine(&wrong).await.unwrap_err();
            assert!(error.is_invalid() && !error.is_conflict());
            assert_eq!(error.to_string(), text);
        }
        store.add_machine(&machine(&"a".repeat(63), &[1])).await.unwrap();
    }
}

#[test]
fn a_number_that_an_older_kiln_took_stays_until_it_is_changed() {
    let mut now = machine("n1", &[1]);
    (now.uuid, now.serial) = (Some("none".to_owned()), Some(String::new()));
    let mut next = NewMachine { asset_tag: Some("A7".to_owned()), ..now.clone() };
    machines::check_numbers(&next, Some(&now)).unwrap();
    assert!(machines::check_numbers(&next, None).is_err());
    next.uuid = Some("other".to_owned());
    assert!(machines::check_numbers(&next, Some(&now)).is_err());
}

#[tokio::test]
async fn a_lease_replaces_what_its_address_and_its_interface_had() {
    for (_home, store) in stores().await {
        store.commit_leases(&[]).await.unwrap();
        store.commit_leases(&[lease(10, 1, 100), lease(11, 2, 100)]).await.unwrap();
        let mut renewed = lease(10, 1, 200);
        renewed.hostname = Some("n1".to_owned());
        store.commit_leases(std::slice::from_ref(&renewed)).await.unwrap();
        assert_eq!(store.leases().await.unwrap(), [renewed, lease(11, 2, 100)]);
        store.commit_leases(&[lease(12, 1, 300)]).await.unwrap();
        assert_eq!(store.leases().await.unwrap(), [lease(11, 2, 100), lease(12, 1, 300)]);
        store.commit_leases(&[lease(11, 1, 400), lease(13, 3, 1), lease(14, 3, 2)]).await.unwrap();
        assert_eq!(store.leases().await.unwrap(), [lease(11, 1, 400), lease(14, 3, 2)]);
    }
}

#[tokio::test]
async fn many_tasks_write_at_once_without_an_error() {
    for (_home, store) in stores().await {
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..40 {
            let store = store.clone();
            tasks.spawn(async move { store.commit_leases(&[lease(n, n, 1)]).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
        assert_eq!(store.leases().await.unwrap().len(), 40);
    }
}

#[tokio::test]
async fn a_boot_and_its_timeline_are_read_back() {
    for (_home, store) in stores().await {
        let mut boot = open_boot(&store, &new_boot()).await;
        let second = open_boot(&store, &new_boot()).await;
        assert_eq!(boot.outcome, Outcome::Booting);
        let events = [
            BootEvent::new(5, Phase::Dhcp, ""),
            BootEvent {
                at: 4,
                phase: Phase::Kernel,
                detail: "vmlinuz".to_owned(),
                bytes: Some(1 << 40),
                millis: Some(u64::MAX),
                took: Some(7),
                resent: Some(12),
            },
        ];
        store.add_events(boot.id, &events[..1]).await.unwrap();
        store.add_events(boot.id, &events[1..]).await.unwrap();
        boot.outcome = Outcome::Healthy;
        boot.ended = Some(9);
        boot.firmware = None;
        boot.kernel_start = Some(6);
        store.update_boot(&boot).await.unwrap();

        let (read, timeline) = store.boot(boot.id).await.unwrap().unwrap();
        assert_eq!(read, boot);
        assert_eq!(timeline[0], events[0]);
        assert_eq!(timeline[1].bytes, events[1].bytes);
        assert_eq!((timeline[1].took, timeline[1].resent), (Some(7), Some(12)));
        assert_eq!(
            timeline[1].millis,
            Some(9_223_372_036_854_775_807),
            "a number too large is bounded"
        );
        assert_eq!(store.boots(1).await.unwrap(), std::slice::from_ref(&second));
        assert_eq!(store.boots(10).await.unwrap(), [second, boot]);
        assert_eq!(store.boot(BootId(99)).await.unwrap(), None);
        let error = store.add_events(BootId(99), &events).await.unwrap_err();
        assert!(error.is_lasting(), "trying again does not help: {error:?}");
    }
}

#[tokio::test]
async fn every_phase_and_outcome_is_read_back() {
    use Phase::{
        Dhcp, Failed, Healthy, Init, Kernel, Link, Loader, Modules, Network, Onboot, Other, Script,
        Segment, Service, Volumes,
    };
    for (_home, store) in stores().await {
        let mut boot = open_boot(&store, &new_boot()).await;
        let phases = [
            Dhcp, Loader, Script, Kernel, Segment, Init, Other, Modules, Link, Network, Volumes,
            Onboot, Service, Healthy, Failed,
        ];
        assert!(phases.is_sorted());
        let event = |phase| BootEvent::new(1, phase, "");
        store.add_events(boot.id, &phases.map(event)).await.unwrap();
        let (_, events) = store.boot(boot.id).await.unwrap().unwrap();
        assert_eq!(events.iter().map(|event| event.phase).collect::<Vec<_>>(), phases);
        query("UPDATE boot_events SET phase = 'later' WHERE phase = 'init'")
            .execute(&store.db)
            .await
            .unwrap();
        let (_, events) = store.boot(boot.id).await.unwrap().unwrap();
        assert_eq!(events[5].phase, Other, "a newer program wrote it");
        for outcome in [Outcome::Healthy, Outcome::Failed, Outcome::Abandoned, Outcome::Booting] {
            boot.outcome = outcome;
            store.update_boot(&boot).await.unwrap();
            assert_eq!(store.boots(1).await.unwrap()[0].outcome, outcome);
        }
    }
}

#[tokio::test]
async fn the_last_sighting_is_that_of_who_wants_to_boot() {
    for (_home, store) in stores().await {
        let seen =
            |asker, firmware| Sighting { mac: mac(1), asker, firmware, uuid: Some("u".into()) };
        assert_eq!(store.last_sighting(mac(1)).await.unwrap(), None);
        let system = seen(Asker::System, None);
        store.record_sighting(&system, 10).await.unwrap();
        assert_eq!(store.last_sighting(mac(1)).await.unwrap(), Some((system.clone(), 10)));
        let rom = seen(Asker::Firmware, Some(Firmware::UefiArm64Http));
        store.record_sighting(&rom, 20).await.unwrap();
        store.record_sighting(&rom, 25).await.unwrap();
        store.record_sighting(&system, 30).await.unwrap();
        assert_eq!(store.last_sighting(mac(1)).await.unwrap(), Some((rom, 25)));
        let ipxe = seen(Asker::Ipxe, Some(Firmware::UefiArm64));
        store.record_sighting(&ipxe, 40).await.unwrap();
        assert_eq!(store.last_sighting(mac(1)).await.unwrap(), Some((ipxe, 40)));
    }
}

#[tokio::test]
async fn made_up_addresses_do_not_fill_the_disk() {
    for (_home, store) in stores().await {
        query(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10050) \
         INSERT INTO sightings (mac, asker, first, last, times) SELECT CAST(i AS TEXT), 'system', i, i, 1 FROM n",
    )
    .execute(&store.db)
    .await
    .unwrap();
        let seen = Sighting {
            mac: mac(1),
            asker: Asker::Ipxe,
            firmware: Some(Firmware::Bios),
            uuid: None,
        };
        store.record_sighting(&seen, 20_000).await.unwrap();
        let (rows,): (i64,) =
            query("SELECT count(*) FROM sightings").fetch_one(&store.db).await.unwrap();
        assert_eq!(rows, MOST_SIGHTINGS);
        assert!(store.last_sighting(mac(1)).await.unwrap().is_some());
    }
}

#[tokio::test]
async fn a_file_that_cannot_be_used_is_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("other.db");
    let content = "this is a letter, not a database\n".repeat(100);
    std::fs::write(&path, &content).unwrap();
    let error = Store::open(&path).await.unwrap_err();
    assert!(matches!(error, StoreError::NotADatabase { .. }), "{error:?}");
    assert!(error.to_string().ends_with("put a backup in its place"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), content);

    let missing = dir.path().join("none/kiln.db");
    let error = Store::open(&missing).await.unwrap_err();
    assert!(matches!(error, StoreError::Open { .. }), "{error:?}");
    assert!(!missing.exists());
}

#[tokio::test]
async fn a_row_that_makes_no_sense_names_the_value() {
    for (_home, store) in stores().await {
        store.add_machine(&machine("n1", &[1])).await.unwrap();
        query("UPDATE machines SET spec = 'sparc'").execute(&store.db).await.unwrap();
        assert_eq!(
            store.machines().await.unwrap_err().to_string(),
            "the database holds `sparc` where a machine belongs; \
         correct it or put a backup in its place"
        );
    }
}

#[tokio::test]
async fn facts_are_the_last_that_a_machine_told_and_go_with_it() {
    for (_home, store) in stores().await {
        let id = store.add_machine(&machine("n1", &[1])).await.unwrap().id;
        assert_eq!(store.facts(id).await.unwrap(), None);
        for (boot, facts) in [(1, "{}"), (2, r#"{"cpu":{}}"#)] {
            let told = StoredFacts { boot: BootId(boot), at: boot * 10, facts: facts.to_owned() };
            store.set_facts(id, &told).await.unwrap();
            assert_eq!(store.facts(id).await.unwrap(), Some(told.clone()));
            store.set_facts(MachineId(99), &told).await.unwrap();
        }
        assert_eq!(store.facts(MachineId(99)).await.unwrap(), None);
        store.remove_machine(id, None).await.unwrap();
        assert_eq!(store.facts(id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_boot_keeps_its_first_kernel_log_and_a_machine_only_its_last_ones() {
    for (_home, store) in stores().await {
        let other = open_boot(&store, &NewBoot { machine: MachineId(4), ..new_boot() }).await;
        store.add_kernel_log(other.id, 1, "other").await.unwrap();
        let mut boots = Vec::new();
        for number in 0..7 {
            let boot = open_boot(&store, &new_boot()).await.id;
            store.add_kernel_log(boot, 1, &format!("log {number}")).await.unwrap();
            store.add_kernel_log(boot, 2, "again").await.unwrap();
            boots.push(boot);
        }
        let mut kept = Vec::new();
        for boot in boots {
            kept.push(store.kernel_log(boot).await.unwrap());
        }
        let expected = [None, None, Some("log 2"), Some("log 3"), Some("log 4"), Some("log 5")];
        assert_eq!(kept[..6], expected.map(|log| log.map(str::to_owned)));
        assert_eq!(store.kernel_log(other.id).await.unwrap().as_deref(), Some("other"));
        store.add_kernel_log(BootId(99), 1, "").await.unwrap_err();

        for number in 0..facts::LOGS {
            let machine = MachineId(100 + number);
            let boot = open_boot(&store, &NewBoot { machine, ..new_boot() }).await.id;
            store.add_kernel_log(boot, 1, "").await.unwrap();
        }
        assert_eq!(store.kernel_log(other.id).await.unwrap(), None);
    }
}

#[tokio::test]
async fn healthy_boots_of_a_machine_are_found_from_the_newest_on() {
    for (_home, store) in stores().await {
        let mut ids = Vec::new();
        for (machine, outcome) in [
            (3, Outcome::Healthy),
            (3, Outcome::Failed),
            (4, Outcome::Healthy),
            (3, Outcome::Healthy),
        ] {
            let new = NewBoot { machine: MachineId(machine), ..new_boot() };
            let mut boot = open_boot(&store, &new).await;
            boot.outcome = outcome;
            store.update_boot(&boot).await.unwrap();
            ids.push(boot.id);
        }
        let last = open_boot(&store, &new_boot()).await.id;
        let before =
            async |limit| store.healthy_boots_before(MachineId(3), last, limit).await.unwrap();
        assert_eq!(before(10).await, [ids[3], ids[0]]);
        assert_eq!(before(1).await, [ids[3]]);
        assert!(store.healthy_boots_before(MachineId(3), ids[0], 9).await.unwrap().is_empty());
    }
}
