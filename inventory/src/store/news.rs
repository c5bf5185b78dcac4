//! What has changed since the inventory was read: the log of changes names it, and no more than that is read again.

use std::collections::{BTreeSet, HashMap};

use super::contents::contents;
use super::db::{Tx, query};
use super::documents::{self, Document as _};
use super::machines::{self, MACHINE, MACHINES, Row};
use super::{Contents, Edit, Store, StoreError, Stored};
use crate::{Group, Machine, MachineId};

const CHANGES: &str = "changes";

/// Rows of the log by which something in the inventory is another than before. The rest tells what was done, or was
/// refused.
macro_rules! is_change {
    () => {
        "verb <> 'deny' AND noun NOT IN ('order', 'lease', 'build', 'image')"
    };
}

/// The most changes that are read one by one: everything is read sooner than more of them.
const MOST: usize = 500;

/// A place in the log of changes. It has the hash of the newest change there, by which it is seen that the log is still the
/// same one: a backup that was restored may have other changes under the same numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// The number of the newest change, 0 before the first.
    pub change: i64,
    hash: String,
}

/// What [`Store::news`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// All there is: nobody can say any more what has changed.
    All(Contents),
    /// What has changed.
    Some(Changed),
}

/// What has changed, as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changed {
    /// Until when.
    pub mark: Mark,
    /// The machines that are others now, or gone.
    pub machines: Vec<(MachineId, Option<Machine>)>,
    /// Every group, oldest first, where one of them has changed.
    pub groups: Option<Vec<Stored<Group>>>,
    /// The kinds of nouns of which some have changed.
    pub nouns: BTreeSet<String>,
}

impl Store {
    /// Returns what has changed since a place in the log of changes; everything where that is not in the log any more, or
    /// too far back.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn news(&self, since: &Mark) -> Result<News, StoreError> {
        let mut tx = self.db.begin_read().await.map_err(StoreError::reading(CHANGES))?;
        match changed(&mut tx, since).await? {
            Some(changed) => Ok(News::Some(changed)),
            None => Ok(News::All(contents(&mut tx).await?)),
        }
    }
}

impl Edit<'_> {
    /// Returns whether nothing in the inventory is another than after the change with this number: what was done since,
    /// or refused, does not count.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn is_unchanged_since(&mut self, change: i64) -> Result<bool, StoreError> {
        if change > self.began_at() {
            return Ok(false);
        }
        let other: Option<(i64,)> =
            query(concat!("SELECT id FROM changes WHERE id > $1 AND ", is_change!(), " LIMIT 1"))
                .bind(change)
                .fetch_optional(&mut self.tx)
                .await
                .map_err(StoreError::reading(CHANGES))?;
        Ok(other.is_none())
    }
}

/// Returns the place of the newest change.
pub(super) async fn mark(tx: &mut Tx) -> Result<Mark, StoreError> {
    let row: Option<(i64, String)> = query("SELECT id, hash FROM changes ORDER BY id DESC LIMIT 1")
        .fetch_optional(tx)
        .await
        .map_err(StoreError::reading(CHANGES))?;
    Ok(row.map(|(change, hash)| Mark { change, hash }).unwrap_or_default())
}

/// Nothing where the log does not say it.
async fn changed(tx: &mut Tx, since: &Mark) -> Result<Option<Changed>, StoreError> {
    let failed = StoreError::reading(CHANGES);
    let mut changed = Changed { mark: mark(tx).await?, ..Changed::default() };
    if changed.mark == *since {
        return Ok(Some(changed));
    }
    let then: Option<(String,)> = query("SELECT hash FROM changes WHERE id = $1")
        .bind(since.change)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
    if then.is_none_or(|(hash,)| hash != since.hash) {
        return Ok(None);
    }
    let rows: Vec<(String, i64)> = query(concat!(
        "SELECT noun, subject FROM changes WHERE id > $1 AND ",
        is_change!(),
        " ORDER BY id LIMIT $2"
    ))
    .bind(since.change)
    .bind(i64::try_from(MOST + 1).unwrap_or(i64::MAX))
    .fetch_all(&mut *tx)
    .await
    .map_err(&failed)?;
    if rows.len() > MOST {
        return Ok(None);
    }
    let mut ids = BTreeSet::new();
    for (noun, subject) in rows {
        ids.extend((noun == MACHINE).then_some(MachineId(subject)));
        changed.nouns.insert(noun);
    }
    if !ids.is_empty() {
        let rows: Vec<Row> = query(
            "SELECT id, revision, spec FROM machines \
             WHERE id IN (SELECT subject FROM changes WHERE noun = $1 AND id > $2)",
        )
        .bind(MACHINE)
        .bind(since.change)
        .fetch_all(&mut *tx)
        .await
        .map_err(StoreError::reading(MACHINES))?;
        let there = rows.into_iter().map(|row| machines::read(row).map(|it| (it.id, it)));
        let mut there: HashMap<MachineId, Machine> = there.collect::<Result<_, _>>()?;
        changed.machines = ids.into_iter().map(|id| (id, there.remove(&id))).collect();
    }
    if changed.nouns.contains(Group::NOUN) {
        changed.groups = Some(documents::all(tx).await?);
    }
    Ok(Some(changed))
}

#[cfg(test)]
mod tests {
    use super::super::edit::Step;
    use super::super::test_stores::stores;
    use super::super::tests::machine;
    use super::*;
    use crate::Settings;

    async fn some(store: &Store, since: &Mark) -> Changed {
        match store.news(since).await.unwrap() {
            News::Some(changed) => changed,
            News::All(all) => panic!("everything was read: {all:?}"),
        }
    }

    #[tokio::test]
    async fn only_what_has_changed_is_read_again() {
        for (_home, store) in stores().await {
            let nothing = Mark::default();
            assert_eq!(some(&store, &nothing).await, Changed::default());
            let one = store.add_machine(&machine("n1", &[1])).await.unwrap();
            let News::All(all) = store.news(&nothing).await.unwrap() else { panic!("no place") };
            assert_eq!((all.mark.change, &all.machines[..]), (1, std::slice::from_ref(&one)));
            let two = store.add_machine(&machine("n2", &[2])).await.unwrap();
            let three = store.add_machine(&machine("n3", &[3])).await.unwrap();
            let changed = some(&store, &all.mark).await;
            assert_eq!(changed.mark.change, 3);
            let wanted = [(two.id, Some(two.clone())), (three.id, Some(three))];
            assert_eq!((changed.machines, changed.groups), (wanted.into(), None));

            let spec = machine("m2", &[2]);
            let two = store.change_machine(two.id, &spec, None).await.unwrap().unwrap();
            store.remove_machine(one.id, None).await.unwrap();
            store.record_denial("machine", "n9", serde_json::Value::Null).await.unwrap();
            let group = Group {
                name: "g".to_owned(),
                selector: "a".parse().unwrap(),
                priority: 0,
                settings: Settings::default(),
            };
            let group = store.add(&group).await.unwrap();
            let last = some(&store, &changed.mark).await;
            assert_eq!(last.machines, [(one.id, None), (two.id, Some(two))]);
            assert_eq!(last.groups, Some(vec![group]));
            assert_eq!(last.nouns, ["group", "machine"].map(str::to_owned).into());
            let Changed { machines, groups, nouns, mark } = some(&store, &last.mark).await;
            assert_eq!((machines, groups, nouns.len(), &mark), (vec![], None, 0, &last.mark));
            assert_eq!(mark, store.contents().await.unwrap().mark);
        }
    }

    #[tokio::test]
    async fn everything_is_read_where_the_log_does_not_say_what_has_changed() {
        for (_home, store) in stores().await {
            for number in 1..=3 {
                store.add_machine(&machine(&format!("n{number}"), &[number])).await.unwrap();
            }
            let mark = store.contents().await.unwrap().mark;
            // As after a backup was restored: another change under the same number.
            let other = Mark { hash: "0".repeat(64), ..mark.clone() };
            assert!(matches!(store.news(&other).await.unwrap(), News::All(_)));
            let later = Mark { change: mark.change + 1, ..mark.clone() };
            assert!(matches!(store.news(&later).await.unwrap(), News::All(_)));
            let gone = "DELETE FROM changes WHERE id <= 3";
            let mut edit = store.edit().await.unwrap();
            edit.add_machine(&machine("n4", &[4])).await.unwrap();
            edit.commit().await.unwrap();
            query(gone).execute(&store.db).await.unwrap();
            assert!(matches!(store.news(&mark).await.unwrap(), News::All(_)));

            let mark = store.contents().await.unwrap().mark;
            let mut edit = store.edit().await.unwrap();
            for _ in 0..=MOST {
                edit.log(step("token")).await.unwrap();
            }
            edit.commit().await.unwrap();
            assert!(matches!(store.news(&mark).await.unwrap(), News::All(_)));
        }
    }

    fn step(noun: &'static str) -> Step<'static> {
        Step { noun, subject: 1, name: "n1", before: None, after: Some(true.into()) }
    }

    #[tokio::test]
    async fn what_was_done_or_refused_is_nothing_to_read_however_often() {
        for (_home, store) in stores().await {
            let one = store.add_machine(&machine("n1", &[1])).await.unwrap();
            let since = store.contents().await.unwrap().mark;
            let mut edit = store.edit().await.unwrap();
            for _ in 0..MOST {
                for noun in ["order", "lease", "build"] {
                    edit.log(step(noun)).await.unwrap();
                }
                edit.deny("machine", "n9", &serde_json::Value::Null).await.unwrap();
            }
            edit.commit().await.unwrap();
            let mut edit = store.edit().await.unwrap();
            assert!(edit.is_unchanged_since(since.change).await.unwrap());
            assert!(!edit.is_unchanged_since(since.change - 1).await.unwrap());
            let beyond = edit.began_at() + 1;
            assert!(!edit.is_unchanged_since(beyond).await.unwrap(), "of another log");
            drop(edit);
            let read = some(&store, &since).await;
            assert_eq!((read.machines, read.groups, read.nouns), (vec![], None, BTreeSet::new()));
            // And what comes after is found from there.
            assert_eq!(read.mark, store.contents().await.unwrap().mark);
            store.remove_machine(one.id, None).await.unwrap();
            assert_eq!(some(&store, &read.mark).await.machines, [(one.id, None)]);
        }
    }
}
