//! Entries as rows of the database.

use kiln_types::Mac;

use super::{DISCOVERED, brief, failed};
use crate::discovery::MOST_MACS;
use crate::identity::canonical;
use crate::store::db::{Tx, query};
use crate::store::row::{damaged, json};
use crate::{Discovered, StoreError, Stored};

pub(super) type Row = (i64, i64, String, Option<String>);

pub(super) fn read((id, revision, document, facts): Row) -> Result<Stored<Discovered>, StoreError> {
    let wrong = |text: &str| damaged("a discovered machine", text);
    let mut entry: Discovered = serde_json::from_str(&document).map_err(|_| wrong(&document))?;
    entry.facts = match facts {
        Some(text) => Some(serde_json::from_str(&text).map_err(|_| wrong(&text))?),
        None => None,
    };
    Ok(Stored { id, revision, document: entry })
}

pub(super) fn uuid(entry: &Discovered) -> Option<String> {
    entry.uuid.as_deref().map(canonical)
}

pub(super) async fn is_known(tx: &mut Tx, mac: Mac) -> Result<bool, StoreError> {
    let row: Option<(i64,)> = query("SELECT machine FROM machine_macs WHERE mac = $1")
        .bind(mac.to_string())
        .fetch_optional(tx)
        .await
        .map_err(StoreError::reading(DISCOVERED))?;
    Ok(row.is_some())
}

pub(super) async fn by_id(tx: &mut Tx, id: i64) -> Result<Option<Stored<Discovered>>, StoreError> {
    let row: Option<Row> =
        query("SELECT id, revision, document, facts FROM discovered WHERE id = $1")
            .bind(id)
            .fetch_optional(tx)
            .await
            .map_err(StoreError::reading(DISCOVERED))?;
    row.map(read).transpose()
}

/// Finds the entry of an interface: the one that has it, else the only one with its UUID, unless so many interfaces have
/// that one that no box can.
pub(super) async fn entry_of(
    tx: &mut Tx,
    mac: Mac,
    uuid: Option<String>,
) -> Result<Option<Stored<Discovered>>, StoreError> {
    let failed = StoreError::reading(DISCOVERED);
    let own: Option<(i64,)> = query("SELECT entry FROM discovered_macs WHERE mac = $1")
        .bind(mac.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(&failed)?;
    if let Some((id,)) = own {
        return by_id(tx, id).await;
    }
    let Some(uuid) = uuid else { return Ok(None) };
    let alike: Vec<(i64,)> = query("SELECT id FROM discovered WHERE uuid = $1 LIMIT 2")
        .bind(uuid)
        .fetch_all(&mut *tx)
        .await
        .map_err(&failed)?;
    let [(id,)] = alike.as_slice() else { return Ok(None) };
    let found = by_id(tx, *id).await?;
    Ok(found.filter(|entry| entry.document.macs.len() < MOST_MACS))
}

pub(super) async fn put(
    tx: &mut Tx,
    id: i64,
    entry: &Discovered,
    step: i64,
) -> Result<(), StoreError> {
    query(
        "UPDATE discovered SET revision = revision + $1, marked = $2, last = $3, uuid = $4, \
         document = $5, facts = $6 WHERE id = $7",
    )
    .bind(step)
    .bind(i64::from(entry.is_marked()))
    .bind(entry.last)
    .bind(uuid(entry))
    .bind(json(&brief(entry)))
    .bind(entry.facts.as_ref().map(json))
    .bind(id)
    .execute(&mut *tx)
    .await
    .map_err(failed)?;
    put_macs(tx, id, entry).await
}

pub(super) async fn put_macs(tx: &mut Tx, id: i64, entry: &Discovered) -> Result<(), StoreError> {
    for mac in &entry.macs {
        query(
            "INSERT INTO discovered_macs (mac, entry) VALUES ($1, $2) \
             ON CONFLICT (mac) DO UPDATE SET entry = excluded.entry",
        )
        .bind(mac.to_string())
        .bind(id)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
    }
    Ok(())
}

pub(super) async fn delete(tx: &mut Tx, id: i64) -> Result<(), StoreError> {
    let gone = query("DELETE FROM discovered WHERE id = $1").bind(id);
    gone.execute(tx).await.map_err(failed)?;
    Ok(())
}

pub(super) async fn make_room(tx: &mut Tx, most: u32) -> Result<(), StoreError> {
    query(
        "DELETE FROM discovered WHERE marked = 0 AND id IN (SELECT id FROM discovered \
         ORDER BY marked DESC, last DESC, id DESC LIMIT 9223372036854775807 OFFSET $1)",
    )
    .bind(i64::from(most))
    .execute(tx)
    .await
    .map_err(failed)?;
    Ok(())
}

/// Forgets the entry of an interface that a machine has now.
pub(in crate::store) async fn is_a_machine_now(tx: &mut Tx, mac: Mac) -> Result<(), StoreError> {
    query("DELETE FROM discovered WHERE id IN (SELECT entry FROM discovered_macs WHERE mac = $1)")
        .bind(mac.to_string())
        .execute(tx)
        .await
        .map_err(failed)?;
    Ok(())
}
