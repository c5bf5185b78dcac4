//! Revisions, the log of changes, and nouns that are documents.

use kiln_types::Mac;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::db::query;
use super::test_stores::stores;
use super::tests::machine;
use super::*;
use crate::{Flag, Group, NewMachine, Wanted};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Thing {
    name: String,
    key: Option<String>,
    password: String,
}

impl Document for Thing {
    const NOUN: &'static str = "thing";

    fn name(&self) -> &str {
        &self.name
    }

    fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    fn check(&self) -> Result<(), String> {
        if self.name.is_empty() { Err("a thing needs a name".to_owned()) } else { Ok(()) }
    }

    fn hide(document: &mut Value) {
        document["password"] = Value::Null;
    }
}

fn thing(name: &str, key: Option<&str>) -> Thing {
    Thing { name: name.to_owned(), key: key.map(str::to_owned), password: "hunter2".to_owned() }
}

#[tokio::test]
async fn every_change_is_written_with_its_actor_and_without_secrets() {
    for (home, store) in stores().await {
        let mut news = store.watch_changes();
        let mut spec = machine("n1", &[1]);
        spec.metadata.insert("site".to_owned(), json!("here"));
        spec.metadata.insert("secrets".to_owned(), json!({ "password": "hunter2" }));
        let added = store.add_machine(&spec).await.unwrap();
        let operator = store.acting("uid 0");
        spec.name = "n2".to_owned();
        let changed = operator.change_machine(added.id, &spec, Some(1)).await.unwrap().unwrap();
        assert_eq!(changed.revision, 2);
        let same = operator.change_machine(added.id, &spec, None).await.unwrap().unwrap();
        assert_eq!(same.revision, 2, "nothing changed");
        operator.remove_machine(added.id, Some(2)).await.unwrap().unwrap();
        let changes = store.changes_since(0, 10).await.unwrap();
        let told: Vec<_> = changes
            .iter()
            .map(|change| (change.id, change.actor.as_str(), change.verb, change.name.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (1, "server", Verb::Add, "n1"),
                (2, "uid 0", Verb::Change, "n2"),
                (3, "uid 0", Verb::Remove, "n2")
            ]
        );
        assert!(changes.iter().all(|change| change.subject == added.id.0 && change.at > 0));
        assert_eq!((&changes[0].before, &changes[2].after), (&None, &None));
        let shown = serde_json::to_value(&changes[1]).unwrap();
        assert_eq!(shown["before"]["name"], "n1");
        assert_eq!(shown["after"]["metadata"], json!({ "site": "here" }));
        let text = serde_json::to_string(&changes).unwrap();
        assert!(!text.contains("hunter2"), "{text}");
        let read: Vec<Change> = serde_json::from_str(&text).unwrap();
        assert_eq!(read, changes);
        assert_eq!(store.changes_since(2, 10).await.unwrap(), changes[2..]);
        assert_eq!(store.changes_since(0, 1).await.unwrap(), changes[..1]);
        assert_eq!(*news.borrow_and_update(), 3);
        assert_eq!(home.open().await.last_change().await.unwrap(), 3);
    }
}

#[tokio::test]
async fn a_change_of_what_someone_else_changed_is_refused() {
    for (_home, store) in stores().await {
        let added = store.add_machine(&machine("n1", &[1])).await.unwrap();
        store.change_machine(added.id, &machine("n1", &[2]), None).await.unwrap();
        let error =
            store.change_machine(added.id, &machine("n1", &[3]), Some(1)).await.unwrap_err();
        assert!(error.is_changed());
        assert_eq!(
            error.to_string(),
            "machine `n1` was changed since you read it (its revision is 2, not 1); read it again"
        );
        store.remove_machine(added.id, Some(1)).await.unwrap_err();
        assert_eq!(store.machines().await.unwrap()[0].spec, machine("n1", &[2]));
        assert_eq!(store.last_change().await.unwrap(), 2);
    }
}

#[tokio::test]
async fn a_change_that_was_tampered_with_is_found() {
    for (_home, store) in stores().await {
        let empty = Verified { changes: 0, last: None, broken: None };
        assert_eq!(store.verify_changes().await.unwrap(), empty);
        for number in 1..=5 {
            store.add(&thing(&format!("t{number}"), None)).await.unwrap();
        }
        let changes = store.changes_since(0, 9).await.unwrap();
        let whole = Verified { changes: 5, last: Some(changes[4].hash), broken: None };
        assert_eq!(store.verify_changes().await.unwrap(), whole);
        for (tamper, mend, broken) in [
            (
                "UPDATE changes SET actor = 'me' WHERE id = 3",
                "UPDATE changes SET actor = 'server' WHERE id = 3",
                3,
            ),
            (
                "UPDATE changes SET at = at + 1 WHERE id = 2",
                "UPDATE changes SET at = at - 1 WHERE id = 2",
                2,
            ),
            (
                "UPDATE changes SET verb = 'eat' WHERE id = 1",
                "UPDATE changes SET verb = 'add' WHERE id = 1",
                1,
            ),
            ("DELETE FROM changes WHERE id = 4", "SELECT 1", 5),
        ] {
            query(tamper).execute(&store.db).await.unwrap();
            assert_eq!(store.verify_changes().await.unwrap().broken, Some(broken), "{tamper}");
            query(mend).execute(&store.db).await.unwrap();
        }
        // Old ones may go: what is left is still one chain.
        query("DELETE FROM changes WHERE id < 5").execute(&store.db).await.unwrap();
        assert_eq!(store.verify_changes().await.unwrap(), Verified { changes: 1, ..whole });
    }
}

#[tokio::test]
async fn a_document_has_a_revision_a_name_and_a_key_of_its_own() {
    for (_home, store) in stores().await {
        let first = store.add(&thing("a", Some("k1"))).await.unwrap();
        assert_eq!((first.revision, &first.document), (1, &thing("a", Some("k1"))));
        let second = store.add(&thing("b", None)).await.unwrap();
        store.add(&thing("c", None)).await.unwrap();
        for taken in [thing("a", None), thing("d", Some("k1"))] {
            let error = store.add(&taken).await.unwrap_err();
            assert!(error.is_conflict());
            assert_eq!(error.to_string(), "there is a thing `a` already");
            store.change(second.id, &taken, None).await.unwrap_err();
        }
        let error = store.add(&thing("", None)).await.unwrap_err();
        assert!(error.is_invalid());
        assert_eq!(error.to_string(), "a thing needs a name");
        let changed = store.change(second.id, &thing("b", Some("k2")), Some(1)).await.unwrap();
        let changed = changed.unwrap();
        assert_eq!(changed.revision, 2);
        assert!(
            store.change(second.id, &thing("x", None), Some(1)).await.unwrap_err().is_changed()
        );
        assert_eq!(store.change(99, &thing("x", None), None).await.unwrap(), None);
        assert_eq!(store.named::<Thing>("b").await.unwrap(), Some(changed.clone()));
        assert_eq!(store.keyed::<Thing>("k2").await.unwrap(), Some(changed.clone()));
        assert_eq!(store.keyed::<Thing>("k3").await.unwrap(), None);
        assert_eq!(store.remove::<Thing>(second.id, Some(2)).await.unwrap(), Some(changed));
        assert_eq!(store.remove::<Thing>(second.id, None).await.unwrap(), None);
        let names: Vec<_> = store.all::<Thing>().await.unwrap();
        assert_eq!(names.iter().map(|thing| thing.document.name()).collect::<Vec<_>>(), ["a", "c"]);
        let changes = store.changes_since(0, 99).await.unwrap();
        assert_eq!(changes.len(), 5);
        assert!(!serde_json::to_string(&changes).unwrap().contains("hunter2"));
    }
}

#[tokio::test]
async fn changes_that_belong_together_are_made_together_or_not_at_all() {
    for (_home, store) in stores().await {
        let mut edit = store.edit().await.unwrap();
        edit.add_machine(&machine("n1", &[1])).await.unwrap();
        edit.add(&thing("a", None)).await.unwrap();
        assert_eq!(edit.changes(), 2);
        drop(edit);
        assert_eq!(store.machines().await.unwrap(), []);
        let mut edit = store.edit().await.unwrap();
        let added = edit.add_machine(&machine("n1", &[1])).await.unwrap();
        edit.change_machine(added.id, &machine("n1", &[2]), Some(1)).await.unwrap();
        edit.add_machine(&machine("n1", &[3])).await.unwrap_err();
        drop(edit);
        assert_eq!(store.last_change().await.unwrap(), 0);
        let mut edit = store.edit().await.unwrap();
        edit.add_machine(&machine("n1", &[1])).await.unwrap();
        edit.add(&thing("a", None)).await.unwrap();
        assert_eq!(edit.commit().await.unwrap(), 2);
        assert_eq!(store.machines().await.unwrap().len(), 1);
        assert_eq!(store.verify_changes().await.unwrap().changes, 2);
    }
}

#[tokio::test]
async fn many_who_change_nouns_at_once_make_one_chain() {
    for (home, store) in stores().await {
        let other = home.open().await;
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..20 {
            let store = if number % 2 == 0 { store.clone() } else { other.clone() };
            tasks.spawn(async move { store.add(&thing(&format!("t{number}"), None)).await });
        }
        while let Some(done) = tasks.join_next().await {
            done.unwrap().unwrap();
        }
        let verified = store.verify_changes().await.unwrap();
        assert_eq!((verified.changes, verified.broken), (20, None));
    }
}

#[tokio::test]
async fn what_a_database_cannot_hold_in_a_text_keeps_nothing_from_being_written() {
    for (home, store) in stores().await {
        let id = store.add_machine(&machine("n1", &[1])).await.unwrap().id;
        let facts = StoredFacts {
            boot: crate::BootId(1),
            at: 1,
            facts: "a\0'; DROP TABLE machines; --".to_owned(),
        };
        store.set_facts(id, &facts).await.unwrap();
        let read = store.facts(id).await.unwrap().unwrap();
        let expected =
            if home.is_postgres() { facts.facts.replace('\0', "\u{fffd}") } else { facts.facts };
        assert_eq!(read.facts, expected);
        assert_eq!(store.machines().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn secrets_are_written_sealed_whoever_writes_and_stay_when_they_are_sent_back() {
    let seal = |key| Arc::new(crate::seal::tests::Backwards(key));
    for (_home, plain) in stores().await {
        // As an older Kiln left it, and locked.
        let mut spec = NewMachine::new("n1", [Mac::new([2, 0, 0, 0, 0, 1])]);
        spec.metadata.insert("secrets".to_owned(), json!({ "p": "x" }));
        spec.flags.insert(Flag::Locked);
        let old = plain.add_machine(&spec).await.unwrap();
        let store = plain.sealing(seal('a'));
        let mut edit = store.edit().await.unwrap();
        assert_eq!(edit.renew_secrets().await.unwrap(), 1);
        assert_eq!(edit.renew_secrets().await.unwrap(), 0);
        edit.commit().await.unwrap();
        let now = store.machines().await.unwrap().remove(0);
        assert_eq!(now.spec.metadata["secrets"]["p"], "sealed:a:secrets.p:\"x\"");
        assert_eq!(now.revision, old.revision + 1);
        assert!(now.spec.is(Flag::Locked));

        let mut second = NewMachine::new("n2", [Mac::new([2, 0, 0, 0, 0, 2])]);
        second.metadata.insert("secrets".to_owned(), json!({ "q": "y" }));
        let added = store.add_machine(&second).await.unwrap();
        assert_eq!(added.spec.metadata["secrets"]["q"], "sealed:a:secrets.q:\"y\"");
        for said in [&second, &added.spec] {
            let same = store.change_machine(added.id, said, None).await.unwrap().unwrap();
            assert_eq!(same, added, "what is sent back or said again is no change");
        }
        let mut stolen = added.spec.clone();
        stolen.metadata.insert("secrets".to_owned(), now.spec.metadata["secrets"].clone());
        let error = store.change_machine(added.id, &stolen, None).await.unwrap_err();
        assert!(
            error.is_invalid() && error.to_string().contains("send the secret itself"),
            "{error}"
        );

        let group: Group = serde_json::from_value(json!({
            "name": "g", "selector": "*", "settings": {"metadata": {"secrets": {"k": "z"}}}
        }))
        .unwrap();
        let wanted = Wanted {
            machines: vec![second.clone()],
            groups: vec![group.clone()],
            ..Wanted::default()
        };
        let apply = async || {
            let mut edit = store.edit().await.unwrap();
            let outline = edit.apply(&wanted, None, false).await.unwrap();
            edit.commit().await.unwrap();
            outline.changes.len()
        };
        assert_eq!(apply().await, 1);
        assert_eq!(apply().await, 0, "files that say the secret again change nothing");
        let all = store.all::<Group>().await.unwrap();
        let sealed = &all[0].document.settings.metadata["secrets"]["k"];
        assert_eq!(sealed, "sealed:a:secrets.k:\"z\"");

        let store = plain.sealing(seal('b'));
        let mut edit = store.edit().await.unwrap();
        assert_eq!(edit.renew_secrets().await.unwrap(), 3);
        edit.commit().await.unwrap();
        let one = store.machines().await.unwrap();
        assert!(one[1].spec.metadata["secrets"]["q"].as_str().unwrap().starts_with("sealed:b:"));
        let mut edit = store.edit().await.unwrap();
        let merged = edit.merge_machines(one[1].id, one[0].id).await;
        assert!(merged.is_err(), "the other one is locked");
        drop(edit);
        for change in store.changes_since(0, 100).await.unwrap() {
            let text = serde_json::to_string(&change).unwrap();
            assert!(!text.contains("secrets"), "{text}");
        }
    }
}
