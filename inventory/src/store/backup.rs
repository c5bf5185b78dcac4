//! Backups: everything that the database holds as lines of JSON, the same from either kind of database.
//!
//! ```text
//! {"kiln-backup":1,"schema":8,"made":1766000000000}
//! {"table":"machines","columns":["id","name",…],"last":12}
//! [1,"n1",…]
//! {"lease":{…}}                       leases that were not in the database yet
//! {"file":"site.key","hex":"…"}       where keys were asked for
//! {"end":4711,"sha256":"…"}           lines before this one, and their hash
//! ```

mod lines;
pub(super) mod tables;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{self, BufRead, Write};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use self::lines::{FORM, Line, Lines, Out};
use self::tables::{arg, catalog, in_order, last_id, select, set_last_id};
use super::db::{query, query_made};
use super::edit::tell;
use super::row::json;
use super::servers::UNNUMBERED;
use super::{SQLITE, Store, StoreError};
use crate::Lease;

/// Rows that are read at a time.
const PAGE: i64 = 1000;
/// What an inventory without these is empty of.
const CONTENT: &str = "SELECT (SELECT count(*) FROM machines) + (SELECT count(*) FROM documents) \
                       + (SELECT count(*) FROM boots) + (SELECT count(*) FROM changes)";

/// What is in a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct BackupSummary {
    /// When it was made, in milliseconds since 1970.
    pub made: i64,
    /// Migration of the tables it was made from.
    pub schema: i64,
    /// Rows of each table.
    pub rows: BTreeMap<String, u64>,
    /// Leases that were not in the tables.
    pub leases: u64,
    /// Files that are in it, which are keys.
    pub files: Vec<String>,
}

/// A file in a backup, by its name.
pub type BackupFile = (String, Vec<u8>);

/// A backup cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The database fails.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The file fails.
    #[error("cannot {0} the backup")]
    File(&'static str, #[source] io::Error),
    /// It is none, or damaged.
    #[error("line {line}: {what}; this is no whole backup of Kiln")]
    Damaged {
        /// Where.
        line: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A newer program made it.
    #[error("a newer Kiln made this backup (it has migration {0}); restore it with that version")]
    TooNew(i64),
    /// There is something already.
    #[error("the inventory is not empty: {0} machines, boots and changes would be replaced")]
    NotEmpty(i64),
}

impl Store {
    /// Writes all of the inventory as it is at one moment, while others go on writing it. The leases are those that are
    /// not in the database yet.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or the backup not be written.
    pub async fn back_up(
        &self,
        to: &mut (dyn Write + Send),
        leases: &[Lease],
        files: &[BackupFile],
    ) -> Result<BackupSummary, BackupError> {
        const BACKUP: &str = "everything";
        let mut out = Out { to, sum: Sha256::new(), lines: 0 };
        let mut summary = BackupSummary { made: now(), schema: schema(), ..Default::default() };
        out.line(&json(&Line::Head { form: FORM, schema: summary.schema, made: summary.made }))?;
        let reading = StoreError::reading(BACKUP);
        let mut tx = self.db.begin_read().await.map_err(&reading)?;
        for (table, columns) in in_order(catalog(&mut tx).await?) {
            let names: Vec<String> = columns.into_iter().map(|(name, _)| name).collect();
            let last = last_id(&mut tx, &table).await?;
            let line = Line::Table { table: table.clone(), columns: names.clone(), last };
            out.line(&json(&line))?;
            let mut rows = 0;
            let select = select(&tx, &table, &names);
            let by_id = names.iter().any(|name| name == "id");
            let mut from = if by_id { i64::MIN } else { 0 };
            loop {
                let page: Vec<(i64, String)> = query_made(select.clone())
                    .bind(from)
                    .bind(PAGE)
                    .fetch_all(&mut tx)
                    .await
                    .map_err(&reading)?;
                let Some((id, _)) = page.last() else { break };
                from = if by_id { *id } else { from + PAGE };
                for (_, row) in page {
                    out.line(&row)?;
                    rows += 1;
                }
            }
            summary.rows.insert(table, rows);
        }
        drop(tx);
        for lease in leases {
            out.line(&json(&Line::Lease { lease: lease.clone() }))?;
            summary.leases += 1;
        }
        for (file, content) in files {
            let hex = content.iter().fold(String::new(), |mut hex, byte| {
                let _ = write!(hex, "{byte:02x}");
                hex
            });
            out.line(&json(&Line::File { file: file.clone(), hex }))?;
            summary.files.push(file.clone());
        }
        let Out { to, sum, lines } = out;
        let sha256 = kiln_types::Digest::from_bytes(sum.finalize().into()).hex();
        let end = json(&Line::End { end: lines, sha256 });
        let written = writeln!(to, "{end}").and_then(|()| to.flush());
        written.map_err(|error| BackupError::File("write", error))?;
        Ok(summary)
    }

    /// Takes everything from a backup but the files that are in it, all or nothing. Unless told to replace what there is,
    /// only into an empty inventory. Look at it with [`verify_backup`] first, which returns the files: until its end is
    /// read, nobody knows whether it is whole.
    ///
    /// # Errors
    ///
    /// When the backup is damaged, or the database is not empty or cannot be written. Nothing has changed then.
    pub async fn restore(
        &self,
        from: &mut (dyn BufRead + Send),
        replace: bool,
    ) -> Result<BackupSummary, BackupError> {
        const RESTORE: &str = "what was restored";
        let failed = |source| StoreError::writing(RESTORE, source);
        let mut tx = self.write_alone(RESTORE).await?;
        let (content,): (i64,) = query(CONTENT).fetch_one(&mut tx).await.map_err(failed)?;
        if content > 0 && !replace {
            return Err(BackupError::NotEmpty(content));
        }
        let catalog = catalog(&mut tx).await?;
        for (table, _) in in_order(catalog.clone()).into_iter().rev() {
            query_made(format!("DELETE FROM {table}")).execute(&mut tx).await.map_err(failed)?;
        }
        let mut lines = Lines::new(from);
        let mut summary = BackupSummary::default();
        let mut leases = Vec::new();
        let mut into: Option<(String, Vec<bool>)> = None;
        while let Some(line) = lines.next(&mut summary)? {
            match line {
                Line::Table { table, columns, last } => {
                    let known =
                        catalog.get(&table).ok_or_else(|| lines.damaged("an unknown table"))?;
                    let kind = |name: &String| {
                        let column = known.iter().find(|(known, _)| known == name);
                        column.map(|(_, number)| *number)
                    };
                    let kinds: Option<Vec<bool>> = columns.iter().map(kind).collect();
                    let kinds = kinds.ok_or_else(|| lines.damaged("an unknown column"))?;
                    if let Some(last) = last {
                        set_last_id(&mut tx, &table, last).await?;
                    }
                    let values: Vec<_> = (1..=kinds.len()).map(|n| format!("${n}")).collect();
                    let (columns, values) = (columns.join(", "), values.join(", "));
                    into =
                        Some((format!("INSERT INTO {table} ({columns}) VALUES ({values})"), kinds));
                }
                Line::Row(row) => {
                    let (insert, kinds) =
                        into.as_ref().ok_or_else(|| lines.damaged("a row without its table"))?;
                    if row.len() != kinds.len() {
                        return Err(lines.damaged("a row of another length"));
                    }
                    let mut insert = query_made(insert.clone());
                    for (value, number) in row.into_iter().zip(kinds) {
                        let value = arg(value, *number);
                        insert = insert.bind(value.ok_or_else(|| lines.damaged("a wrong value"))?);
                    }
                    insert.execute(&mut tx).await.map_err(failed)?;
                }
                Line::Lease { lease } => leases.push(lease),
                Line::File { .. } | Line::Head { .. } | Line::End { .. } => {}
            }
        }
        self.put_leases(&mut tx, &leases).await?;
        // The log of changes may end where it did, with another story.
        tell(&mut tx, UNNUMBERED).await.map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(summary)
    }
}

/// Reads a backup to its end, and returns what is in it and the files.
///
/// # Errors
///
/// When it is not whole, or no backup.
pub fn verify_backup(
    from: &mut (dyn BufRead + Send),
) -> Result<(BackupSummary, Vec<BackupFile>), BackupError> {
    let mut lines = Lines::new(from);
    let mut summary = BackupSummary::default();
    let mut files = Vec::new();
    while let Some(line) = lines.next(&mut summary)? {
        if let Line::File { file, hex } = line {
            let content = unhex(&hex).ok_or_else(|| lines.damaged("a file that is none"))?;
            files.push((file, content));
        }
    }
    Ok((summary, files))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The newest migration of this program; both kinds of database are numbered alike.
fn schema() -> i64 {
    SQLITE.iter().map(|migration| migration.version).max().unwrap_or(0)
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |digit: u8| char::from(digit).to_digit(16);
    let byte = |[high, low]: &[u8; 2]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok();
    if rest.is_empty() { pairs.iter().map(byte).collect() } else { None }
}
