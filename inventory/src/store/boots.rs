use kiln_types::{Arch, Digest, ImageRef};
use sqlx::FromRow;

use super::db::{Tx, query};
use super::row::{count, parse, parse_count, parse_opt, parse_word, text, word};
use super::{Store, StoreError};
use crate::{Boot, BootEvent, BootId, MachineId, Outcome};

pub(super) const BOOTS: &str = "boots";
const EVENTS: &str = "events of a boot";

/// The columns of a [`BootRow`].
macro_rules! boot_columns {
    () => {
        "id, machine, machine_name, mac, firmware, image, version, arch, address, started, outcome, \
         ended, kernel_start"
    };
}
pub(super) use boot_columns;

/// The number of the lock that writers of events take in PostgreSQL until they are done, so that events appear in the order
/// of their numbers: who follows them would miss one that came late. SQLite has one writer at a time in any case.
const ONE_TELLER: &str = "SELECT pg_advisory_xact_lock(5495116)";

#[derive(FromRow)]
pub(super) struct BootRow {
    id: i64,
    machine: i64,
    machine_name: String,
    mac: String,
    firmware: Option<String>,
    image: Option<String>,
    version: Option<String>,
    arch: Option<String>,
    address: Option<String>,
    started: i64,
    outcome: String,
    ended: Option<i64>,
    kernel_start: Option<i64>,
}

impl BootRow {
    pub(super) fn read(self) -> Result<Boot, StoreError> {
        Ok(Boot {
            id: BootId(self.id),
            machine: MachineId(self.machine),
            machine_name: self.machine_name,
            mac: parse("a MAC address", &self.mac)?,
            firmware: parse_opt("a kind of firmware", self.firmware.as_deref())?,
            image: parse_opt("an image", self.image.as_deref())?,
            version: parse_opt("a digest", self.version.as_deref())?,
            arch: parse_opt("an architecture", self.arch.as_deref())?,
            address: parse_opt("an address", self.address.as_deref())?,
            started: self.started,
            outcome: parse_word("an outcome", &self.outcome)?,
            ended: self.ended,
            kernel_start: self.kernel_start,
        })
    }
}

#[derive(FromRow)]
struct EventRow {
    at: i64,
    phase: String,
    detail: String,
    bytes: Option<i64>,
    millis: Option<i64>,
    took: Option<i64>,
    resent: Option<i64>,
}

impl EventRow {
    fn read(self) -> Result<BootEvent, StoreError> {
        Ok(BootEvent {
            at: self.at,
            phase: parse_word("a phase", &self.phase)?,
            detail: self.detail,
            bytes: parse_count("a number of bytes", self.bytes)?,
            millis: parse_count("milliseconds", self.millis)?,
            took: parse_count("milliseconds", self.took)?,
            resent: parse_count("a number of blocks", self.resent)?,
        })
    }
}

impl Store {
    /// Writes a boot that begins under a [spare](Self::spare_boots) number. Does nothing where it is written already.
    ///
    /// # Errors
    ///
    /// When the database cannot be written, or another boot has the number.
    pub async fn begin_boot(&self, boot: &Boot) -> Result<(), StoreError> {
        let failed = |source| StoreError::writing(BOOTS, source);
        let mut tx = self.write(BOOTS).await?;
        query(
            "INSERT INTO boots (id, machine, machine_name, mac, firmware, image, version, arch, \
             address, started, outcome, server) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (id) DO NOTHING",
        )
        .bind(boot.id.0)
        .bind(boot.machine.0)
        .bind(&boot.machine_name)
        .bind(boot.mac.to_string())
        .bind(text(boot.firmware.as_ref()))
        .bind(text(boot.image.as_ref()))
        .bind(text(boot.version.as_ref()))
        .bind(text(boot.arch.as_ref()))
        .bind(text(boot.address.as_ref()))
        .bind(boot.started)
        .bind(word(&boot.outcome))
        .bind(self.server)
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        let (there,): (i64,) = query(
            "SELECT COUNT(*) FROM boots WHERE id = $1 AND machine = $2 AND started = $3 AND server = $4",
        )
        .bind(boot.id.0)
        .bind(boot.machine.0)
        .bind(boot.started)
        .bind(self.server)
        .fetch_one(&mut tx)
        .await
        .map_err(failed)?;
        if there == 0 {
            return Err(StoreError::Taken { noun: "boot", name: boot.id.to_string() });
        }
        tx.commit().await.map_err(failed)
    }

    /// Returns whether something can be written now, as far as is known without writing.
    ///
    /// # Errors
    ///
    /// When it cannot, with the reason.
    pub async fn is_writable(&self) -> Result<(), StoreError> {
        const NOTHING: &str = "anything";
        let failed = |source| StoreError::writing(NOTHING, source);
        let mut tx = self.write(NOTHING).await?;
        // A database that may only be read refuses this too.
        query("UPDATE servers SET name = name WHERE 1 = 0")
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    /// Writes what became known about a boot since it began. A boot that is not there any more stays so.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn update_boot(&self, boot: &Boot) -> Result<(), StoreError> {
        query(
            "UPDATE boots SET firmware = $1, image = $2, version = $3, arch = $4, address = $5, \
             outcome = $6, ended = $7, kernel_start = $8 WHERE id = $9",
        )
        .bind(text(boot.firmware.as_ref()))
        .bind(text(boot.image.as_ref()))
        .bind(text(boot.version.as_ref()))
        .bind(text(boot.arch.as_ref()))
        .bind(text(boot.address.as_ref()))
        .bind(word(&boot.outcome))
        .bind(boot.ended)
        .bind(boot.kernel_start)
        .bind(boot.id.0)
        .execute(&self.db)
        .await
        .map_err(|source| StoreError::writing(BOOTS, source))?;
        Ok(())
    }

    /// Returns what a machine last ran well: the image, the version and the architecture.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn last_healthy(
        &self,
        machine: MachineId,
    ) -> Result<Option<(ImageRef, Digest, Arch)>, StoreError> {
        let row: Option<(String, String, String)> = query(
            "SELECT image, version, arch FROM boots WHERE machine = $1 AND outcome = $2 \
             AND image IS NOT NULL AND version IS NOT NULL AND arch IS NOT NULL \
             ORDER BY started DESC, id DESC LIMIT 1",
        )
        .bind(machine.0)
        .bind(word(&Outcome::Healthy))
        .fetch_optional(&self.db)
        .await
        .map_err(StoreError::reading(BOOTS))?;
        let Some((image, version, arch)) = row else { return Ok(None) };
        let image = parse("an image", &image)?;
        Ok(Some((image, parse("a version", &version)?, parse("an architecture", &arch)?)))
    }

    /// Returns whether the timeline of a boot ends in these events: whether they were written after all, where the answer
    /// did not come. Waits for who is writing events.
    ///
    /// # Errors
    ///
    /// When the database cannot be read, or could not be written.
    pub async fn ends_in(&self, boot: BootId, events: &[BootEvent]) -> Result<bool, StoreError> {
        let failed = StoreError::reading(EVENTS);
        let mut tx = self.write(EVENTS).await?;
        if let Tx::Postgres(_) = tx {
            query(ONE_TELLER).execute(&mut tx).await.map_err(&failed)?;
        }
        let rows: Vec<EventRow> = query(
            "SELECT at, phase, detail, bytes, millis, took, resent FROM boot_events WHERE boot = $1 \
             ORDER BY id DESC LIMIT $2",
        )
        .bind(boot.0)
        .bind(i64::try_from(events.len()).unwrap_or(i64::MAX))
        .fetch_all(&mut tx)
        .await
        .map_err(failed)?;
        let last = rows.into_iter().rev().map(EventRow::read);
        Ok(last.collect::<Result<Vec<_>, _>>()? == events)
    }

    /// Appends to the timeline of a boot, all or nothing.
    ///
    /// # Errors
    ///
    /// When the database cannot be written or there is no such boot.
    pub async fn add_events(&self, boot: BootId, events: &[BootEvent]) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let failed = |source| StoreError::writing(EVENTS, source);
        let mut tx = self.write(EVENTS).await?;
        if let Tx::Postgres(_) = tx {
            query(ONE_TELLER).execute(&mut tx).await.map_err(failed)?;
        }
        for event in events {
            query(
                "INSERT INTO boot_events (boot, at, phase, detail, bytes, millis, took, resent) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            )
            .bind(boot.0)
            .bind(event.at)
            .bind(event.phase.as_str())
            .bind(&event.detail)
            .bind(count(event.bytes))
            .bind(count(event.millis))
            .bind(count(event.took))
            .bind(count(event.resent))
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }

    /// Returns one boot with its timeline, in the order in which it was written.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn boot(&self, id: BootId) -> Result<Option<(Boot, Vec<BootEvent>)>, StoreError> {
        let failed = StoreError::reading(BOOTS);
        let mut tx = self.db.begin_read().await.map_err(&failed)?;
        let row: Option<BootRow> =
            query(concat!("SELECT ", boot_columns!(), " FROM boots WHERE id = $1"))
                .bind(id.0)
                .fetch_optional(&mut tx)
                .await
                .map_err(&failed)?;
        let Some(row) = row else { return Ok(None) };
        let events: Vec<EventRow> = query(
            "SELECT at, phase, detail, bytes, millis, took, resent FROM boot_events WHERE boot = $1 \
             ORDER BY id",
        )
        .bind(id.0)
        .fetch_all(&mut tx)
        .await
        .map_err(&failed)?;
        let events = events.into_iter().map(EventRow::read).collect::<Result<_, _>>()?;
        Ok(Some((row.read()?, events)))
    }
}
