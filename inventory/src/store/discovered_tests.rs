use kiln_types::Mac;
use kiln_types::facts::{Facts, NicFacts};

use super::test_stores::stores;
use crate::{
    Asker, BootId, Discovered, DiscoveryState, Firmware, Glimpse, MachineId, NewMachine, Place,
    SeenFacts, Sighting,
};

const UUID: &str = "4c4c4544-0042-3510-8052-b4c04f4a3132";
const TURNED: &str = "44454c4c-4200-1035-8052-b4c04f4a3132";

fn mac(last: u8) -> Mac {
    Mac::new([0x52, 0x54, 0, 0, 0, last])
}

fn seen(last: u8, uuid: Option<&str>, at: i64) -> Glimpse {
    let (asker, firmware) = (Asker::Firmware, Some(Firmware::UefiX64));
    let uuid = uuid.map(str::to_owned);
    let place = Place { subnet: Some("10.0.0.0/24".to_owned()), ..Place::default() };
    let sighting = Sighting { mac: mac(last), asker, firmware, uuid };
    Glimpse { at, times: 1, sighting, place }
}

#[tokio::test]
async fn one_box_is_one_entry_whichever_card_and_order_of_bytes_it_tells() {
    for (_home, store) in stores().await {
        let first = store.take_glimpses(&[seen(1, Some(UUID), 10)], 100).await.unwrap();
        assert_eq!(first.len(), 1);
        let again = store.take_glimpses(&[seen(1, Some(UUID), 20)], 100).await.unwrap();
        assert!(again.is_empty(), "nothing new");
        let second = store.take_glimpses(&[seen(2, Some(TURNED), 30)], 100).await.unwrap();
        assert_eq!(second, first, "the same box by another card");
        let zero = "00000000-0000-0000-0000-000000000000";
        for last in [3, 4] {
            store.take_glimpses(&[seen(last, Some(zero), 40)], 100).await.unwrap();
        }
        let all = store.discovered().await.unwrap();
        assert_eq!(all.len(), 3, "a void UUID joins nothing");
        let one = &all[0].document;
        assert_eq!((one.macs.len(), one.first, one.last, one.times), (2, 10, 30, 3));
        let facts = Facts {
            nics: [3, 4]
                .map(|last| NicFacts { mac: mac(last).to_string(), ..Default::default() })
                .into(),
            ..Facts::default()
        };
        let told = SeenFacts { boot: BootId(7), at: 50, facts };
        assert!(store.describe_discovered(mac(3), told.clone()).await.unwrap().is_some());
        assert_eq!(store.describe_discovered(mac(3), told.clone()).await.unwrap(), None);
        let all = store.discovered().await.unwrap();
        assert_eq!(all.len(), 2, "what it says of itself joins its cards");
        assert_eq!(all[1].document.macs, [mac(3), mac(4)].into());
        assert_eq!(all[1].document.facts, Some(told));
    }
}

#[tokio::test]
async fn a_flood_pushes_out_what_was_not_seen_for_long_but_nothing_that_a_person_has_marked() {
    for (_home, store) in stores().await {
        store.take_glimpses(&[seen(1, None, 1), seen(2, None, 2)], 5).await.unwrap();
        let mut edit = store.edit().await.unwrap();
        let id = store.discovered().await.unwrap()[0].id;
        let now = edit.discovered(id, None).await.unwrap().unwrap();
        let ignored = Discovered { state: DiscoveryState::Ignored, ..now.document.clone() };
        edit.change_discovered(&now, &ignored).await.unwrap();
        edit.commit().await.unwrap();
        let flood: Vec<Glimpse> = (10..60).map(|last| seen(last, None, i64::from(last))).collect();
        for part in flood.chunks(7) {
            store.take_glimpses(part, 5).await.unwrap();
        }
        let all = store.discovered().await.unwrap();
        assert_eq!(all.len(), 5);
        assert_eq!(all[0].document.macs, [mac(1)].into(), "it was marked");
        assert_eq!(store.ignored_macs().await.unwrap(), [mac(1)]);
        let counts = store.count_discovered().await.unwrap();
        assert_eq!(counts, [("waiting", 4), ("held", 0), ("ignored", 1)]);
        let last = all.last().unwrap();
        assert_eq!(last.document.macs, [mac(59)].into());
        let changes = store.changes_since(0, 100).await.unwrap();
        assert_eq!(changes.len(), 1, "the log tells what people did, and nothing of the flood");
    }
}

#[tokio::test]
async fn an_approved_entry_is_a_machine_with_the_facts_and_boots_that_it_had() {
    for (_home, store) in stores().await {
        store.take_glimpses(&[seen(1, Some(UUID), 1)], 5).await.unwrap();
        let told = SeenFacts { boot: BootId(1), at: 5, facts: Facts::default() };
        store.describe_discovered(mac(1), told).await.unwrap();
        let now = store.discovered().await.unwrap().remove(0);
        let spec = NewMachine::new("n1", [mac(1)]);
        let mut edit = store.edit().await.unwrap();
        edit.approve(&now, &spec).await.unwrap();
        drop(edit);
        assert_eq!(store.discovered().await.unwrap().len(), 1, "it was a dry run");
        let mut edit = store.edit().await.unwrap();
        let machine = edit.approve(&now, &spec).await.unwrap();
        edit.commit().await.unwrap();
        assert!(store.discovered().await.unwrap().is_empty());
        assert_eq!(store.facts(machine.id).await.unwrap().unwrap().at, 5);
        let nouns: Vec<String> =
            store.changes_since(0, 9).await.unwrap().into_iter().map(|c| c.noun).collect();
        assert_eq!(nouns, ["discovery", "machine"]);
        store.take_glimpses(&[seen(1, Some(UUID), 9)], 5).await.unwrap();
        assert!(store.discovered().await.unwrap().is_empty(), "it is known now");
        // Another card of it is a new entry, and becomes its own only when someone says so.
        store.take_glimpses(&[seen(2, Some(UUID), 9)], 5).await.unwrap();
        let now = store.discovered().await.unwrap().remove(0);
        let mut edit = store.edit().await.unwrap();
        let merged = edit.merge_discovered(&now, machine.id).await.unwrap().unwrap();
        edit.commit().await.unwrap();
        assert_eq!(merged.spec.macs, [mac(1), mac(2)].into());
        assert_eq!(merged.spec.uuid.as_deref(), Some(UUID));
        assert!(store.discovered().await.unwrap().is_empty());
        store.take_glimpses(&[seen(3, None, 9)], 5).await.unwrap();
        store.add_machine(&NewMachine::new("n3", [mac(3)])).await.unwrap();
        assert!(store.discovered().await.unwrap().is_empty(), "whoever adds it");
        assert!(MachineId::of_unknown(mac(0)).is_unknown() && !machine.id.is_unknown());
    }
}

#[tokio::test]
async fn what_rules_say_does_not_undo_what_a_person_said_meanwhile() {
    for (_home, store) in stores().await {
        store.take_glimpses(&[seen(1, None, 1)], 5).await.unwrap();
        let now = store.discovered().await.unwrap().remove(0);
        let ignored = Discovered { state: DiscoveryState::Ignored, ..now.document.clone() };
        let mut edit = store.edit().await.unwrap();
        edit.change_discovered(&now, &ignored).await.unwrap();
        edit.commit().await.unwrap();
        let held = Discovered { state: DiscoveryState::Held, ..now.document.clone() };
        assert!(!store.judge_discovered(now.id, now.revision, &held).await.unwrap());
        let after = store.discovered().await.unwrap().remove(0);
        assert_eq!((after.document.state, after.revision), (DiscoveryState::Ignored, 2));
        assert!(store.judge_discovered(now.id, 2, &held).await.unwrap());
        assert!(store.ignored_macs().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn what_a_rule_ignores_is_told_to_the_other_servers_though_it_has_no_number() {
    let [_, (home, store)] = stores().await;
    let other = home.open().await;
    let mut news = store.watch_changes();
    let follower = store.clone();
    let task = tokio::spawn(async move { follower.follow_changes().await });
    let long = std::time::Duration::from_secs(60);
    // It follows once it has heard of this.
    other.add_machine(&NewMachine::new("n9", [mac(9)])).await.unwrap();
    tokio::time::timeout(long, news.wait_for(|last| *last == 1)).await.unwrap().unwrap();
    other.take_glimpses(&[seen(1, None, 1)], 5).await.unwrap();
    let now = other.discovered().await.unwrap().remove(0);
    news.mark_unchanged();
    let ignored = Discovered { state: DiscoveryState::Ignored, ..now.document.clone() };
    assert!(other.judge_discovered(now.id, now.revision, &ignored).await.unwrap());
    tokio::time::timeout(long, news.changed()).await.expect("nobody is told").unwrap();
    assert_eq!(*news.borrow(), 1);
    assert_eq!(store.ignored_macs().await.unwrap(), [mac(1)]);
    task.abort();
}

#[tokio::test]
async fn what_a_machine_says_of_itself_after_it_was_approved_is_the_machine_s() {
    for (_home, store) in stores().await {
        let id = store.take_glimpses(&[seen(1, None, 1)], 5).await.unwrap()[0];
        let mut edit = store.edit().await.unwrap();
        let now = edit.discovered(id, None).await.unwrap().unwrap();
        let machine = edit.approve(&now, &NewMachine::new("n1", [mac(1)])).await.unwrap();
        edit.commit().await.unwrap();
        let told = SeenFacts { boot: BootId(7), at: 50, facts: Facts::default() };
        assert_eq!(store.describe_discovered(mac(1), told.clone()).await.unwrap(), None);
        let kept = store.facts(machine.id).await.unwrap().unwrap();
        assert_eq!((kept.boot, kept.at), (told.boot, told.at));
        assert_eq!(serde_json::from_str::<Facts>(&kept.facts).unwrap(), told.facts);
        // One that is neither waiting nor there tells nobody.
        assert_eq!(store.describe_discovered(mac(9), told).await.unwrap(), None);
    }
}

#[tokio::test]
async fn what_a_person_says_is_not_written_over_by_what_is_seen_meanwhile() {
    for (home, store) in stores().await {
        let (other, most) = (home.open().await, 100);
        let id = store.take_glimpses(&[seen(1, None, 10)], most).await.unwrap()[0];
        let mut edit = store.edit().await.unwrap();
        let now = edit.discovered(id, None).await.unwrap().unwrap();
        let ignored = Discovered { state: DiscoveryState::Ignored, ..now.document.clone() };
        edit.change_discovered(&now, &ignored).await.unwrap();
        // Another server hears the machine while that is not written yet.
        let glimpse = [seen(1, None, 20)];
        let judged = Discovered { state: DiscoveryState::Held, ..now.document.clone() };
        let seen = async {
            other.take_glimpses(&glimpse, most).await.unwrap();
            other.judge_discovered(id, now.revision, &judged).await.unwrap()
        };
        let commit = async {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
            edit.commit().await.unwrap();
        };
        let (judged, ()) = tokio::join!(seen, commit);
        assert!(!judged, "a person has said something meanwhile");
        let entry = store.discovered().await.unwrap().remove(0).document;
        assert_eq!((entry.state, entry.last), (DiscoveryState::Ignored, 20));
    }
}

#[tokio::test]
async fn two_servers_that_hear_a_machine_at_once_make_one_entry_of_it() {
    for (home, store) in stores().await {
        let other = home.open().await;
        for last in 1..6 {
            let glimpse = [seen(last, Some(UUID), 10)];
            let (one, two) = tokio::join!(
                store.take_glimpses(&glimpse, 100),
                other.take_glimpses(&glimpse, 100)
            );
            assert_eq!(one.unwrap().len() + two.unwrap().len(), 1, "{last}");
        }
        assert_eq!(store.discovered().await.unwrap().len(), 1);
    }
}
