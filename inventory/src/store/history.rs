//! Boots by their machines and by when they began.

use std::fmt::Write as _;

use super::boots::{BOOTS, BootRow, boot_columns};
use super::db::{Db, query, query_made};
use super::row::{json, word};
use super::{Store, StoreError};
use crate::{Boot, BootId, BootPlace, MachineId, Outcome};

/// Of more machines than this it is quicker to go back in time until there are enough boots of theirs than to look at
/// all boots of each.
const MANY: usize = 256;

/// Which boots are looked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct WhichBoots<'a> {
    /// Only those of these machines.
    pub machines: Option<&'a [MachineId]>,
    /// Only those that are so far, or ended so.
    pub outcome: Option<Outcome>,
    /// Only those after this place of the list.
    pub after: Option<BootPlace>,
}

impl Store {
    /// Returns boots, newest first, at most as many as asked for. Their numbers do not tell: one that began while the
    /// database was away has a number from before.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn boots(&self, limit: u32) -> Result<Vec<Boot>, StoreError> {
        self.find_boots(WhichBoots::default(), limit).await
    }

    /// As [`boots`](Self::boots), some of them.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn find_boots(
        &self,
        which: WhichBoots<'_>,
        limit: u32,
    ) -> Result<Vec<Boot>, StoreError> {
        if which.machines.is_some_and(<[MachineId]>::is_empty) {
            return Ok(Vec::new());
        }
        let after = which.after.unwrap_or(BootPlace { started: i64::MAX, id: BootId(i64::MAX) });
        let mut found = query_made(self.finding(which))
            .bind(after.started)
            .bind(after.id.0)
            .bind(i64::from(limit));
        if let Some(machines) = which.machines {
            found = found.bind(json(&machines));
        }
        let rows: Vec<BootRow> =
            found.fetch_all(&self.db).await.map_err(StoreError::reading(BOOTS))?;
        rows.into_iter().map(BootRow::read).collect()
    }

    /// Returns the text of the query for some boots.
    fn finding(&self, which: WhichBoots<'_>) -> String {
        let mut sql =
            concat!("SELECT ", boot_columns!(), " FROM boots WHERE (started, id) < ($1, $2)")
                .to_owned();
        if let Some(outcome) = which.outcome {
            // The word itself, as in the index of boots under way.
            let _ = write!(sql, " AND outcome = '{}'", word(&outcome));
        }
        if let Some(machines) = which.machines {
            // With a sign before it the column is none that an index is looked through for.
            let column = if machines.len() > MANY { "+machine" } else { "machine" };
            let ids = match self.db {
                Db::Sqlite(_) => "SELECT value FROM json_each($4)",
                Db::Postgres(_) => {
                    "SELECT CAST(value AS BIGINT) FROM json_array_elements_text(CAST($4 AS JSON))"
                }
            };
            let _ = write!(sql, " AND {column} IN ({ids})");
        }
        sql.push_str(" ORDER BY started DESC, id DESC LIMIT $3");
        sql
    }

    /// Returns the boot of the same machine that came next after a boot.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn next_boot(&self, boot: &Boot) -> Result<Option<Boot>, StoreError> {
        let row: Option<BootRow> = query(NEXT)
            .bind(boot.machine.0)
            .bind(boot.started)
            .bind(boot.id.0)
            .fetch_optional(&self.db)
            .await
            .map_err(StoreError::reading(BOOTS))?;
        row.map(BootRow::read).transpose()
    }

    /// Returns healthy boots of a machine that began before a boot, newest first, at most as many as asked for.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn healthy_boots_before(
        &self,
        machine: MachineId,
        before: BootId,
        limit: u32,
    ) -> Result<Vec<BootId>, StoreError> {
        let rows: Vec<(i64,)> = query(
            "SELECT id FROM boots WHERE machine = $1 AND outcome = $3 \
             AND (started, id) < (SELECT started, id FROM boots WHERE id = $2) \
             ORDER BY started DESC, id DESC LIMIT $4",
        )
        .bind(machine.0)
        .bind(before.0)
        .bind(word(&Outcome::Healthy))
        .bind(i64::from(limit))
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(BOOTS))?;
        Ok(rows.into_iter().map(|(id,)| BootId(id)).collect())
    }
}

const NEXT: &str = concat!(
    "SELECT ",
    boot_columns!(),
    " FROM boots WHERE machine = $1 AND (started, id) > ($2, $3) ORDER BY started, id LIMIT 1"
);

#[cfg(test)]
mod tests {
    use super::super::test_stores::stores;
    use super::*;

    /// Machine 3 boots twice, then so many others boot, and with the last of them it boots a third time.
    async fn fill(store: &Store) {
        let of_three = "INSERT INTO boots (id, machine, machine_name, mac, started, outcome) VALUES \
                        (1, 3, 'n3', '52:54:00:00:00:03', 10, 'abandoned'), \
                        (2, 3, 'n3', '52:54:00:00:00:03', 20, 'booting'), \
                        (1600, 3, 'n3', '52:54:00:00:00:03', 1600, 'healthy')";
        query(of_three).execute(&store.db).await.unwrap();
        let others = "WITH RECURSIVE n (i) AS (SELECT 101 UNION ALL SELECT i + 1 FROM n WHERE i < 1600) \
                      INSERT INTO boots (id, machine, machine_name, mac, started, outcome) \
                      SELECT i + 3000, i, 'other', '52:54:00:00:00:09', i, 'healthy' FROM n";
        assert_eq!(query(others).execute(&store.db).await.unwrap(), 1_500);
    }

    fn numbers(boots: &[Boot]) -> Vec<i64> {
        boots.iter().map(|boot| boot.id.0).collect()
    }

    #[tokio::test]
    async fn boots_of_some_machines_are_found_however_many_others_boot() {
        for (_home, store) in stores().await {
            fill(&store).await;
            let of = async |machines: &[MachineId], limit| {
                let which = WhichBoots { machines: Some(machines), ..WhichBoots::default() };
                numbers(&store.find_boots(which, limit).await.unwrap())
            };
            assert_eq!(of(&[MachineId(3)], 9).await, [1600, 2, 1]);
            assert_eq!(of(&[MachineId(3)], 2).await, [1600, 2]);
            assert_eq!(
                of(&[MachineId(101), MachineId(3), MachineId(101)], 9).await,
                [1600, 3101, 2, 1]
            );
            assert_eq!(of(&[], 9).await, [0; 0]);
            // The first and the third, and many that never booted.
            let many: Vec<MachineId> = (0..1_000).map(|id| MachineId(id * 10_000 + 3)).collect();
            assert_eq!(of(&many, 9).await, [1600, 2, 1]);
            assert_eq!(numbers(&store.boots(3).await.unwrap()), [4600, 1600, 4599]);
        }
    }

    #[tokio::test]
    async fn a_list_goes_on_where_it_ended_and_leaves_none_out() {
        for (_home, store) in stores().await {
            fill(&store).await;
            let (mut all, mut after) = (Vec::new(), None);
            loop {
                let which = WhichBoots { after, ..WhichBoots::default() };
                let part = store.find_boots(which, 400).await.unwrap();
                let Some(last) = part.last() else { break };
                after = Some(last.place());
                all.extend(numbers(&part));
            }
            assert_eq!(all.len(), 1_503);
            assert_eq!(all, numbers(&store.boots(5_000).await.unwrap()));
            assert_eq!(
                (all[..3].to_vec(), all[1_501..].to_vec()),
                (vec![4600, 1600, 4599], vec![2, 1])
            );
            let under_way = WhichBoots { outcome: Some(Outcome::Booting), ..WhichBoots::default() };
            assert_eq!(numbers(&store.find_boots(under_way, 9).await.unwrap()), [2]);
            let machines = Some(&[MachineId(3)][..]);
            let after = Some(BootPlace { started: 20, id: BootId(2) });
            let none = WhichBoots { machines, after, ..under_way };
            assert!(store.find_boots(none, 9).await.unwrap().is_empty());
        }
    }

    #[tokio::test]
    async fn the_next_boot_of_a_machine_is_found_however_many_others_came_between() {
        for (_home, store) in stores().await {
            fill(&store).await;
            let next = async |id| {
                let (boot, _) = store.boot(BootId(id)).await.unwrap().unwrap();
                store.next_boot(&boot).await.unwrap().map(|next| next.id.0)
            };
            assert_eq!((next(1).await, next(2).await), (Some(2), Some(1600)));
            assert_eq!((next(1600).await, next(4600).await), (None, None));
        }
    }

    #[tokio::test]
    async fn boots_are_found_by_an_index() {
        let [(_home, store), _] = stores().await;
        let few = [MachineId(3)];
        let many = vec![MachineId(3); MANY + 1];
        let all = WhichBoots::default();
        for (sql, index) in [
            (NEXT.to_owned(), "USING INDEX boots_machine"),
            (store.finding(all), "USING INDEX boots_started"),
            (
                store.finding(WhichBoots { machines: Some(&few), ..all }),
                "USING INDEX boots_machine",
            ),
            (
                store.finding(WhichBoots { machines: Some(&many), ..all }),
                "USING INDEX boots_started",
            ),
            (
                store.finding(WhichBoots { outcome: Some(Outcome::Booting), ..all }),
                "USING INDEX boots_under_way",
            ),
        ] {
            let plan = query_made(format!("EXPLAIN QUERY PLAN {sql}"));
            let plan: Vec<(i64, i64, i64, String)> = plan.fetch_all(&store.db).await.unwrap();
            assert!(plan.iter().any(|row| row.3.contains(index)), "{sql}\n{plan:?}");
        }
    }
}
