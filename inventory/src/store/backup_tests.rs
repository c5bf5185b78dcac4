//! What is restored equals what was there, from either kind of database into either.

use serde_json::json;

use super::db::query;
use super::test_stores::stores;
use super::tests::{lease, machine, new_boot, open_boot};
use super::*;
use crate::{BootEvent, Machine, Phase};

/// Fills an inventory with some of everything.
async fn fill(store: &Store) {
    let mut spec = machine("n1", &[1, 2]);
    spec.metadata.insert("secrets".to_owned(), json!({ "p": "geheim" }));
    spec.address = Some([10, 0, 0, 5].into());
    let first = store.add_machine(&spec).await.unwrap();
    let gone = store.add_machine(&machine("n2", &[3])).await.unwrap();
    store.remove_machine(gone.id, None).await.unwrap();
    let boot = open_boot(store, &new_boot()).await;
    let events: Vec<_> =
        (0..2500).map(|at| BootEvent::new(at, Phase::Service, format!("{at} \"ä\u{1}"))).collect();
    store.add_events(boot.id, &events).await.unwrap();
    store.keep_token(boot.id, &kiln_types::Digest::from_bytes([1; 32])).await.unwrap();
    store.commit_leases(&[lease(10, 1, 100), lease(11, 2, 200)]).await.unwrap();
    let facts = StoredFacts { boot: boot.id, at: 1, facts: "{\"a\": null}".to_owned() };
    store.set_facts(first.id, &facts).await.unwrap();
}

/// Everything that can be asked.
async fn everything(store: &Store) -> (Vec<Machine>, Vec<Change>, String) {
    let boots = store.boots(100).await.unwrap();
    let timeline = store.boot(boots[0].id).await.unwrap();
    let rest = (store.leases().await.unwrap(), store.facts(crate::MachineId(1)).await.unwrap());
    let rest = format!("{boots:?} {timeline:?} {rest:?}");
    (store.machines().await.unwrap(), store.changes_since(0, 100).await.unwrap(), rest)
}

#[tokio::test]
async fn a_backup_of_either_kind_restores_into_either() {
    for (_home, from) in stores().await {
        fill(&from).await;
        let before = everything(&from).await;
        let keys = vec![("site.key".to_owned(), vec![0, 1, 255])];
        let mut backup = Vec::new();
        let made = from.back_up(&mut backup, &[], &keys).await.unwrap();
        assert_eq!((made.rows["machines"], made.rows["boot_events"]), (1, 2500));
        assert_eq!(verify_backup(&mut &*backup).unwrap(), (made.clone(), keys));
        for (_home, into) in stores().await {
            assert_eq!(into.restore(&mut &*backup, false).await.unwrap(), made);
            assert_eq!(everything(&into).await, before);
            assert_eq!(into.verify_changes().await.unwrap().broken, None);
            let next = into.add_machine(&machine("n3", &[4])).await.unwrap();
            assert!(next.id.0 > 2, "an id never names another machine: {}", next.id);
            let error = into.restore(&mut &*backup, false).await.unwrap_err();
            assert!(matches!(error, BackupError::NotEmpty(_)), "{error}");
            assert_eq!(into.machines().await.unwrap().len(), 2);
            into.restore(&mut &*backup, true).await.unwrap();
            assert_eq!(everything(&into).await, before);
        }
    }
}

#[tokio::test]
async fn leases_that_were_still_in_a_journal_are_in_the_backup() {
    let [(_one, from), (_two, into)] = stores().await;
    from.commit_leases(&[lease(10, 1, 100), lease(11, 2, 100)]).await.unwrap();
    let mut backup = Vec::new();
    from.back_up(&mut backup, &[lease(10, 1, 500), lease(12, 3, 9)], &[]).await.unwrap();
    into.restore(&mut &*backup, false).await.unwrap();
    let expected = [lease(10, 1, 500), lease(11, 2, 100), lease(12, 3, 9)];
    assert_eq!(into.leases().await.unwrap(), expected);
}

#[tokio::test]
async fn a_backup_that_is_not_whole_changes_nothing() {
    let [(_one, from), (_two, other)] = stores().await;
    fill(&from).await;
    let mut backup = Vec::new();
    from.back_up(&mut backup, &[], &[]).await.unwrap();
    let text = String::from_utf8(backup.clone()).unwrap();
    let cut = &backup[..backup.len() / 2];
    let changed = text.replace("10.0.0.5", "10.0.0.6");
    let without_end = text.trim_end().rsplit_once('\n').unwrap().0.to_owned() + "\n";
    let more = format!("{text}{{}}\n");
    for (wrong, what) in [
        (cut, "the file ends here"),
        (changed.as_bytes(), "the sum of all lines is another"),
        (without_end.as_bytes(), "the file ends here"),
        (more.as_bytes(), "there is more behind the end"),
        (b"".as_slice(), "the file ends here"),
        (b"SQLite format 3\0\n".as_slice(), "no line of a backup"),
        (b"[1]\n".as_slice(), "another first line"),
    ] {
        let verified = verify_backup(&mut &*wrong).unwrap_err();
        assert!(verified.to_string().contains(what), "{what}: {verified}");
        for store in [&from, &other] {
            let before = store.machines().await.unwrap();
            store.restore(&mut &*wrong, true).await.unwrap_err();
            assert_eq!(store.machines().await.unwrap(), before, "{what}");
        }
    }
    let newer = text.replacen("\"schema\":", "\"schema\":9", 1);
    let error = verify_backup(&mut newer.as_bytes()).unwrap_err();
    assert!(matches!(error, BackupError::TooNew(_)), "{error}");
}

#[tokio::test]
async fn names_of_tables_in_a_backup_are_not_taken_for_more_than_names() {
    let [(_home, store), _] = stores().await;
    let head = "{\"kiln-backup\":1,\"schema\":1,\"made\":1}\n";
    for line in [
        r#"{"table":"machines; DROP TABLE boots","columns":["id"],"last":null}"#,
        r#"{"table":"machines","columns":["id) SELECT 1 --"],"last":null}"#,
        r#"{"table":"nothing","columns":["id"],"last":null}"#,
        r#"{"table":"machines","columns":["no_such"],"last":null}"#,
    ] {
        let backup = format!("{head}{line}\n[1]\n");
        store.restore(&mut backup.as_bytes(), false).await.unwrap_err();
    }
    let (boots,): (i64,) = query("SELECT count(*) FROM boots").fetch_one(&store.db).await.unwrap();
    assert_eq!(boots, 0);
}
