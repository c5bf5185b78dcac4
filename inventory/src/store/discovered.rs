//! Machines that nobody has added.

mod rows;

use kiln_types::Mac;

pub(super) use self::rows::is_a_machine_now;
use self::rows::{Row, by_id, delete, entry_of, is_known, make_room, put, put_macs, read, uuid};
use super::db::query;
use super::edit::{Edit, Step, tell};
use super::row::{json, parse};
use super::servers::UNNUMBERED;
use super::{Store, StoreError, Stored};
use crate::{Discovered, DiscoveryState, Glimpse, Machine, MachineId, NewMachine, SeenFacts};

const DISCOVERED: &str = "discovered machines";
const NOUN: &str = "discovery";

fn failed(source: sqlx::Error) -> StoreError {
    StoreError::writing(DISCOVERED, source)
}

/// What is kept beside the facts, which are long.
fn brief(entry: &Discovered) -> Discovered {
    Discovered { facts: None, ..entry.clone() }
}

impl Store {
    /// Takes in what was seen, and returns the entries of which more is known than before. What machines of the inventory
    /// have is passed over. At most so many entries are kept: those that were not seen for the longest time make room,
    /// unless a person has said something about them.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn take_glimpses(&self, seen: &[Glimpse], most: u32) -> Result<Vec<i64>, StoreError> {
        let mut tx = self.write_alone(DISCOVERED).await?;
        let (mut news, mut more) = (Vec::new(), false);
        for glimpse in seen {
            let mac = glimpse.sighting.mac;
            if is_known(&mut tx, mac).await? {
                continue;
            }
            let told = Discovered::new(glimpse);
            if let Some(now) = entry_of(&mut tx, mac, uuid(&told)).await? {
                let mut entry = now.document;
                if entry.take(glimpse) {
                    news.push(now.id);
                }
                put(&mut tx, now.id, &entry, 0).await?;
                continue;
            }
            let (id,): (i64,) = query(
                "INSERT INTO discovered (last, uuid, document) VALUES ($1, $2, $3) RETURNING id",
            )
            .bind(told.last)
            .bind(uuid(&told))
            .bind(json(&told))
            .fetch_one(&mut tx)
            .await
            .map_err(failed)?;
            put_macs(&mut tx, id, &told).await?;
            news.push(id);
            more = true;
        }
        if more {
            make_room(&mut tx, most).await?;
        }
        tx.commit().await.map_err(failed)?;
        news.sort_unstable();
        news.dedup();
        Ok(news)
    }

    /// Takes in what a machine said of itself while it ran the discovery image, joins the entries of its other network
    /// cards with its own, and returns that when more is known than before.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn describe_discovered(
        &self,
        mac: Mac,
        told: SeenFacts,
    ) -> Result<Option<i64>, StoreError> {
        let mut tx = self.write_alone(DISCOVERED).await?;
        let Some(now) = entry_of(&mut tx, mac, None).await? else {
            // It was approved while its system started, which tells this once.
            query(
                "INSERT INTO machine_facts (machine, boot, at, facts) \
                 SELECT machine, $2, $3, $4 FROM machine_macs WHERE mac = $1 \
                 ON CONFLICT (machine) DO UPDATE \
                 SET boot = excluded.boot, at = excluded.at, facts = excluded.facts",
            )
            .bind(mac.to_string())
            .bind(told.boot.0)
            .bind(told.at)
            .bind(json(&told.facts))
            .execute(&mut tx)
            .await
            .map_err(failed)?;
            tx.commit().await.map_err(failed)?;
            return Ok(None);
        };
        let mut entry = now.document;
        let nics: Vec<Mac> =
            told.facts.nics.iter().filter_map(|nic| nic.mac.parse().ok()).collect();
        let more = entry.describe(told);
        for nic in nics {
            if let Some(other) = entry_of(&mut tx, nic, None).await?
                && other.id != now.id
            {
                delete(&mut tx, other.id).await?;
                entry.join(other.document);
            }
        }
        put(&mut tx, now.id, &entry, 0).await?;
        tx.commit().await.map_err(failed)?;
        Ok(Some(now.id).filter(|_| more))
    }

    /// Returns every machine that nobody has added, in the order in which they appeared.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn discovered(&self) -> Result<Vec<Stored<Discovered>>, StoreError> {
        let rows: Vec<Row> =
            query("SELECT id, revision, document, facts FROM discovered ORDER BY id")
                .fetch_all(&self.db)
                .await
                .map_err(StoreError::reading(DISCOVERED))?;
        rows.into_iter().map(read).collect()
    }

    /// Returns how many interfaces of machines that nobody has added there are, by what becomes of those.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn count_discovered(&self) -> Result<[(&'static str, u64); 3], StoreError> {
        let mut counts = [("waiting", 0), ("held", 0), ("ignored", 0)];
        for (state, count) in &mut counts {
            let (number,): (i64,) = query(
                "SELECT COUNT(*) FROM discovered_macs JOIN discovered ON discovered.id = entry \
                 WHERE document LIKE $1",
            )
            .bind(format!("%\"state\":\"{state}\"%"))
            .fetch_one(&self.db)
            .await
            .map_err(StoreError::reading(DISCOVERED))?;
            *count = u64::try_from(number).unwrap_or(0);
        }
        Ok(counts)
    }

    /// Returns the interfaces of machines that get no answer: a person or a rule said so.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn ignored_macs(&self) -> Result<Vec<Mac>, StoreError> {
        let rows: Vec<(String,)> = query(
            "SELECT mac FROM discovered_macs JOIN discovered ON discovered.id = entry \
             WHERE document LIKE '%\"state\":\"ignored\"%'",
        )
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(DISCOVERED))?;
        rows.iter().map(|(mac,)| parse("a hardware address", mac)).collect()
    }

    /// Keeps what rules say of an entry, unless something has changed it meanwhile. No row of the log of changes: anyone
    /// on the network can make up entries. Returns whether it did.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn judge_discovered(
        &self,
        id: i64,
        revision: i64,
        entry: &Discovered,
    ) -> Result<bool, StoreError> {
        let mut tx = self.write_alone(DISCOVERED).await?;
        let now = by_id(&mut tx, id).await?;
        let Some(now) = now.filter(|now| now.revision == revision) else { return Ok(false) };
        put(&mut tx, id, entry, 1).await?;
        let is_ignored = |entry: &Discovered| entry.state == DiscoveryState::Ignored;
        if is_ignored(&now.document) != is_ignored(entry) {
            tell(&mut tx, UNNUMBERED).await.map_err(failed)?;
        }
        tx.commit().await.map_err(failed)?;
        Ok(true)
    }
}

impl Edit<'_> {
    /// Returns a machine that nobody has added, when it is what the caller thinks it is.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, and [`StoreError::Changed`] when its revision is another than expected.
    pub async fn discovered(
        &mut self,
        id: i64,
        expected: Option<i64>,
    ) -> Result<Option<Stored<Discovered>>, StoreError> {
        let Some(now) = by_id(&mut self.tx, id).await? else { return Ok(None) };
        StoreError::unless_same(NOUN, &name(&now.document), now.revision, expected)?;
        Ok(Some(now))
    }

    /// Changes what becomes of an entry. One that is like that already keeps its revision.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn change_discovered(
        &mut self,
        now: &Stored<Discovered>,
        entry: &Discovered,
    ) -> Result<Stored<Discovered>, StoreError> {
        if now.document == *entry {
            return Ok(now.clone());
        }
        put(&mut self.tx, now.id, entry, 1).await?;
        self.log_discovered(now.id, Some(&now.document), Some(entry)).await?;
        Ok(Stored { id: now.id, revision: now.revision + 1, document: entry.clone() })
    }

    /// Forgets an entry. What it is about becomes a new one when it is seen again.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn remove_discovered(&mut self, now: &Stored<Discovered>) -> Result<(), StoreError> {
        delete(&mut self.tx, now.id).await?;
        self.log_discovered(now.id, Some(&now.document), None).await
    }

    /// Makes a machine of an entry, which is gone then, and gives it what the entry had: facts and boots.
    ///
    /// # Errors
    ///
    /// As [`Store::add_machine`].
    pub async fn approve(
        &mut self,
        now: &Stored<Discovered>,
        machine: &NewMachine,
    ) -> Result<Machine, StoreError> {
        self.remove_discovered(now).await?;
        let added = self.add_machine(machine).await?;
        self.inherit(added.id, &now.document).await?;
        Ok(added)
    }

    /// Gives what an entry has to a machine that is the same box, and removes the entry.
    ///
    /// # Errors
    ///
    /// As [`Store::change_machine`].
    pub async fn merge_discovered(
        &mut self,
        now: &Stored<Discovered>,
        into: MachineId,
    ) -> Result<Option<Machine>, StoreError> {
        let Some(machine) = self.machine(into, None).await? else { return Ok(None) };
        let entry = &now.document;
        let mut spec = machine.spec.clone();
        spec.macs.extend(&entry.macs);
        spec.uuid = spec.uuid.or_else(|| entry.uuid.clone());
        spec.serial = spec.serial.or_else(|| entry.serial.clone());
        spec.asset_tag = spec.asset_tag.or_else(|| entry.asset_tag.clone());
        self.remove_discovered(now).await?;
        let merged = self.change_machine(into, &spec, Some(machine.revision)).await?;
        self.inherit(into, entry).await?;
        Ok(merged)
    }

    async fn inherit(&mut self, machine: MachineId, entry: &Discovered) -> Result<(), StoreError> {
        if let Some(SeenFacts { boot, at, facts }) = &entry.facts {
            query(
                "INSERT INTO machine_facts (machine, boot, at, facts) VALUES ($1, $2, $3, $4) \
                 ON CONFLICT (machine) DO UPDATE \
                 SET boot = excluded.boot, at = excluded.at, facts = excluded.facts",
            )
            .bind(machine.0)
            .bind(boot.0)
            .bind(*at)
            .bind(json(facts))
            .execute(&mut self.tx)
            .await
            .map_err(failed)?;
        }
        for mac in &entry.macs {
            query("UPDATE boots SET machine = $1 WHERE machine = $2")
                .bind(machine.0)
                .bind(MachineId::of_unknown(*mac).0)
                .execute(&mut self.tx)
                .await
                .map_err(failed)?;
        }
        Ok(())
    }

    async fn log_discovered(
        &mut self,
        id: i64,
        before: Option<&Discovered>,
        after: Option<&Discovered>,
    ) -> Result<(), StoreError> {
        let shown = |entry: &Discovered| serde_json::to_value(brief(entry)).unwrap_or_default();
        let name = after.or(before).map(name).unwrap_or_default();
        let (before, after) = (before.map(shown), after.map(shown));
        self.log(Step { noun: NOUN, subject: id, name: &name, before, after }).await
    }
}

fn name(entry: &Discovered) -> String {
    entry.macs.first().map(ToString::to_string).unwrap_or_default()
}
