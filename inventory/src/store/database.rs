//! Where the inventory is: a file of SQLite, or a database of a PostgreSQL server.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// Where the inventory is.
///
/// As text it is the path of a file, or `postgres://user@host/database`. Shown, it never has a password in it.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file of SQLite, for one server.
    Sqlite(PathBuf),
    /// A database of PostgreSQL, which several servers may share.
    Postgres(PostgresUrl),
}

/// The address of a database of PostgreSQL, perhaps with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct PostgresUrl(String);

impl PostgresUrl {
    pub(super) fn options(&self) -> Result<PgConnectOptions, sqlx::Error> {
        PgConnectOptions::from_str(&self.0)
    }
}

/// A text that names no database. The text is not repeated: it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}; write the path of a file, or `postgres://user@host/database`")]
pub struct ParseDatabaseError(&'static str);

impl FromStr for Database {
    type Err = ParseDatabaseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((scheme, _)) = text.split_once("://") else {
            if text.is_empty() || text.contains('\0') {
                return Err(ParseDatabaseError("a file needs a name"));
            }
            return Ok(Self::Sqlite(PathBuf::from(text)));
        };
        if !matches!(scheme, "postgres" | "postgresql") {
            return Err(ParseDatabaseError("only databases of PostgreSQL have an address"));
        }
        let url = PostgresUrl(text.to_owned());
        let options = url
            .options()
            .map_err(|_| ParseDatabaseError("this is not the address of a database"))?;
        if options.get_database().is_none_or(str::is_empty) {
            return Err(ParseDatabaseError("the address does not name a database"));
        }
        Ok(Self::Postgres(url))
    }
}

impl Database {
    /// Returns the file, where it is one.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Sqlite(path) => Some(path),
            Self::Postgres(_) => None,
        }
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => {
                let Ok(options) = url.options() else { return f.write_str("postgres://…") };
                write!(f, "postgres://{}@", options.get_username())?;
                match options.get_socket() {
                    Some(socket) => socket.display().fmt(f)?,
                    None => write!(f, "{}:{}", options.get_host(), options.get_port())?,
                }
                write!(f, "/{}", options.get_database().unwrap_or_default())
            }
        }
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Database({self})")
    }
}

impl fmt::Debug for PostgresUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PostgresUrl(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_a_file_or_an_address_and_shows_no_password() {
        let file: Database = "/var/lib/kiln/inventory.db".parse().unwrap();
        assert_eq!(file.file(), Some(Path::new("/var/lib/kiln/inventory.db")));
        for (text, shown) in [
            ("postgres://kiln:hunter2@db.lab:5433/kiln", "postgres://kiln@db.lab:5433/kiln"),
            (
                "postgresql://kiln:hunter2@db/kiln?sslmode=verify-full",
                "postgres://kiln@db:5432/kiln",
            ),
            (
                "postgres:///kiln?host=/run/postgresql&user=kiln&password=hunter2",
                "postgres://kiln@/run/postgresql/kiln",
            ),
        ] {
            let database: Database = text.parse().unwrap();
            assert_eq!(database.to_string(), shown);
            assert!(!format!("{database:?}").contains("hunter2"));
            assert_eq!(database.file(), None);
        }
    }

    #[test]
    fn what_is_no_database_is_refused_without_its_password() {
        for text in [
            "",
            "mysql://kiln:hunter2@db/kiln",
            "postgres://kiln:hunter2@db:port/kiln",
            "postgres://kiln:hunter2@db",
            "postgres://kiln:hunter2@db/kiln?sslmode=some",
        ] {
            let error = text.parse::<Database>().unwrap_err().to_string();
            assert!(error.contains("postgres://user@host/database"), "{text}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
