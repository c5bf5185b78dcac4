//! The lines of a backup, written and read, and their sum.

use std::io::{BufRead, Read as _, Write};

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{BackupError, BackupSummary, schema};
use crate::Lease;

/// Version of the form.
pub(super) const FORM: u32 = 1;
/// The longest line: facts of a machine and logs of a kernel are far below.
const LONGEST: u64 = 64 << 20;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Line {
    Head {
        #[serde(rename = "kiln-backup")]
        form: u32,
        schema: i64,
        made: i64,
    },
    Table {
        table: String,
        columns: Vec<String>,
        last: Option<i64>,
    },
    Row(Vec<Value>),
    Lease {
        lease: Lease,
    },
    File {
        file: String,
        hex: String,
    },
    End {
        end: u64,
        sha256: String,
    },
}

/// Writes lines and sums them.
pub(super) struct Out<'w> {
    pub(super) to: &'w mut (dyn Write + Send),
    pub(super) sum: Sha256,
    pub(super) lines: u64,
}

impl Out<'_> {
    pub(super) fn line(&mut self, line: &str) -> Result<(), BackupError> {
        let write = |to: &mut (dyn Write + Send)| {
            to.write_all(line.as_bytes())?;
            to.write_all(b"\n")
        };
        write(self.to).map_err(|error| BackupError::File("write", error))?;
        self.sum.update(line.as_bytes());
        self.sum.update(b"\n");
        self.lines += 1;
        Ok(())
    }
}

/// Reads lines, sums them and counts what is in them. The last one is checked and not returned.
pub(super) struct Lines<'r> {
    from: &'r mut (dyn BufRead + Send),
    sum: Sha256,
    lines: u64,
    table: Option<String>,
}

impl<'r> Lines<'r> {
    pub(super) fn new(from: &'r mut (dyn BufRead + Send)) -> Self {
        Self { from, sum: Sha256::new(), lines: 0, table: None }
    }

    pub(super) const fn damaged(&self, what: &'static str) -> BackupError {
        BackupError::Damaged { line: self.lines, what }
    }

    pub(super) fn next(
        &mut self,
        summary: &mut BackupSummary,
    ) -> Result<Option<Line>, BackupError> {
        let mut text = Vec::new();
        let mut from = (&mut *self.from).take(LONGEST);
        let read = from.read_until(b'\n', &mut text);
        read.map_err(|error| BackupError::File("read", error))?;
        self.lines += 1;
        if text.last() != Some(&b'\n') {
            return Err(self.damaged("the file ends here"));
        }
        let line =
            serde_json::from_slice(&text).map_err(|_| self.damaged("no line of a backup"))?;
        if (self.lines == 1) != matches!(line, Line::Head { .. }) {
            return Err(self.damaged("another first line"));
        }
        match &line {
            Line::Head { form, schema: made_from, made } => {
                if *form > FORM || *made_from > schema() {
                    return Err(BackupError::TooNew(*made_from));
                }
                (summary.made, summary.schema) = (*made, *made_from);
            }
            Line::Table { table, columns, .. } => {
                let plain = |name: &String| {
                    name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
                };
                if !plain(table) || !columns.iter().all(plain) || summary.rows.contains_key(table) {
                    return Err(self.damaged("an unknown table"));
                }
                summary.rows.insert(table.clone(), 0);
                self.table = Some(table.clone());
            }
            Line::Row(_) => {
                let rows = self.table.as_ref().and_then(|table| summary.rows.get_mut(table));
                match rows {
                    Some(rows) => *rows += 1,
                    None => return Err(self.damaged("a row without its table")),
                }
            }
            Line::Lease { .. } => summary.leases += 1,
            Line::File { file, .. } => summary.files.push(file.clone()),
            Line::End { end, sha256 } => {
                let sum = std::mem::take(&mut self.sum);
                let sum = kiln_types::Digest::from_bytes(sum.finalize().into()).hex();
                if *end != self.lines - 1 || *sha256 != sum {
                    return Err(self.damaged("the sum of all lines is another"));
                }
                let mut more = [0];
                return match self.from.read(&mut more) {
                    Ok(0) => Ok(None),
                    Ok(_) => Err(self.damaged("there is more behind the end")),
                    Err(error) => Err(BackupError::File("read", error)),
                };
            }
        }
        self.sum.update(&text);
        Ok(Some(line))
    }
}
