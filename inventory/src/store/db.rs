//! One SQL text for SQLite and PostgreSQL: a [`query`] is written once, and runs on either.

use sqlx::postgres::{PgArguments, PgPool, PgRow};
use sqlx::sqlite::{SqliteArguments, SqlitePool, SqliteRow};
use sqlx::{
    Arguments as _, AssertSqlSafe, FromRow, Postgres, SqlSafeStr as _, SqlStr, Sqlite, Transaction,
};

/// The connections to a database of either kind.
#[derive(Clone, Debug)]
pub(super) enum Db {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

impl Db {
    /// Starts a transaction that writes. In SQLite it holds the write lock from its start, so that it cannot fail
    /// half-way because of another writer.
    pub(super) async fn begin_write(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
            Self::Postgres(pool) => Tx::Postgres(pool.begin().await?),
        })
    }

    /// Starts a transaction that sees one state of the database, whatever others write meanwhile.
    pub(super) async fn begin_read(&self) -> Result<Tx, sqlx::Error> {
        Ok(match self {
            Self::Sqlite(pool) => Tx::Sqlite(pool.begin().await?),
            Self::Postgres(pool) => Tx::Postgres(
                pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?,
            ),
        })
    }

    pub(super) async fn close(&self) {
        match self {
            Self::Sqlite(pool) => pool.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

/// A transaction; dropped without a commit, it was never there.
pub(super) enum Tx {
    Sqlite(Transaction<'static, Sqlite>),
    Postgres(Transaction<'static, Postgres>),
}

impl Tx {
    pub(super) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(tx) => tx.commit().await,
            Self::Postgres(tx) => tx.commit().await,
        }
    }
}

/// On what a query runs.
pub(super) enum On<'a> {
    Db(&'a Db),
    Tx(&'a mut Tx),
}

impl<'a> From<&'a Db> for On<'a> {
    fn from(db: &'a Db) -> Self {
        Self::Db(db)
    }
}

impl<'a> From<&'a mut Tx> for On<'a> {
    fn from(tx: &'a mut Tx) -> Self {
        Self::Tx(tx)
    }
}

/// A value of a query: our columns hold texts and whole numbers.
#[derive(Clone, Debug)]
pub(super) enum Arg {
    Int(Option<i64>),
    Text(Option<String>),
}

impl From<i64> for Arg {
    fn from(value: i64) -> Self {
        Self::Int(Some(value))
    }
}

impl From<Option<i64>> for Arg {
    fn from(value: Option<i64>) -> Self {
        Self::Int(value)
    }
}

impl From<&str> for Arg {
    fn from(value: &str) -> Self {
        Self::Text(Some(value.to_owned()))
    }
}

impl From<Option<&str>> for Arg {
    fn from(value: Option<&str>) -> Self {
        Self::Text(value.map(str::to_owned))
    }
}

impl From<&String> for Arg {
    fn from(value: &String) -> Self {
        Self::from(value.as_str())
    }
}

impl From<&Option<String>> for Arg {
    fn from(value: &Option<String>) -> Self {
        Self::Text(value.clone())
    }
}

impl From<String> for Arg {
    fn from(value: String) -> Self {
        Self::Text(Some(value))
    }
}

impl From<Option<String>> for Arg {
    fn from(value: Option<String>) -> Self {
        Self::Text(value)
    }
}

/// What a row of either database is read into.
pub(super) trait Row:
    for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{
}

impl<T> Row for T where T: for<'r> FromRow<'r, SqliteRow> + for<'r> FromRow<'r, PgRow> + Send + Unpin
{}

/// A query and its values.
#[derive(Debug)]
pub(super) struct Query {
    sql: SqlStr,
    args: Vec<Arg>,
}

/// Begins a query. Values are `$1`, `$2` … in the text, and only there.
pub(super) fn query(sql: &'static str) -> Query {
    Query { sql: sql.into_sql_str(), args: Vec::new() }
}

/// Begins a query whose text was made of the names of tables and columns, and of nothing from outside.
pub(super) fn query_made(sql: String) -> Query {
    Query { sql: AssertSqlSafe(sql).into_sql_str(), args: Vec::new() }
}

/// Runs the same call of sqlx on whatever the query is to run on.
macro_rules! run {
    ($self:ident, $on:ident, $query:ident, |$made:ident, $executor:ident| $call:expr) => {{
        let Query { sql, args } = $self;
        match $on.into() {
            On::Db(Db::Sqlite($executor)) => {
                let $made = sqlx::$query(sql, sqlite(args)?);
                $call.await
            }
            On::Tx(Tx::Sqlite(tx)) => {
                let ($made, $executor) = (sqlx::$query(sql, sqlite(args)?), &mut **tx);
                $call.await
            }
            On::Db(Db::Postgres($executor)) => {
                let $made = sqlx::$query(sql, postgres(args)?);
                $call.await
            }
            On::Tx(Tx::Postgres(tx)) => {
                let ($made, $executor) = (sqlx::$query(sql, postgres(args)?), &mut **tx);
                $call.await
            }
        }
    }};
}

impl Query {
    /// Adds the next value.
    pub(super) fn bind(mut self, value: impl Into<Arg>) -> Self {
        self.args.push(value.into());
        self
    }

    /// Runs it and returns how many rows it changed.
    pub(super) async fn execute<'a>(self, on: impl Into<On<'a>>) -> Result<u64, sqlx::Error> {
        run!(self, on, query_with, |query, executor| async {
            query.execute(executor).await.map(|done| done.rows_affected())
        })
    }

    /// Runs it and returns every row.
    pub(super) async fn fetch_all<'a, T: Row>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<Vec<T>, sqlx::Error> {
        run!(self, on, query_as_with, |query, executor| query.fetch_all(executor))
    }

    /// Runs it and returns the first row, if there is one.
    pub(super) async fn fetch_optional<'a, T: Row>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<Option<T>, sqlx::Error> {
        run!(self, on, query_as_with, |query, executor| query.fetch_optional(executor))
    }

    /// Runs it and returns the first row, which there has to be.
    pub(super) async fn fetch_one<'a, T: Row>(
        self,
        on: impl Into<On<'a>>,
    ) -> Result<T, sqlx::Error> {
        run!(self, on, query_as_with, |query, executor| query.fetch_one(executor))
    }
}

fn sqlite(args: Vec<Arg>) -> Result<SqliteArguments, sqlx::Error> {
    let mut all = SqliteArguments::default();
    for arg in args {
        match arg {
            Arg::Int(value) => all.add(value),
            Arg::Text(value) => all.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(all)
}

/// PostgreSQL has no zero character in its texts. Machines and networks can send one, and that must not keep the rest
/// from being written.
fn postgres(args: Vec<Arg>) -> Result<PgArguments, sqlx::Error> {
    let mut all = PgArguments::default();
    for arg in args {
        match arg {
            Arg::Int(value) => all.add(value),
            Arg::Text(Some(text)) if text.contains('\0') => all.add(text.replace('\0', "\u{fffd}")),
            Arg::Text(value) => all.add(value),
        }
        .map_err(sqlx::Error::Encode)?;
    }
    Ok(all)
}
