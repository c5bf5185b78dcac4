use std::io;
use std::net::IpAddr;

use kiln_types::Mac;
use sqlx::migrate::MigrateError;

use super::Database;

/// An operation of the [`Store`](crate::Store) that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file could not be opened.
    #[error("cannot open the database {database}")]
    Open {
        /// Which one.
        database: Database,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// SQLite could not open the file.
    #[error("cannot open the database {database}{}", trouble(source))]
    Connect {
        /// Which one.
        database: Database,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The file is damaged or something else than a database.
    #[error("{database} is no database or is damaged; move it away or put a backup in its place")]
    NotADatabase {
        /// Which one.
        database: Database,
        /// What SQLite says.
        #[source]
        source: sqlx::Error,
    },
    /// A newer program wrote the file.
    #[error(
        "the database {database} was written by a newer Kiln (it has migration {version}); \
         run that version or put a backup in its place"
    )]
    TooNew {
        /// Which one.
        database: Database,
        /// Migration that this program does not know.
        version: i64,
    },
    /// The tables could not be brought up to date.
    #[error("cannot bring the tables of the database {database} up to date")]
    Migrate {
        /// Which one.
        database: Database,
        /// Why.
        #[source]
        source: MigrateError,
    },
    /// Something could not be read.
    #[error("cannot read {what} from the database{}", trouble(source))]
    Read {
        /// What was to be read.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// Something could not be written.
    #[error("cannot write {what} to the database{}", trouble(source))]
    Write {
        /// What was to be written.
        what: &'static str,
        /// Why.
        #[source]
        source: sqlx::Error,
    },
    /// The file is not there any more, or another one is in its place.
    #[error(
        "the database {database} was moved or removed while it was in use, and what is written would be lost; \
         put the file back, or start the server anew"
    )]
    Gone {
        /// Which one.
        database: Database,
    },
    /// The database is there and says nothing.
    #[error("the database does not answer; see whether its server and the way to it are all right")]
    Silent,
    /// More boots have begun while the database is away than were provided for.
    #[error(
        "no number is left for a boot that begins while the database cannot be written; see whether its server runs"
    )]
    NoSpareBoot,
    /// A row holds what this program never writes.
    #[error(
        "the database holds `{value}` where {what} belongs; correct it or put a backup in its place"
    )]
    Row {
        /// What belongs there.
        what: &'static str,
        /// What is there.
        value: String,
    },
    /// Someone else changed it since it was read.
    #[error(
        "{noun} `{name}` was changed since you read it (its revision is {found}, not {expected}); read it again"
    )]
    Changed {
        /// What kind of noun.
        noun: &'static str,
        /// Its name.
        name: String,
        /// The revision that the caller knows.
        expected: i64,
        /// The revision that it has.
        found: i64,
    },
    /// Another one has the name, or the key.
    #[error("there is {} `{name}` already", called(noun))]
    Taken {
        /// What kind of noun.
        noun: &'static str,
        /// The one that there is.
        name: String,
    },
    /// It is described elsewhere; the text says where.
    #[error("{0}")]
    Owned(String),
    /// The machine is locked.
    #[error("machine `{0}` is locked; `kiln machine unlock {0}` lets it be changed")]
    Locked(String),
    /// It is refused; the text says why.
    #[error("{0}")]
    Invalid(String),
    /// The name cannot be a host name.
    #[error(
        "`{0}` cannot be the name of a machine; use at most 63 lower-case letters, digits and `-`, \
         with a letter or digit at both ends"
    )]
    Name(String),
    /// The machine has no interface.
    #[error("machine `{0}` has no MAC address; give at least one")]
    NoMac(String),
    /// The address names no single interface.
    #[error("{0} is not the MAC address of one interface")]
    GroupMac(Mac),
    /// The address cannot be reserved.
    #[error("{0} cannot be the address of a machine")]
    Address(IpAddr),
    /// The kernel arguments cannot be passed on by a loader.
    #[error("kernel arguments `{0}` hold {1}, which the loader cannot pass on; leave it out")]
    Cmdline(String, &'static str),
    /// The metadata goes beyond a bound.
    #[error("the metadata of machine `{0}` {1}")]
    Metadata(String, &'static str),
    /// Another machine has the name.
    #[error("there is a machine `{0}` already; choose another name")]
    NameTaken(String),
    /// Another machine has the interface.
    #[error("{mac} belongs to machine `{machine}` already")]
    MacTaken {
        /// The interface.
        mac: Mac,
        /// The machine that has it.
        machine: String,
    },
    /// The address is reserved for another machine.
    #[error("{address} is reserved for machine `{machine}` already")]
    AddressTaken {
        /// The address.
        address: IpAddr,
        /// The machine that has it.
        machine: String,
    },
}

/// Returns what one of a noun is called.
fn called(noun: &str) -> String {
    match noun {
        "expected" => "an expected machine".to_owned(),
        noun => format!("a {}", noun.replace('-', " ")),
    }
}

impl StoreError {
    /// Returns whether the operation was refused because something is taken already.
    pub const fn is_conflict(&self) -> bool {
        matches!(
            self,
            Self::NameTaken(_)
                | Self::MacTaken { .. }
                | Self::AddressTaken { .. }
                | Self::Taken { .. }
                | Self::Locked(_)
                | Self::Owned(_)
        )
    }

    /// Returns whether the same operation may work later: the database is busy, full, or cannot be reached.
    pub fn is_unavailable(&self) -> bool {
        match self {
            Self::Gone { .. } | Self::Silent | Self::NoSpareBoot => true,
            Self::Read { source, .. }
            | Self::Write { source, .. }
            | Self::Connect { source, .. } => !trouble(source).is_empty(),
            _ => false,
        }
    }

    /// Returns whether the operation was refused because the noun is not what the caller thinks.
    pub const fn is_changed(&self) -> bool {
        matches!(self, Self::Changed { .. })
    }

    pub(super) fn unless_same(
        noun: &'static str,
        name: &str,
        found: i64,
        expected: Option<i64>,
    ) -> Result<(), Self> {
        match expected {
            Some(expected) if expected != found => {
                Err(Self::Changed { noun, name: name.to_owned(), expected, found })
            }
            _ => Ok(()),
        }
    }

    /// Returns whether what was asked for is wrong in itself.
    pub const fn is_invalid(&self) -> bool {
        matches!(
            self,
            Self::Name(_)
                | Self::Invalid(_)
                | Self::NoMac(_)
                | Self::GroupMac(_)
                | Self::Address(_)
                | Self::Cmdline(..)
                | Self::Metadata(..)
        )
    }

    /// Returns whether the same operation will never work, because of what it writes.
    pub fn is_lasting(&self) -> bool {
        use sqlx::error::ErrorKind::{
            CheckViolation, ForeignKeyViolation, NotNullViolation, UniqueViolation,
        };
        let Self::Write { source, .. } = self else { return false };
        source.as_database_error().is_some_and(|error| {
            // Class 22 of PostgreSQL: a value that its column cannot hold.
            let value = error.code().is_some_and(|code| code.len() == 5 && code.starts_with("22"));
            value
                || matches!(
                    error.kind(),
                    CheckViolation | ForeignKeyViolation | NotNullViolation | UniqueViolation
                )
        })
    }

    pub(super) fn reading(what: &'static str) -> impl Fn(sqlx::Error) -> Self {
        move |source| Self::Read { what, source }
    }

    pub(super) const fn writing(what: &'static str, source: sqlx::Error) -> Self {
        Self::Write { what, source }
    }

    pub(super) fn opening(database: &Database, source: sqlx::Error) -> Self {
        let database = database.clone();
        // SQLITE_CORRUPT is 11, SQLITE_NOTADB 26; further details are in the bits above the lowest eight.
        let damaged = database.file().is_some()
            && source
                .as_database_error()
                .and_then(|error| error.code())
                .and_then(|code| code.parse::<u32>().ok())
                .is_some_and(|code| matches!(code & 0xff, 11 | 26));
        if damaged {
            Self::NotADatabase { database, source }
        } else {
            Self::Connect { database, source }
        }
    }
}

/// Says in words what is the matter with the database itself, and what to do; nothing when it is something else.
fn trouble(error: &sqlx::Error) -> &'static str {
    const BUSY: &str = ": another program holds it for too long, such as a shell or a backup; end that one, or try again";
    const FULL: &str = ": there is no room left on its disk; make room";
    const AWAY: &str = ": it cannot be reached; see whether its server runs";
    const DISK: &str = ": its disk fails or its folder is gone; see the log of the kernel";
    let error = match error {
        sqlx::Error::Database(error) => error,
        sqlx::Error::PoolTimedOut => {
            return ": it cannot be reached, or is too busy to answer; see whether its server runs";
        }
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) => return AWAY,
        sqlx::Error::Tls(_) => {
            return ": TLS with its server fails; see `sslmode` and `sslrootcert` in its address";
        }
        _ => return "",
    };
    let Some(code) = error.code() else { return "" };
    match (&*code, code.parse::<u32>()) {
        // PostgreSQL: five letters, of which the first two are the class.
        ("53100", _) => FULL,
        ("53300", _) => ": its server has too many connections; raise `max_connections` there",
        ("55P03" | "57014", _) => BUSY,
        ("28000" | "28P01", _) => ": its server refuses the user or the password",
        ("3D000", _) => ": its server has no database of that name; make it with `createdb`",
        ("25006", _) => ": it may only be read for now; see whether its server is a standby",
        ("42501", _) => ": its user may not do that; the user has to own the database",
        (code, _) if code.len() == 5 && (code.starts_with("57P") || code.starts_with("08")) => AWAY,
        (code, _) if code.len() == 5 && code.starts_with("53") => {
            ": its server has no resources left"
        }
        // SQLite: a number, of which the lowest eight bits are the kind.
        (code, Ok(number)) if code.len() < 5 => match number & 0xff {
            5 | 6 => BUSY,
            13 => FULL,
            10 | 14 => DISK,
            8 => ": it may only be read; see its owner and mode",
            _ => "",
        },
        _ => "",
    }
}
