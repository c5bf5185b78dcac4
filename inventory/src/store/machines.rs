use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use kiln_types::Mac;
use sqlx::{FromRow, SqliteConnection};

use super::row::{damaged, parse, parse_opt, text};
use super::{Store, StoreError};
use crate::{Machine, MachineId, NewMachine};

const MACHINES: &str = "machines";

#[derive(FromRow)]
struct MachineRow {
    id: i64,
    name: String,
    uuid: Option<String>,
    arch: Option<String>,
    image: Option<String>,
    address: Option<String>,
    cmdline: String,
    labels: String,
    state_disk: Option<String>,
}

impl MachineRow {
    fn read(self, macs: BTreeSet<Mac>) -> Result<Machine, StoreError> {
        let spec = NewMachine {
            macs,
            uuid: self.uuid,
            arch: parse_opt("an architecture", self.arch.as_deref())?,
            image: parse_opt("an image", self.image.as_deref())?,
            address: parse_opt("an address", self.address.as_deref())?,
            cmdline: self.cmdline,
            labels: serde_json::from_str(&self.labels)
                .map_err(|_| damaged("labels", &self.labels))?,
            state_disk: parse_opt("the name of a disk", self.state_disk.as_deref())?,
            name: self.name,
        };
        Ok(Machine { id: MachineId(self.id), spec })
    }
}

impl Store {
    /// Returns every machine, oldest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        let failed = StoreError::reading(MACHINES);
        // One transaction, so that no machine is seen without its interfaces.
        let mut tx = self.pool.begin().await.map_err(&failed)?;
        let rows: Vec<MachineRow> = sqlx::query_as(
            "SELECT id, name, uuid, arch, image, address, cmdline, labels, state_disk FROM machines ORDER BY id",
        )
        .fetch_all(&mut *tx)
        .await
        .map_err(&failed)?;
        let pairs: Vec<(i64, String)> = sqlx::query_as("SELECT machine, mac FROM machine_macs")
            .fetch_all(&mut *tx)
            .await
            .map_err(&failed)?;
        let mut macs = BTreeMap::<i64, BTreeSet<Mac>>::new();
        for (machine, mac) in pairs {
            macs.entry(machine).or_default().insert(parse("a MAC address", &mac)?);
        }
        rows.into_iter()
            .map(|row| {
                let macs = macs.remove(&row.id).unwrap_or_default();
                row.read(macs)
            })
            .collect()
    }

    /// Adds a machine.
    ///
    /// # Errors
    ///
    /// When the description is not usable, when its name, an interface or its address is taken, or when the
    /// database cannot be written.
    pub async fn add_machine(&self, machine: &NewMachine) -> Result<Machine, StoreError> {
        check(machine)?;
        let failed = |source| StoreError::writing(MACHINES, source);
        let mut tx = self.write(MACHINES).await?;
        free(&mut tx, machine, None).await?;
        let labels = serde_json::to_string(&machine.labels).unwrap_or_default();
        let (id,): (i64,) = sqlx::query_as(
            "INSERT INTO machines (name, uuid, arch, image, address, cmdline, labels, state_disk) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id",
        )
        .bind(&machine.name)
        .bind(&machine.uuid)
        .bind(text(machine.arch.as_ref()))
        .bind(text(machine.image.as_ref()))
        .bind(text(machine.address.as_ref()))
        .bind(&machine.cmdline)
        .bind(labels)
        .bind(text(machine.state_disk.as_ref()))
        .fetch_one(&mut *tx)
        .await
        .map_err(failed)?;
        write_macs(&mut tx, MachineId(id), machine).await?;
        tx.commit().await.map_err(failed)?;
        Ok(Machine { id: MachineId(id), spec: machine.clone() })
    }

    /// Changes what a machine is to be, and returns whether there is one.
    ///
    /// # Errors
    ///
    /// As [`add_machine`](Self::add_machine).
    pub async fn change_machine(
        &self,
        id: MachineId,
        machine: &NewMachine,
    ) -> Result<bool, StoreError> {
        check(machine)?;
        let failed = |source| StoreError::writing(MACHINES, source);
        let mut tx = self.write(MACHINES).await?;
        free(&mut tx, machine, Some(id)).await?;
        let labels = serde_json::to_string(&machine.labels).unwrap_or_default();
        let done = sqlx::query(
            "UPDATE machines SET name = $1, uuid = $2, arch = $3, image = $4, address = $5, cmdline = $6, \
             labels = $7, state_disk = $8 WHERE id = $9",
        )
        .bind(&machine.name)
        .bind(&machine.uuid)
        .bind(text(machine.arch.as_ref()))
        .bind(text(machine.image.as_ref()))
        .bind(text(machine.address.as_ref()))
        .bind(&machine.cmdline)
        .bind(labels)
        .bind(text(machine.state_disk.as_ref()))
        .bind(id.0)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        if done.rows_affected() == 0 {
            return Ok(false);
        }
        sqlx::query("DELETE FROM machine_macs WHERE machine = $1")
            .bind(id.0)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        write_macs(&mut tx, id, machine).await?;
        tx.commit().await.map_err(failed)?;
        Ok(true)
    }

    /// Removes a machine and returns whether there was one. Its boots stay.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn remove_machine(&self, id: MachineId) -> Result<bool, StoreError> {
        let done = sqlx::query("DELETE FROM machines WHERE id = $1")
            .bind(id.0)
            .execute(&self.pool)
            .await
            .map_err(|source| StoreError::writing(MACHINES, source))?;
        Ok(done.rows_affected() > 0)
    }
}

async fn write_macs(
    tx: &mut SqliteConnection,
    id: MachineId,
    machine: &NewMachine,
) -> Result<(), StoreError> {
    for mac in &machine.macs {
        sqlx::query("INSERT INTO machine_macs (mac, machine) VALUES ($1, $2)")
            .bind(mac.to_string())
            .bind(id.0)
            .execute(&mut *tx)
            .await
            .map_err(|source| StoreError::writing(MACHINES, source))?;
    }
    Ok(())
}

/// Refuses what another machine than this one has, and says which.
async fn free(
    tx: &mut SqliteConnection,
    machine: &NewMachine,
    this: Option<MachineId>,
) -> Result<(), StoreError> {
    let failed = StoreError::reading(MACHINES);
    // No machine has the number 0.
    let this = this.map_or(0, |id| id.0);
    let same_name = sqlx::query("SELECT id FROM machines WHERE name = $1 AND id <> $2")
        .bind(&machine.name)
        .bind(this)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
    if same_name.is_some() {
        return Err(StoreError::NameTaken(machine.name.clone()));
    }
    for &mac in &machine.macs {
        let owner: Option<(String,)> = sqlx::query_as(
            "SELECT name FROM machines JOIN machine_macs ON machine = id WHERE mac = $1 AND id <> $2",
        )
        .bind(mac.to_string())
        .bind(this)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
        if let Some((machine,)) = owner {
            return Err(StoreError::MacTaken { mac, machine });
        }
    }
    if let Some(address) = machine.address {
        let owner: Option<(String,)> =
            sqlx::query_as("SELECT name FROM machines WHERE address = $1 AND id <> $2")
                .bind(address.to_string())
                .bind(this)
                .fetch_optional(&mut *tx)
                .await
                .map_err(&failed)?;
        if let Some((machine,)) = owner {
            return Err(StoreError::AddressTaken { address, machine });
        }
    }
    Ok(())
}

/// Refuses what no machine can be.
fn check(machine: &NewMachine) -> Result<(), StoreError> {
    let name = &machine.name;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
    if !ends || name.len() > 63 || !name.bytes().all(|b| plain(b) || b == b'-') {
        return Err(StoreError::Name(name.chars().take(80).collect()));
    }
    if machine.macs.is_empty() {
        return Err(StoreError::NoMac(name.clone()));
    }
    if let Some(&mac) = machine.macs.iter().find(|mac| !mac.is_unicast()) {
        return Err(StoreError::GroupMac(mac));
    }
    if let Some(address) = machine.address.filter(|address| !can_be_reserved(*address)) {
        return Err(StoreError::Address(address));
    }
    let cmdline = &machine.cmdline;
    let wrong = |what| Err(StoreError::Cmdline(cmdline.escape_debug().take(80).collect(), what));
    if cmdline.len() > 2048 {
        return wrong("more than 2048 bytes");
    }
    if cmdline.bytes().any(|b| b.is_ascii_control()) {
        return wrong("a control character");
    }
    if !cmdline.is_ascii() {
        return wrong("a letter outside ASCII");
    }
    // iPXE expands it and has no way to say that it should not.
    if cmdline.contains("${") {
        return wrong("`${`");
    }
    Ok(())
}

fn can_be_reserved(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240)
}
