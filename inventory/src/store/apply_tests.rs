//! Files that are applied, on both kinds of database.

use super::db::query;
use super::row::json;
use super::test_stores::stores;
use super::tests::machine;
use super::*;
use crate::{Flag, Group, NewMachine, Wanted, Wrong};

async fn apply(store: &Store, wanted: &Wanted, prune: bool) -> Result<Outline, Wrong> {
    let mut edit = store.edit().await.unwrap();
    let outline = edit.apply(wanted, Some("lab"), prune).await?;
    edit.commit().await.unwrap();
    Ok(outline)
}

fn group(name: &str, cmdline: &str) -> Group {
    let group =
        serde_json::json!({"name": name, "selector": "*", "settings": {"cmdline": cmdline}});
    serde_json::from_value(group).unwrap()
}

fn wanted(machines: &[NewMachine], groups: &[Group]) -> Wanted {
    Wanted { machines: machines.to_vec(), groups: groups.to_vec(), ..Wanted::default() }
}

fn told(outline: &Outline) -> Vec<(&str, &str, Verb)> {
    outline.changes.iter().map(|it| (it.noun, it.name.as_str(), it.verb)).collect()
}

#[tokio::test]
async fn files_are_applied_once_and_the_second_time_changes_nothing() {
    for (_home, store) in stores().await {
        let many: Vec<NewMachine> = (0..600_u32)
            .map(|number| {
                let [.., high, low] = number.to_be_bytes();
                let mac = kiln_types::Mac::new([2, 0, 0, 0, high, low]);
                let mut spec = NewMachine::new(format!("n{number}"), [mac]);
                spec.address = Some([10, 1, high, low].into());
                spec
            })
            .collect();
        let mut files = wanted(&many, &[group("all", "quiet")]);
        let first = apply(&store, &files, false).await.unwrap();
        assert_eq!((first.changes.len(), first.unchanged), (601, 0));
        let last = store.last_change().await.unwrap();
        let again = apply(&store, &files, true).await.unwrap();
        assert_eq!((again.changes.len(), again.unchanged), (0, 601));
        assert_eq!(store.last_change().await.unwrap(), last, "nothing is written");
        let all = store.machines().await.unwrap();
        assert_eq!(all.len(), 600);
        assert!(all.iter().all(|machine| machine.revision == 1));
        // Interfaces and addresses change places, one machine goes, one comes, one has another name.
        let (a, b) = (files.machines[0].clone(), files.machines[1].clone());
        (files.machines[0].macs, files.machines[1].macs) = (b.macs, a.macs);
        (files.machines[0].address, files.machines[1].address) = (b.address, a.address);
        files.machines[2].name = "renamed".to_owned();
        files.machines[3] = machine("new", &[7, 8]);
        files.groups[0] = group("all", "debug");
        let outline = apply(&store, &files, true).await.unwrap();
        let expected = [
            ("machine", "n3", Verb::Remove),
            ("machine", "n0", Verb::Change),
            ("machine", "n1", Verb::Change),
            ("machine", "renamed", Verb::Change),
            ("machine", "new", Verb::Add),
            ("group", "all", Verb::Change),
        ];
        assert_eq!(told(&outline), expected);
        let now = store.machines().await.unwrap();
        let renamed = now.iter().find(|machine| machine.spec.name == "renamed").unwrap();
        assert_eq!((renamed.id, renamed.revision), (all[2].id, 2));
        assert_eq!(store.machines().await.unwrap().len(), 600);
        assert_eq!(store.verify_changes().await.unwrap().broken, None);
    }
}

#[tokio::test]
async fn numbers_that_an_older_kiln_took_stay_as_long_as_the_files_say_the_same() {
    for (_home, store) in stores().await {
        let added = store.add_machine(&machine("n1", &[1])).await.unwrap();
        let mut older = added.spec.clone();
        (older.uuid, older.serial) = (Some("none".to_owned()), Some(String::new()));
        let write = query("UPDATE machines SET spec = $1 WHERE id = $2").bind(json(&older));
        write.bind(added.id.0).execute(&store.db).await.unwrap();
        let again = apply(&store, &wanted(&[older.clone()], &[]), false).await.unwrap();
        assert_eq!((again.changes.len(), again.unchanged), (0, 1));
        let renamed = NewMachine { name: "n2".to_owned(), ..older.clone() };
        apply(&store, &wanted(&[renamed], &[]), false).await.unwrap();
        let other = NewMachine { uuid: Some("other".to_owned()), ..older.clone() };
        assert!(apply(&store, &wanted(&[other], &[]), false).await.is_err());
        let new = NewMachine { macs: machine("n3", &[3]).macs, name: "n3".to_owned(), ..older };
        assert!(apply(&store, &wanted(&[new], &[]), false).await.is_err());
    }
}

#[tokio::test]
async fn what_cannot_be_changes_nothing_and_names_its_place() {
    for (_home, store) in stores().await {
        let by_hand = store.add_machine(&machine("by-hand", &[9])).await.unwrap();
        let last = store.last_change().await.unwrap();
        let mut no_mac = machine("n2", &[]);
        no_mac.cmdline = "quiet".to_owned();
        let cases: [(Wanted, &str, usize, &str); 4] = [
            (wanted(&[machine("n1", &[1]), no_mac], &[]), "machines", 1, "no MAC address"),
            (wanted(&[machine("n1", &[9])], &[]), "machines", 0, "belongs to machine `by-hand`"),
            (
                wanted(&[machine("n1", &[1])], &[group("a", ""), group("B", "")]),
                "groups",
                1,
                "cannot be the name",
            ),
            (wanted(&[], &[group("a", ""), group("a", "")]), "groups", 1, "there is a group `a`"),
        ];
        for (wanted, list, index, part) in cases {
            let wrong = apply(&store, &wanted, true).await.unwrap_err();
            assert_eq!(wrong.at, Some((list, index)), "{wrong:?}");
            assert!(wrong.error.to_string().contains(part), "{wrong:?}");
        }
        let bad = store.edit().await.unwrap().apply(&Wanted::default(), Some("../x"), true).await;
        assert!(bad.unwrap_err().error.is_invalid());
        assert_eq!(store.last_change().await.unwrap(), last);
        assert_eq!(store.machines().await.unwrap(), [by_hand]);
    }
}

#[tokio::test]
async fn only_what_the_same_source_described_is_removed() {
    for (_home, store) in stores().await {
        store.add_machine(&machine("by-hand", &[9])).await.unwrap();
        let secret = serde_json::json!({"name": "web", "selector": "*",
            "settings": {"metadata": {"secrets": {"key": "hunter2"}}}});
        let groups = [serde_json::from_value(secret).unwrap(), group("db", "")];
        apply(&store, &wanted(&[machine("n1", &[1]), machine("n2", &[2])], &groups), true)
            .await
            .unwrap();
        // Another source: neither takes what the other has, nor removes it.
        let mut edit = store.edit().await.unwrap();
        let other = wanted(&[machine("n3", &[3])], &[]);
        let outline = edit.apply(&other, Some("other"), true).await.unwrap();
        edit.commit().await.unwrap();
        assert_eq!(told(&outline), [("machine", "n3", Verb::Add)]);
        let wrong = apply(&store, &other, true).await.unwrap_err();
        assert!(wrong.error.to_string().contains("by the source `other`"), "{wrong:?}");
        // Secrets that the files do not say stay, and are in no log.
        let less = [group("web", "")];
        let outline = apply(&store, &wanted(&[], &less), false).await.unwrap();
        assert_eq!(told(&outline), [], "without prune, what is not described stays");
        let outline = apply(&store, &wanted(&[machine("n1", &[1])], &less), true).await.unwrap();
        let expected = [("machine", "n2", Verb::Remove), ("group", "db", Verb::Remove)];
        assert_eq!(told(&outline), expected);
        let web = store.named::<Group>("web").await.unwrap().unwrap();
        assert!(web.document.settings.metadata.contains_key("secrets"));
        let log = store.changes_since(0, 100).await.unwrap();
        assert!(!serde_json::to_string(&log).unwrap().contains("hunter2"));
        // A lock holds, whatever the files say.
        let n1 = store.machines().await.unwrap().into_iter().find(|it| it.spec.name == "n1");
        let mut locked = n1.clone().unwrap().spec;
        locked.flags.insert(Flag::Locked);
        store.change_machine(n1.unwrap().id, &locked, None).await.unwrap();
        let wrong = apply(&store, &Wanted::default(), true).await.unwrap_err();
        assert!(wrong.error.to_string().contains("machine `n1` is locked"), "{wrong:?}");
        let names = store.machines().await.unwrap();
        let names: Vec<_> = names.iter().map(|machine| machine.spec.name.as_str()).collect();
        assert_eq!(names, ["by-hand", "n1", "n3"]);
    }
}
