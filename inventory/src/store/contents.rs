//! Reads everything that machines are described by, as it is at one moment.

use std::collections::{HashSet, VecDeque};

use sqlx::FromRow;
use tokio::task::JoinHandle;

use super::db::{Tx, query};
use super::documents::Stored;
use super::machines::{self, MACHINES, Row};
use super::news::{Mark, mark};
use super::{Store, StoreError};
use crate::{Group, Labels, Machine, MachineId, NewMachine};

/// Machines of one answer of the database. A row for each would cost more than all that is in it.
const PART: i64 = 1000;

/// Parts that are taken apart at once, at most: it bounds the memory that they take.
const AHEAD: usize = 4;

/// What machines are described by, at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// Until which change.
    pub mark: Mark,
    /// Every machine, oldest first.
    pub machines: Vec<Machine>,
    /// Every group, oldest first.
    pub groups: Vec<Stored<Group>>,
}

impl Store {
    /// Returns every machine and every group.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn contents(&self) -> Result<Contents, StoreError> {
        let mut tx = self.db.begin_read().await.map_err(StoreError::reading(MACHINES))?;
        contents(&mut tx).await
    }
}

pub(super) async fn contents(tx: &mut Tx) -> Result<Contents, StoreError> {
    Ok(Contents {
        mark: mark(tx).await?,
        machines: machines(tx).await?,
        groups: super::documents::all(tx).await?,
    })
}

/// Some machines after one another, as a JSON array of what is in their columns.
#[derive(FromRow)]
struct Part {
    last: Option<i64>,
    rows: Option<String>,
}

/// Reads every machine, oldest first. While the database makes up a part, those before it are taken apart elsewhere.
pub(super) async fn machines(tx: &mut Tx) -> Result<Vec<Machine>, StoreError> {
    let mut parts: VecDeque<JoinHandle<serde_json::Result<Vec<Machine>>>> = VecDeque::new();
    let mut all: Vec<Machine> = Vec::new();
    let mut after = i64::MIN;
    let mut is_last = false;
    while !is_last || !parts.is_empty() {
        if !is_last && parts.len() < AHEAD {
            match read_part(tx, after).await? {
                Part { last: Some(last), rows: Some(rows) } => {
                    after = last;
                    parts.push_back(tokio::task::spawn_blocking(move || parse(&rows)));
                }
                _ => is_last = true,
            }
        } else if let Some(part) = parts.pop_front() {
            match part.await {
                Ok(Ok(machines)) => all.extend(machines),
                // It is found where it is.
                _ => return one_by_one(tx).await,
            }
        }
    }
    if !all.is_sorted_by_key(|machine| machine.id) {
        all.sort_by_key(|machine| machine.id);
    }
    Ok(all)
}

async fn read_part(tx: &mut Tx, after: i64) -> Result<Part, StoreError> {
    let part = query(match tx {
        Tx::Sqlite(_) => {
            "SELECT MAX(id) AS last, '[' || group_concat('[' || id || ',' || revision || ',' || spec || ']') \
             || ']' AS rows FROM (SELECT id, revision, spec FROM machines WHERE id > $1 ORDER BY id LIMIT $2)"
        }
        Tx::Postgres(_) => {
            "SELECT MAX(id) AS last, '[' || string_agg('[' || id || ',' || revision || ',' || spec || ']', ',') \
             || ']' AS rows FROM (SELECT id, revision, spec FROM machines WHERE id > $1 ORDER BY id LIMIT $2) part"
        }
    });
    part.bind(after).bind(PART).fetch_one(tx).await.map_err(StoreError::reading(MACHINES))
}

/// Takes a part apart. Machines of it that have the same labels share them.
fn parse(rows: &str) -> serde_json::Result<Vec<Machine>> {
    let rows: Vec<(MachineId, i64, NewMachine)> = serde_json::from_str(rows)?;
    let mut known = HashSet::new();
    let machine = |(id, revision, mut spec): (_, _, NewMachine)| {
        match known.get(&spec.labels) {
            Some(labels) => spec.labels = Labels::clone(labels),
            None => drop(known.insert(spec.labels.clone())),
        }
        Machine { id, revision, spec }
    };
    Ok(rows.into_iter().map(machine).collect())
}

/// The long way, which says what is wrong with which machine.
async fn one_by_one(tx: &mut Tx) -> Result<Vec<Machine>, StoreError> {
    let rows: Vec<Row> = query("SELECT id, revision, spec FROM machines ORDER BY id")
        .fetch_all(tx)
        .await
        .map_err(StoreError::reading(MACHINES))?;
    rows.into_iter().map(machines::read).collect()
}
