mod rules;

use std::borrow::Cow;
use std::net::IpAddr;

use serde_json::{Map, Value};

pub(super) use self::rules::{check, check_numbers};
use super::db::{Tx, query};
use super::discovered::is_a_machine_now;
use super::edit::{Edit, Step};
use super::row::{damaged, json, text};
use super::{Store, StoreError, Stored};
use crate::seal::{renew_secrets, seal_secrets};
use crate::{Flag, Group, Locked, Machine, MachineId, NewMachine, Seal};

pub(super) const MACHINES: &str = "machines";
pub(super) const MACHINE: &str = "machine";

impl Store {
    /// Returns every machine, oldest first.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn machines(&self) -> Result<Vec<Machine>, StoreError> {
        let mut tx = self.db.begin_read().await.map_err(StoreError::reading(MACHINES))?;
        super::contents::machines(&mut tx).await
    }

    /// Adds a machine.
    ///
    /// # Errors
    ///
    /// When the description is not usable, when its name, an interface or its address is taken, or when the
    /// database cannot be written.
    pub async fn add_machine(&self, machine: &NewMachine) -> Result<Machine, StoreError> {
        check(machine)?;
        let mut edit = self.edit().await?;
        let added = edit.add_machine(machine).await?;
        edit.commit().await?;
        Ok(added)
    }

    /// Changes what a machine is to be and returns it, or nothing when there is none. One that is to be just that
    /// already keeps its revision.
    ///
    /// # Errors
    ///
    /// As [`add_machine`](Self::add_machine), and [`StoreError::Changed`] when its revision is another than expected.
    pub async fn change_machine(
        &self,
        id: MachineId,
        machine: &NewMachine,
        expected: Option<i64>,
    ) -> Result<Option<Machine>, StoreError> {
        check(machine)?;
        let mut edit = self.edit().await?;
        let changed = edit.change_machine(id, machine, expected).await?;
        edit.commit().await?;
        Ok(changed)
    }

    /// Removes a machine and returns what it was, or nothing when there is none. Its boots stay.
    ///
    /// # Errors
    ///
    /// When the database cannot be written, and [`StoreError::Changed`] when its revision is another than expected.
    pub async fn remove_machine(
        &self,
        id: MachineId,
        expected: Option<i64>,
    ) -> Result<Option<Machine>, StoreError> {
        let mut edit = self.edit().await?;
        let removed = edit.remove_machine(id, expected).await?;
        edit.commit().await?;
        Ok(removed)
    }
}

impl Edit<'_> {
    /// As [`Store::add_machine`].
    ///
    /// # Errors
    ///
    /// As [`Store::add_machine`].
    pub async fn add_machine(&mut self, machine: &NewMachine) -> Result<Machine, StoreError> {
        check(machine)?;
        check_numbers(machine, None)?;
        let machine = &*self.sealed(machine, None)?;
        free(&mut self.tx, machine, None).await?;
        let (id,): (i64,) = query(
            "INSERT INTO machines (name, address, address6, spec) VALUES ($1, $2, $3, $4) RETURNING id",
        )
        .bind(&machine.name)
        .bind(text(machine.address.as_ref()))
        .bind(text(machine.address6.as_ref()))
        .bind(json(machine))
        .fetch_one(&mut self.tx)
        .await
        .map_err(failed)?;
        let added = Machine { id: MachineId(id), revision: 1, spec: machine.clone() };
        write_macs(&mut self.tx, added.id, machine).await?;
        self.log_machine(added.id, None, Some(machine)).await?;
        Ok(added)
    }

    /// As [`Store::change_machine`].
    ///
    /// # Errors
    ///
    /// As [`Store::change_machine`].
    pub async fn change_machine(
        &mut self,
        id: MachineId,
        machine: &NewMachine,
        expected: Option<i64>,
    ) -> Result<Option<Machine>, StoreError> {
        check(machine)?;
        let Some(now) = self.machine(id, expected).await? else { return Ok(None) };
        check_numbers(machine, Some(&now.spec))?;
        let machine = self.sealed(machine, Some(&now.spec))?.into_owned();
        self.put_machine(now, &machine).await.map(Some)
    }

    /// Returns a machine with its secrets sealed.
    pub(super) fn sealed<'a>(
        &self,
        machine: &'a NewMachine,
        now: Option<&NewMachine>,
    ) -> Result<Cow<'a, NewMachine>, StoreError> {
        let mut machine = Cow::Borrowed(machine);
        if let Some(seal) =
            self.store.seal.as_deref().filter(|_| machine.metadata.contains_key("secrets"))
        {
            let metadata = &mut machine.to_mut().metadata;
            seal_secrets(seal, metadata, now.map(|now| &now.metadata))
                .map_err(StoreError::Invalid)?;
        }
        Ok(machine)
    }

    /// Writes a machine whose secrets are sealed.
    pub(super) async fn put_machine(
        &mut self,
        now: Machine,
        machine: &NewMachine,
    ) -> Result<Machine, StoreError> {
        let id = now.id;
        if now.spec == *machine {
            return Ok(now);
        }
        now.spec.may_become(machine).map_err(|Locked| StoreError::Locked(now.spec.name.clone()))?;
        free(&mut self.tx, machine, Some(id)).await?;
        let revision = now.revision + 1;
        query(
            "UPDATE machines SET name = $1, address = $2, address6 = $3, spec = $4, revision = $5 WHERE id = $6",
        )
        .bind(&machine.name)
        .bind(text(machine.address.as_ref()))
        .bind(text(machine.address6.as_ref()))
        .bind(json(machine))
        .bind(revision)
        .bind(id.0)
        .execute(&mut self.tx)
        .await
        .map_err(failed)?;
        if now.spec.macs != machine.macs {
            query("DELETE FROM machine_macs WHERE machine = $1")
                .bind(id.0)
                .execute(&mut self.tx)
                .await
                .map_err(failed)?;
            write_macs(&mut self.tx, id, machine).await?;
        }
        self.log_machine(id, Some(&now.spec), Some(machine)).await?;
        Ok(Machine { id, revision, spec: machine.clone() })
    }

    /// Seals the secrets of machines and groups that are in the clear, as an older Kiln kept them, or sealed with another
    /// key than the one in use. Returns how many machines and groups have some. A lock keeps nothing from it: what they are to be is the same.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written, or nothing can be sealed.
    pub async fn renew_secrets(&mut self) -> Result<usize, StoreError> {
        let Some(seal) = self.store.seal.clone() else { return Ok(0) };
        // Every start of a server asks, and hardly any machine has secrets of its own there.
        let with_secrets = match self.tx {
            Tx::Sqlite(_) => {
                "SELECT id, revision, spec FROM machines WHERE instr(spec, '\"secrets\"') > 0 ORDER BY id"
            }
            Tx::Postgres(_) => {
                "SELECT id, revision, spec FROM machines WHERE strpos(spec, '\"secrets\"') > 0 ORDER BY id"
            }
        };
        let rows: Vec<Row> = query(with_secrets)
            .fetch_all(&mut self.tx)
            .await
            .map_err(StoreError::reading(MACHINES))?;
        let mut count = 0;
        for row in rows {
            let Machine { id, revision, spec } = read(row)?;
            let mut sealed = spec.metadata.clone();
            seal_again(&*seal, &mut sealed)?;
            if sealed == spec.metadata {
                continue;
            }
            let spec = NewMachine { metadata: sealed, ..spec };
            query("UPDATE machines SET spec = $1, revision = $2 WHERE id = $3")
                .bind(json(&spec))
                .bind(revision + 1)
                .bind(id.0)
                .execute(&mut self.tx)
                .await
                .map_err(failed)?;
            self.log_machine(id, Some(&spec), Some(&spec)).await?;
            count += 1;
        }
        for Stored { id, revision, document } in self.all::<Group>().await? {
            let mut group = document.clone();
            seal_again(&*seal, &mut group.settings.metadata)?;
            if group != document {
                self.put(id, revision, (&document, &group)).await?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// As [`Store::remove_machine`].
    ///
    /// # Errors
    ///
    /// As [`Store::remove_machine`].
    pub async fn remove_machine(
        &mut self,
        id: MachineId,
        expected: Option<i64>,
    ) -> Result<Option<Machine>, StoreError> {
        let Some(now) = self.machine(id, expected).await? else { return Ok(None) };
        if now.spec.is(Flag::Locked) {
            return Err(StoreError::Locked(now.spec.name));
        }
        query("DELETE FROM machines WHERE id = $1")
            .bind(id.0)
            .execute(&mut self.tx)
            .await
            .map_err(failed)?;
        self.forget_secrets(MACHINE, id.0).await?;
        self.log_machine(id, Some(&now.spec), None).await?;
        Ok(Some(now))
    }

    /// Returns a machine, when it is what the caller thinks it is.
    pub(super) async fn machine(
        &mut self,
        id: MachineId,
        expected: Option<i64>,
    ) -> Result<Option<Machine>, StoreError> {
        let row: Option<Row> = query("SELECT id, revision, spec FROM machines WHERE id = $1")
            .bind(id.0)
            .fetch_optional(&mut self.tx)
            .await
            .map_err(StoreError::reading(MACHINES))?;
        let Some(now) = row.map(read).transpose()? else { return Ok(None) };
        StoreError::unless_same(MACHINE, &now.spec.name, now.revision, expected)?;
        Ok(Some(now))
    }

    async fn log_machine(
        &mut self,
        id: MachineId,
        before: Option<&NewMachine>,
        after: Option<&NewMachine>,
    ) -> Result<(), StoreError> {
        let name = after.or(before).map_or("", |spec| &spec.name);
        let (before, after) = (before.map(shown), after.map(shown));
        self.log(Step { noun: MACHINE, subject: id.0, name, before, after }).await
    }
}

pub(super) type Row = (i64, i64, String);

pub(super) fn read((id, revision, spec): Row) -> Result<Machine, StoreError> {
    let spec = serde_json::from_str(&spec).map_err(|_| damaged("a machine", &spec))?;
    Ok(Machine { id: MachineId(id), revision, spec })
}

fn seal_again(seal: &dyn Seal, metadata: &mut Map<String, Value>) -> Result<(), StoreError> {
    renew_secrets(seal, metadata).map_err(StoreError::Invalid)
}

/// Returns what the log of changes may say of a machine.
pub(super) fn shown(machine: &NewMachine) -> Value {
    let mut value = serde_json::to_value(machine).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("secrets");
    }
    value
}

fn failed(source: sqlx::Error) -> StoreError {
    StoreError::writing(MACHINES, source)
}

async fn write_macs(tx: &mut Tx, id: MachineId, machine: &NewMachine) -> Result<(), StoreError> {
    for mac in &machine.macs {
        query("INSERT INTO machine_macs (mac, machine) VALUES ($1, $2)")
            .bind(mac.to_string())
            .bind(id.0)
            .execute(&mut *tx)
            .await
            .map_err(|source| StoreError::writing(MACHINES, source))?;
        is_a_machine_now(tx, *mac).await?;
    }
    Ok(())
}

/// Refuses what another machine than this one has, and says which.
async fn free(
    tx: &mut Tx,
    machine: &NewMachine,
    this: Option<MachineId>,
) -> Result<(), StoreError> {
    let failed = StoreError::reading(MACHINES);
    // No machine has the number 0.
    let this = this.map_or(0, |id| id.0);
    let same_name: Option<(i64,)> = query("SELECT id FROM machines WHERE name = $1 AND id <> $2")
        .bind(&machine.name)
        .bind(this)
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
    if same_name.is_some() {
        return Err(StoreError::NameTaken(machine.name.clone()));
    }
    for &mac in &machine.macs {
        let owner: Option<(String,)> = query(
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
    let addresses = [
        (
            "SELECT name FROM machines WHERE address = $1 AND id <> $2",
            machine.address.map(IpAddr::from),
        ),
        (
            "SELECT name FROM machines WHERE address6 = $1 AND id <> $2",
            machine.address6.map(IpAddr::from),
        ),
    ];
    for (text, address) in addresses {
        let Some(address) = address else { continue };
        let owner: Option<(String,)> = query(text)
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
