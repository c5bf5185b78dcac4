//! What tables there are, and what is in them, whatever they are called.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::store::StoreError;
use crate::store::db::{Arg, Tx, query};

/// Tables that others refer to; they come first.
const FIRST: [&str; 3] = ["servers", "machines", "boots"];

/// The columns of each table, and whether they hold numbers.
pub(super) type Catalog = BTreeMap<String, Vec<(String, bool)>>;

pub(super) fn in_order(mut catalog: Catalog) -> Vec<(String, Vec<(String, bool)>)> {
    let first: Vec<_> = FIRST.iter().filter_map(|name| catalog.remove_entry(*name)).collect();
    first.into_iter().chain(catalog).collect()
}

pub(super) async fn catalog(tx: &mut Tx) -> Result<Catalog, StoreError> {
    let columns = match tx {
        Tx::Sqlite(_) => {
            "SELECT m.name, c.name, lower(c.type) FROM sqlite_schema m, pragma_table_info(m.name) c \
             WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%' AND m.name NOT LIKE '_sqlx%' \
             ORDER BY m.name, c.cid"
        }
        Tx::Postgres(_) => {
            "SELECT table_name::text, column_name::text, data_type::text \
             FROM information_schema.columns WHERE table_schema = current_schema() \
             AND table_name NOT LIKE '\\_sqlx%' ORDER BY table_name, ordinal_position"
        }
    };
    let rows: Vec<(String, String, String)> =
        query(columns).fetch_all(tx).await.map_err(StoreError::reading("its tables"))?;
    let mut catalog = Catalog::new();
    for (table, column, kind) in rows {
        catalog.entry(table).or_default().push((column, kind != "text"));
    }
    Ok(catalog)
}

/// The rows of a table, each with its place, from a place on.
pub(super) fn select(tx: &Tx, table: &str, columns: &[String]) -> String {
    let all = columns.join(", ");
    let row = match tx {
        Tx::Sqlite(_) => format!("json_array({all})"),
        Tx::Postgres(_) => format!("json_build_array({all})::text"),
    };
    if columns.iter().any(|name| name == "id") {
        format!("SELECT id, {row} FROM {table} WHERE id > $1 ORDER BY id LIMIT $2")
    } else {
        format!("SELECT CAST(0 AS BIGINT), {row} FROM {table} ORDER BY {all} LIMIT $2 OFFSET $1")
    }
}

/// Returns the last id that a table gave, so that none is given twice.
pub(in crate::store) async fn last_id(tx: &mut Tx, table: &str) -> Result<Option<i64>, StoreError> {
    let last = match tx {
        Tx::Sqlite(_) => "SELECT seq FROM sqlite_sequence WHERE name = $1",
        Tx::Postgres(_) => {
            "SELECT pg_sequence_last_value(pg_get_serial_sequence($1, 'id')::regclass) FROM \
             information_schema.columns WHERE table_schema = current_schema() AND table_name = $1 \
             AND column_name = 'id' AND is_identity = 'YES'"
        }
    };
    let row: Option<(Option<i64>,)> = query(last)
        .bind(table)
        .fetch_optional(tx)
        .await
        .map_err(StoreError::reading("the last ids"))?;
    Ok(row.and_then(|(last,)| last))
}

pub(super) async fn set_last_id(tx: &mut Tx, table: &str, last: i64) -> Result<(), StoreError> {
    let failed = |source| StoreError::writing("the last ids", source);
    if matches!(tx, Tx::Sqlite(_)) {
        let forget = "DELETE FROM sqlite_sequence WHERE name = $1";
        query(forget).bind(table).execute(&mut *tx).await.map_err(failed)?;
        let set = "INSERT INTO sqlite_sequence (name, seq) VALUES ($1, $2)";
        query(set).bind(table).bind(last).execute(tx).await.map_err(failed)?;
    } else {
        let set = "SELECT setval(pg_get_serial_sequence($1, 'id'), $2) WHERE $2 > 0";
        query(set).bind(table).bind(last).execute(tx).await.map_err(failed)?;
    }
    Ok(())
}

pub(super) fn arg(value: Value, number: bool) -> Option<Arg> {
    Some(match (value, number) {
        (Value::Null, true) => Arg::Int(None),
        (Value::Null, false) => Arg::Text(None),
        (Value::Number(value), true) => Arg::Int(Some(value.as_i64()?)),
        (Value::String(value), false) => Arg::Text(Some(value)),
        _ => return None,
    })
}
