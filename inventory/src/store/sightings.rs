use kiln_types::Mac;

use super::db::query;
use super::row::{parse_opt, parse_word, text, word};
use super::{Store, StoreError};
use crate::{Asker, Firmware, Sighting};

const SIGHTINGS: &str = "sightings";

/// Most sightings that are kept. Anyone on the network can make up addresses, so the oldest make room.
pub(super) const MOST_SIGHTINGS: i64 = 10_000;

impl Store {
    /// Remembers what was seen: one row per interface and asker, with the time of the last and their number.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn record_sighting(&self, seen: &Sighting, at_ms: i64) -> Result<(), StoreError> {
        self.record_sightings(&[(seen, at_ms)]).await
    }

    /// The same for many, with one commit.
    ///
    /// # Errors
    ///
    /// As [`record_sighting`](Self::record_sighting).
    pub async fn record_sightings(&self, seen: &[(&Sighting, i64)]) -> Result<(), StoreError> {
        let failed = |source| StoreError::writing(SIGHTINGS, source);
        let mut tx = self.write(SIGHTINGS).await?;
        let mut more = false;
        for (seen, at_ms) in seen {
            let (times,): (i64,) = query(
                "INSERT INTO sightings (mac, asker, firmware, uuid, first, last, times) \
                 VALUES ($1, $2, $3, $4, $5, $5, 1) ON CONFLICT (mac, asker) DO UPDATE SET \
                 firmware = excluded.firmware, uuid = excluded.uuid, last = excluded.last, \
                 times = sightings.times + 1 RETURNING times",
            )
            .bind(seen.mac.to_string())
            .bind(word(&seen.asker))
            .bind(text(seen.firmware.as_ref()))
            .bind(&seen.uuid)
            .bind(*at_ms)
            .fetch_one(&mut tx)
            .await
            .map_err(failed)?;
            more |= times == 1;
        }
        if more {
            query(
                "DELETE FROM sightings WHERE last < \
                 (SELECT last FROM sightings ORDER BY last DESC LIMIT 1 OFFSET $1)",
            )
            .bind(MOST_SIGHTINGS - 1)
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    /// Returns the last sighting of an interface that wanted to boot, else the last one of any kind, with its time
    /// in milliseconds since 1970.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn last_sighting(&self, mac: Mac) -> Result<Option<(Sighting, i64)>, StoreError> {
        let row: Option<(String, Option<String>, Option<String>, i64)> = query(
            "SELECT asker, firmware, uuid, last FROM sightings WHERE mac = $1 \
             ORDER BY CASE asker WHEN 'system' THEN 1 ELSE 0 END, last DESC LIMIT 1",
        )
        .bind(mac.to_string())
        .fetch_optional(&self.db)
        .await
        .map_err(StoreError::reading(SIGHTINGS))?;
        row.map(|(asker, firmware, uuid, last)| {
            let asker = parse_word("an asker", &asker)?;
            let firmware = parse_opt("a kind of firmware", firmware.as_deref())?;
            Ok((Sighting { mac, asker, firmware, uuid }, last))
        })
        .transpose()
    }

    /// Returns the kind of firmware that one program of a machine told when it was seen last.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn firmware_told_by(
        &self,
        mac: Mac,
        asker: Asker,
    ) -> Result<Option<Firmware>, StoreError> {
        let row: Option<(Option<String>,)> =
            query("SELECT firmware FROM sightings WHERE mac = $1 AND asker = $2")
                .bind(mac.to_string())
                .bind(word(&asker))
                .fetch_optional(&self.db)
                .await
                .map_err(StoreError::reading(SIGHTINGS))?;
        parse_opt("a kind of firmware", row.and_then(|(firmware,)| firmware).as_deref())
    }
}
