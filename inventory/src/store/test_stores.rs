//! One empty inventory of each kind for a test, which runs on both.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _};
use tempfile::TempDir;

use super::{Database, Store};

/// A PostgreSQL of this process: it goes away when the pipe to it closes, which the end of the process does.
struct Server {
    socket: PathBuf,
    // Its standard input is the pipe.
    _process: Child,
}

static SERVER: LazyLock<Server> = LazyLock::new(|| {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/postgres.sh");
    let mut child = Command::new(&script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {}: {error}", script.display()));
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(line.starts_with('/'), "{} failed, see above", script.display());
    Server { socket: PathBuf::from(line.trim()), _process: child }
});

static DATABASES: AtomicU64 = AtomicU64::new(0);

/// Where a test keeps its inventory.
pub(crate) struct Home {
    pub(crate) database: Database,
    _dir: Option<TempDir>,
}

impl Home {
    fn sqlite() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::Sqlite(dir.path().join("kiln.db"));
        Self { database, _dir: Some(dir) }
    }

    /// A database with nothing in it yet.
    pub(crate) async fn postgres() -> Self {
        let name = format!("test{}", DATABASES.fetch_add(1, Ordering::Relaxed));
        run_in_server(format!("CREATE DATABASE {name}")).await;
        let socket = SERVER.socket.display();
        let database = format!("postgres:///{name}?host={socket}&user=kiln").parse().unwrap();
        Self { database, _dir: None }
    }

    /// Takes a database away, whoever uses it.
    pub(crate) async fn drop_database(&self, name: &str) {
        let drop = format!("DROP DATABASE {name} WITH (FORCE)");
        run_in_server(drop).await;
    }

    pub(crate) fn is_postgres(&self) -> bool {
        self.database.file().is_none()
    }

    /// Opens the inventory once more, as a server does that starts anew or another server.
    pub(crate) async fn open(&self) -> Store {
        Store::connect(&self.database).await.unwrap()
    }
}

async fn run_in_server(statement: String) {
    let server = PgConnectOptions::new_without_pgpass()
        .socket(&SERVER.socket)
        .username("kiln")
        .database("postgres");
    let mut connection: PgConnection = server.connect().await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

/// Returns an empty inventory in a file, and one in a database of PostgreSQL.
pub(crate) async fn stores() -> [(Home, Store); 2] {
    let (file, server) = (Home::sqlite(), Home::postgres().await);
    let (first, second) = (file.open().await, server.open().await);
    [(file, first), (server, second)]
}
