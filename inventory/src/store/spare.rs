//! Numbers for boots that begin while the database cannot be written: their machines do not wait for it.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::db::{Db, query};
use super::{Store, StoreError};
use crate::BootId;

/// Boots that can begin without the database: a few racks that come back from a power cut at once.
const SPARE: i64 = 1024;

/// Numbers that no boot has, the lowest first.
///
/// Where several servers share a database they are reserved in its sequence, and nobody else is given them. A file has
/// one server, which counts on for itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SpareBoots(VecDeque<i64>);

impl SpareBoots {
    /// Takes the next one.
    pub fn take(&mut self) -> Option<BootId> {
        self.0.pop_front().map(BootId)
    }

    /// Takes so many of them for good, as whoever shares them with a later start of the server does.
    #[must_use]
    pub fn split(&mut self, count: usize) -> Self {
        let rest = self.0.split_off(count.min(self.0.len()));
        Self(std::mem::replace(&mut self.0, rest))
    }

    /// Adds those that come after the last one that is here.
    pub fn add(&mut self, more: Self) {
        let last = self.0.back().copied().unwrap_or(0);
        self.0.extend(more.0.into_iter().filter(|number| *number > last));
    }

    /// Returns whether there are too few.
    pub fn wants_more(&self) -> bool {
        self.len() < usize::try_from(SPARE / 2).unwrap_or_default()
    }

    /// Returns how many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Store {
    /// Returns numbers for boots that begin while this database cannot be written.
    ///
    /// # Errors
    ///
    /// When it cannot be read now.
    pub async fn spare_boots(&self) -> Result<SpareBoots, StoreError> {
        let failed = StoreError::reading("numbers of boots");
        let numbers = if matches!(self.db, Db::Postgres(_)) {
            let rows: Vec<(i64,)> = query(
                "SELECT nextval(pg_get_serial_sequence('boots', 'id')) FROM generate_series(1, $1)",
            )
            .bind(SPARE)
            .fetch_all(&self.db)
            .await
            .map_err(failed)?;
            rows.into_iter().map(|(number,)| number).collect()
        } else {
            let last: Option<(i64,)> =
                query("SELECT seq FROM sqlite_sequence WHERE name = 'boots'")
                    .fetch_optional(&self.db)
                    .await
                    .map_err(failed)?;
            let last = last.map_or(0, |(last,)| last);
            (last + 1..=last + SPARE).collect()
        };
        Ok(SpareBoots(numbers))
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::Mac;

    use super::super::test_stores::stores;
    use super::super::tests::open_boot;
    use super::*;
    use crate::{BootEvent, MachineId, NewBoot, Phase};

    fn new_boot(started: i64) -> NewBoot {
        NewBoot::new(MachineId(1), "n1", Mac::new([2; 6]), started)
    }

    #[tokio::test]
    async fn a_boot_that_was_numbered_without_the_database_is_written_later_beside_the_others() {
        for (home, store) in stores().await {
            let first = open_boot(&store, &new_boot(1)).await;
            let mut spare = store.spare_boots().await.unwrap();
            assert_eq!(spare.len(), 1024);
            // Of another server, which has its own.
            let mut others = home.open().await.spare_boots().await.unwrap();
            let second = new_boot(2).numbered(spare.take().unwrap());
            store.begin_boot(&second).await.unwrap();

            let boot = new_boot(3).numbered(spare.take().unwrap());
            assert_ne!(boot.id, first.id);
            assert_ne!(boot.id, second.id);
            if home.is_postgres() {
                let mut all: Vec<_> = std::iter::from_fn(|| others.take()).collect();
                all.extend(std::iter::from_fn(|| spare.take()));
                all.extend([boot.id, first.id, second.id]);
                all.sort_unstable();
                all.dedup();
                assert_eq!(all.len(), 2 * 1024 + 1, "nobody has the number of another");
            }
            store.begin_boot(&boot).await.unwrap();
            store.begin_boot(&boot).await.unwrap();
            store.add_events(boot.id, &[BootEvent::new(3, Phase::Dhcp, "late")]).await.unwrap();
            let (written, events) = store.boot(boot.id).await.unwrap().unwrap();
            assert_eq!((written, events.len()), (boot.clone(), 1));
            let taken = store.begin_boot(&new_boot(4).numbered(boot.id)).await.unwrap_err();
            assert!(taken.is_conflict(), "{taken}");
            let listed: Vec<_> = store.boots(9).await.unwrap().iter().map(|boot| boot.id).collect();
            assert_eq!(listed, [boot.id, second.id, first.id], "the newest first");
            let mut more = store.spare_boots().await.unwrap();
            let next = more.take().unwrap();
            assert!(![first.id, second.id, boot.id].contains(&next), "{next}");
        }
    }

    #[test]
    fn numbers_are_taken_once_also_where_more_are_added_that_are_here_already() {
        let of = |numbers: std::ops::RangeInclusive<i64>| SpareBoots(numbers.collect());
        let mut spare = of(11..=1034);
        assert_eq!((spare.take(), spare.wants_more()), (Some(BootId(11)), false));
        let mine = spare.split(600);
        assert_eq!((mine, spare.len(), spare.wants_more()), (of(12..=611), 423, true));
        spare.add(of(612..=1635));
        assert_eq!(spare, of(612..=1635));
        spare.add(of(2000..=2001));
        assert_eq!((spare.len(), spare.0.back()), (1026, Some(&2001)));
        assert_eq!(spare.split(9999).len(), 1026);
        assert!(spare.is_empty() && spare.take().is_none());
        spare.add(of(5..=6));
        assert_eq!(spare, of(5..=6));
    }
}
