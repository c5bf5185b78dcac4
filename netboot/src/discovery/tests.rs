use std::net::Ipv4Addr;

use kiln_builder::store::Store as Artifacts;
use kiln_inventory::{
    Asker, DiscoveryRule, DiscoveryState, Expected, Firmware, NewMachine, Store, UnknownMachines,
};

use super::*;

struct Rig {
    _dir: tempfile::TempDir,
    store: Store,
    view: Arc<View>,
    keeper: Keeper,
    discovery: Discovery,
}

impl Rig {
    async fn start(most: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("inventory.db")).await.unwrap();
        let artifacts = Artifacts::open(dir.path().join("store")).unwrap();
        let view = View::load(store.clone(), artifacts, UnknownMachines::Hold, None);
        let view = Arc::new(view.await.unwrap());
        let (discovery, keeper) = Discovery::new(view.clone(), Vendors::default(), most);
        Self { _dir: dir, store, view, keeper, discovery }
    }

    async fn rule(&self, json: serde_json::Value) {
        let rule: DiscoveryRule = serde_json::from_value(json).unwrap();
        self.store.add(&rule).await.unwrap();
    }

    fn see(&self, last: u8, uuid: Option<&str>) {
        let (mac, uuid) = (mac(last), uuid.map(str::to_owned));
        let firmware = Some(Firmware::UefiX64);
        let sighting = Sighting { mac, asker: Asker::Firmware, firmware, uuid };
        let place = Place {
            subnet: Some("10.0.0.0/24".to_owned()),
            circuit_id: format!("port{last}").parse().ok(),
            address: Some(Ipv4Addr::new(10, 0, 0, last).into()),
            ..Place::default()
        };
        self.discovery.seen(&sighting, place);
    }

    async fn kept(&mut self) {
        while let Ok(message) = self.keeper.messages.try_recv() {
            self.keeper.take(message);
        }
        self.keeper.write().await;
    }

    async fn names(&self) -> Vec<String> {
        self.store.machines().await.unwrap().into_iter().map(|m| m.spec.name).collect()
    }
}

fn mac(last: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0, 0, last])
}

#[tokio::test]
async fn machines_are_approved_by_a_rule_in_the_order_in_which_they_came_and_boot() {
    let mut rig = Rig::start(100).await;
    rig.rule(serde_json::json!({"name": "rack1", "selector": "vendor=qemu,circuit-id",
        "action": "approve", "machine-name": "rack1-{n:02}", "labels": {"rack": "r1"}}))
        .await;
    for last in [3, 1, 2] {
        rig.see(last, None);
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
    rig.kept().await;
    let machines = rig.store.machines().await.unwrap();
    let found: Vec<_> =
        machines.iter().map(|m| (m.spec.name.as_str(), *m.spec.macs.first().unwrap())).collect();
    assert_eq!(found, [("rack1-01", mac(3)), ("rack1-02", mac(1)), ("rack1-03", mac(2))]);
    assert!(rig.view.snapshot().machine_by_mac(mac(1)).is_some(), "it is served at once");
    assert!(machines.iter().all(|machine| machine.spec.state_disk.is_none()));
    assert!(rig.store.discovered().await.unwrap().is_empty());
    let changes = rig.store.changes_since(0, 99).await.unwrap();
    assert!(changes.iter().skip(1).all(|change| change.actor == "discovery rule rack1"));
}

#[tokio::test]
async fn of_two_boxes_that_tell_one_uuid_a_rule_approves_neither_a_second_time() {
    let mut rig = Rig::start(100).await;
    let uuid = "4c4c4544-0042-3510-8052-b4c04f4a3132";
    let rule = serde_json::json!({"name": "all", "selector": "*", "action": "approve",
        "machine-name": "n{n}"});
    rig.rule(rule).await;
    rig.see(1, Some(uuid));
    rig.kept().await;
    rig.see(2, Some(uuid));
    rig.kept().await;
    assert_eq!(rig.names().await, ["n1"]);
    let entry = rig.store.discovered().await.unwrap().remove(0).document;
    assert_eq!((entry.state, entry.rule.as_deref()), (DiscoveryState::Held, Some("all")));
    let note = entry.note.unwrap();
    assert!(note.contains("may be n1 with a new network card: the same UUID"), "{note}");
}

#[tokio::test]
async fn what_is_expected_at_a_port_becomes_that_machine() {
    let mut rig = Rig::start(100).await;
    let json = r#"{"name":"web-7","circuit-id":"port7","image":"web"}"#;
    let expected: Expected = serde_json::from_str(json).unwrap();
    rig.store.add(&expected).await.unwrap();
    rig.see(8, None);
    rig.see(7, None);
    rig.kept().await;
    assert_eq!(rig.names().await, ["web-7"]);
    assert!(rig.store.all::<Expected>().await.unwrap().is_empty(), "it has come");
    assert_eq!(rig.store.discovered().await.unwrap().len(), 1);
    let changes = rig.store.changes_since(0, 99).await.unwrap();
    assert_eq!(changes.last().unwrap().actor, "expected machine web-7");
}

#[tokio::test]
async fn a_rule_ignores_what_is_no_machine_of_ours_and_what_a_person_said_stays() {
    let mut rig = Rig::start(100).await;
    rig.see(1, None);
    rig.kept().await;
    let rule = serde_json::json!({"name": "none", "selector": "*", "action": "ignore"});
    rig.rule(rule).await;
    rig.see(1, None);
    rig.see(2, None);
    rig.kept().await;
    let states: Vec<_> =
        rig.store.discovered().await.unwrap().iter().map(|e| e.document.state).collect();
    let [waiting, ignored] = [DiscoveryState::Waiting, DiscoveryState::Ignored];
    assert_eq!(states, [waiting, ignored], "each is looked at once, when it appears");
    let snapshot = rig.view.snapshot();
    assert!(snapshot.ignored.contains(&mac(2)) && !snapshot.ignored.contains(&mac(1)));
}

#[tokio::test]
async fn a_flood_of_made_up_machines_grows_neither_memory_nor_the_inventory() {
    let mut rig = Rig::start(10).await;
    rig.store.add_machine(&NewMachine::new("n1", [mac(1)])).await.unwrap();
    for _ in 0..3 {
        for number in 0..2000_u32 {
            let [_, a, b, c] = number.to_be_bytes();
            let mac = Mac::new([2, 0, 0, a, b, c]);
            let sighting = Sighting { mac, asker: Asker::Ipxe, firmware: None, uuid: None };
            let glimpse = Glimpse { at: 1, times: 1, sighting, place: Place::default() };
            rig.keeper.take(Message::Seen(Box::new(glimpse)));
        }
        assert_eq!(rig.keeper.waiting.len(), MOST_WAITING);
        rig.keeper.write().await;
        assert_eq!(rig.store.discovered().await.unwrap().len(), 10);
    }
    for number in 0..5000 {
        rig.keeper.take(Message::News(number));
    }
    assert_eq!(rig.keeper.news.len(), MOST_WAITING);
    assert_eq!(rest_after(Duration::ZERO), REST);
    assert_eq!(rest_after(Duration::from_secs(60)), LONGEST_REST);
}

#[tokio::test]
async fn a_machine_is_recognised_by_what_its_system_said_of_it() {
    use kiln_inventory::{BootId, StoredFacts, Traits};
    use kiln_types::facts::Facts;

    let rig = Rig::start(10).await;
    let machine = rig.store.add_machine(&NewMachine::new("n1", [mac(1)])).await.unwrap();
    rig.view.refresh().await.unwrap();
    let facts = |serial: &str| -> Facts {
        serde_json::from_value(serde_json::json!({"system": {"serial": serial}})).unwrap()
    };
    let box_with = |serial: &str| Traits::seen(mac(9), None).with_facts(&facts(serial));
    let like = async |serial: &str| {
        rig.view.recogniser().await.unwrap().recognise(&box_with(serial)).len()
    };
    assert_eq!(like("CZ-4711-A").await, 0);
    let told = |at, serial| StoredFacts {
        boot: BootId(1),
        at,
        facts: serde_json::to_string(&facts(serial)).unwrap(),
    };
    rig.store.set_facts(machine.id, &told(5, "CZ-4711-A")).await.unwrap();
    assert_eq!((like("CZ-4711-A").await, like("CZ-4711-B").await), (1, 0));
    rig.store.set_facts(machine.id, &told(6, "CZ-4711-B")).await.unwrap();
    assert_eq!((like("CZ-4711-A").await, like("CZ-4711-B").await), (0, 1));
}

#[tokio::test]
async fn rules_go_by_what_the_firmware_calls_itself_whatever_loader_and_system_say() {
    let mut rig = Rig::start(100).await;
    rig.rule(serde_json::json!({"name": "by-class", "action": "ignore", "priority": 1,
        "selector": "vendor-class=\"PXEClient:Arch:00007:UNDI:003016\",!duid"}))
        .await;
    rig.rule(serde_json::json!({"name": "by-duid", "action": "approve",
        "selector": "duid in (0004aabb,0004ccdd)", "machine-name": "six-{duid}"}))
        .await;
    let see = |discovery: &Discovery, last: u8, asker, class: &str, duid: Option<&str>| {
        let firmware = Some(Firmware::UefiX64);
        let sighting = Sighting { mac: mac(last), asker, firmware, uuid: None };
        let vendor_class = Some(class.to_owned());
        let duid = duid.map(|duid| duid.parse().unwrap());
        discovery.seen(&sighting, Place { vendor_class, duid, ..Place::default() });
    };
    see(&rig.discovery, 1, Asker::Firmware, "PXEClient:Arch:00007:UNDI:003016", None);
    see(&rig.discovery, 2, Asker::Firmware, "PXEClient:Arch:00007:UNDI:003016", Some("0004ccdd"));
    see(&rig.discovery, 3, Asker::Firmware, "HTTPClient", Some("0004eeff"));
    see(&rig.discovery, 4, Asker::Ipxe, "iPXE", Some("0004eeff"));
    rig.kept().await;
    assert_eq!(rig.names().await, ["six-0004ccdd"]);
    // More is known: what the firmware says counts, and nobody is asked again for what comes after it.
    see(&rig.discovery, 4, Asker::Firmware, "PXEClient:Arch:00007:UNDI:003016", Some("0004aabb"));
    rig.kept().await;
    assert_eq!(rig.names().await, ["six-0004ccdd", "six-0004aabb"]);
    see(&rig.discovery, 3, Asker::Ipxe, "PXEClient:Arch:00007:UNDI:003016", Some("0004aabb"));
    rig.kept().await;
    let left = rig.store.discovered().await.unwrap();
    let told: Vec<_> = left
        .iter()
        .map(|entry| (entry.document.state, entry.document.vendor_class.as_deref().unwrap()))
        .collect();
    let class = "PXEClient:Arch:00007:UNDI:003016";
    assert_eq!(told, [(DiscoveryState::Ignored, class), (DiscoveryState::Waiting, "HTTPClient")]);
}
