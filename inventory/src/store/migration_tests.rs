//! Databases of earlier programs, and of later ones.

use std::collections::BTreeSet;

use kiln_types::Arch;
use sqlx::AssertSqlSafe;
use sqlx::migrate::Migrator;
use sqlx::postgres::PgPool;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::db::query;
use super::test_stores::{Home, stores};
use super::tests::machine;
use super::*;
use crate::{BootId, Group, Machine, MachineId, NewMachine, OrderId, OrderState, Phase, Pools};

/// What a program had in its file that knew the migrations up to a number, besides what those before it had.
const HAD: [(i64, &str); 6] = [
    (
        1,
        "INSERT INTO machines VALUES (3, 'n3', NULL, NULL, NULL, NULL, '', '{}'), \
         (4, 'n4', 'u', 'arm64', 'web:edge', '10.0.0.4', 'quiet', '{\"a\":\"b\"}'); \
         INSERT INTO machine_macs VALUES ('52:54:00:00:00:01', 3), ('52:54:00:00:00:02', 4), \
         ('52:54:00:00:00:03', 4); \
         INSERT INTO leases VALUES ('10.0.0.9', '52:54:00:00:00:09', 77, 'n9'); \
         INSERT INTO boots (id, machine, machine_name, mac, started, outcome) VALUES \
         (7, 4, 'n4', '52:54:00:00:00:02', 5, 'healthy'); \
         INSERT INTO boot_events (boot, at, phase, detail) VALUES (7, 6, 'kernel', 'vmlinuz'); \
         INSERT INTO sightings VALUES ('52:54:00:00:00:08', 'ipxe', 'bios', NULL, 1, 2, 3);",
    ),
    (
        2,
        "INSERT INTO orders (machine, machine_name, boot, kind, arguments, asked, asked_by, \
         expires, state, answer) VALUES (4, 'n4', 7, 'reboot', '{\"kind\":\"reboot\"}', 1, 'uid 0', 2, \
         'done', 'started anew'); \
         INSERT INTO boot_tokens VALUES (7, '0707070707070707070707070707070707070707070707070707070707070707');",
    ),
    (
        3,
        "INSERT INTO machine_facts VALUES (4, 7, 9, '{}'); \
         INSERT INTO kernel_logs VALUES (7, 9, 'oops'); \
         UPDATE boots SET kernel_start = 8; UPDATE boot_events SET took = 11;",
    ),
    (4, "UPDATE machines SET state_disk = 'serial:X' WHERE id = 4;"),
    (5, "UPDATE machines SET spec = json_set(spec, '$.loader', 'grub') WHERE id = 4;"),
    (
        6,
        "INSERT INTO leases6 VALUES ('fd77::9', '000409', 7, NULL, 88); \
         UPDATE machines SET address6 = 'fd77::4', spec = json_set(spec, '$.address6', 'fd77::4') WHERE id = 4;",
    ),
];

/// The first that there was a database of PostgreSQL of.
const FIRST_POSTGRES: i64 = 7;

/// What it had then, which is what is in files too.
const POSTGRES_HAD: &str = r#"
    INSERT INTO machines (name, address, spec) VALUES
        ('n4', '10.0.0.4', '{"name":"n4","macs":["52:54:00:00:00:02"],"address":"10.0.0.4"}');
    INSERT INTO machine_macs VALUES ('52:54:00:00:00:02', 1);
    INSERT INTO leases VALUES ('10.0.0.9', '52:54:00:00:00:09', 77, 'n9');
    INSERT INTO leases6 VALUES ('fd77::9', '000409', 7, NULL, 88);
"#;

/// As [`HAD`], in databases of either kind.
const BOTH_HAD: [(i64, &str); 4] = [
    (
        7,
        r#"INSERT INTO documents (noun, name, document) VALUES ('group', 'g7', '{"name":"g7","selector":"a=b"}');"#,
    ),
    (
        8,
        "INSERT INTO servers (identity, name, subnets, heartbeat) VALUES ('000401', 's1', '[]', 1); \
         INSERT INTO pool_blocks VALUES (77, 1, 9000000000000); \
         INSERT INTO leases (address, mac, expires, server) VALUES ('10.0.0.8', '52:54:00:00:00:09', 78, 1);",
    ),
    (
        9,
        r#"INSERT INTO discovered (last, document) VALUES (9, '{"macs":["52:54:00:00:00:0b"],"first":9,"last":9,"times":1}');
        INSERT INTO discovered_macs VALUES ('52:54:00:00:00:0b', 1);"#,
    ),
    (
        10,
        "INSERT INTO pool_blocks6 VALUES ('fd77::', 1, 9000000000000); \
         INSERT INTO leases6 (address, duid, iaid, expires, server) VALUES ('fd77::8', '000409', 7, 99, 1);",
    ),
];

fn up_to(all: &Migrator, version: i64) -> Migrator {
    let known: Vec<_> = all.iter().filter(|one| one.version <= version).cloned().collect();
    Migrator { migrations: known.into(), ..Migrator::DEFAULT }
}

fn had(all: &[(i64, &'static str)], version: i64) -> String {
    all.iter().filter(|(since, _)| *since == version).map(|(_, had)| *had).collect()
}

/// Makes a file as the program wrote it that knew the migrations up to this one.
async fn file_of(version: i64, path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    for at in 1..=version {
        up_to(&SQLITE, at).run(&pool).await.unwrap();
        let had = had(&HAD, at) + &had(&BOTH_HAD, at);
        sqlx::raw_sql(AssertSqlSafe(had)).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

/// As [`file_of`], on PostgreSQL.
async fn database_of(version: i64, home: &Home) {
    let Database::Postgres(url) = &home.database else { unreachable!() };
    let pool = PgPool::connect_with(url.options().unwrap()).await.unwrap();
    for at in FIRST_POSTGRES..=version {
        up_to(&POSTGRES, at).run(&pool).await.unwrap();
        let first = if at == FIRST_POSTGRES { POSTGRES_HAD } else { "" };
        let had = first.to_owned() + &had(&BOTH_HAD, at);
        sqlx::raw_sql(AssertSqlSafe(had)).execute(&pool).await.unwrap();
    }
    pool.close().await;
}

fn newest(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap()
}

/// Looks for what databases of either kind had.
async fn has_what_it_had(store: &Store, version: i64) {
    let groups: Vec<Stored<Group>> = store.all().await.unwrap();
    assert_eq!(groups.len(), usize::from(version >= 7), "from {version}");
    let discovered = store.discovered().await.unwrap();
    assert_eq!(discovered.len(), usize::from(version >= 9), "from {version}");
    let server = store.serving("000401", "s1", &[]).await.unwrap();
    let leases: Vec<_> = server.leases().await.unwrap().into_iter().map(|it| it.expires).collect();
    assert_eq!(leases, if version >= 8 { vec![77, 78] } else { vec![77] }, "from {version}");
    let leases = server.leases6().await.unwrap().0;
    let leases: Vec<_> = leases.into_iter().map(|it| it.expires).collect();
    let expected: &[i64] = match version {
        ..6 => &[],
        6..10 => &[88],
        _ => &[88, 99],
    };
    assert_eq!(leases, expected, "from {version}");
    let other = store.serving("000402", "s2", &[]).await.unwrap();
    let taken = other.claimed_by_others(Pools::V4).await.unwrap();
    assert_eq!(taken.len(), usize::from(version >= 8), "from {version}");
    let taken = other.claimed_by_others(Pools::V6).await.unwrap();
    assert_eq!(taken.len(), usize::from(version >= 10), "from {version}");
}

#[tokio::test]
async fn a_database_of_every_earlier_program_arrives_whole() {
    for version in 1..=newest(&SQLITE) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kiln.db");
        file_of(version, &path).await;
        let store = Store::open(&path).await.unwrap();
        let mut fourth = NewMachine {
            uuid: Some("u".to_owned()),
            arch: Some(Arch::Arm64),
            image: Some("web:edge".parse().unwrap()),
            address: Some([10, 0, 0, 4].into()),
            cmdline: "quiet".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..machine("n4", &[2, 3])
        };
        if version >= 4 {
            fourth.state_disk = Some("serial:X".parse().unwrap());
        }
        if version >= 5 {
            fourth.loader = Some("grub".parse().unwrap());
        }
        if version >= 6 {
            fourth.address6 = Some("fd77::4".parse().unwrap());
        }
        let machines = [
            Machine { id: MachineId(3), revision: 1, spec: machine("n3", &[1]) },
            Machine { id: MachineId(4), revision: 1, spec: fourth },
        ];
        assert_eq!(store.machines().await.unwrap(), machines, "from {version}");
        assert_eq!(store.leases().await.unwrap()[0].hostname.as_deref(), Some("n9"));
        let (boot, events) = store.boot(BootId(7)).await.unwrap().unwrap();
        assert_eq!((boot.started, events[0].phase), (5, Phase::Kernel));
        assert_eq!(boot.kernel_start, (version >= 3).then_some(8));
        assert_eq!(events[0].took, (version >= 3).then_some(11));
        assert_eq!(events[0].resent, None);
        let seen = store.last_sighting("52:54:00:00:00:08".parse().unwrap()).await.unwrap();
        assert_eq!(seen.unwrap().1, 2);
        let order = store.order(OrderId(1)).await.unwrap().map(|order| order.state);
        assert_eq!(order, (version >= 2).then_some(OrderState::Done));
        let boots = store.take_up_boots(8).await.unwrap();
        assert_eq!(boots.running.len(), usize::from(version >= 2));
        let facts = store.facts(MachineId(4)).await.unwrap().map(|facts| facts.at);
        assert_eq!(facts, (version >= 3).then_some(9));
        has_what_it_had(&store, version).await;
        // What comes next is numbered on from there.
        let next = store.add_machine(&machine("n5", &[5])).await.unwrap();
        assert!(next.id > MachineId(4));
        store.close().await;
    }
}

#[tokio::test]
async fn a_database_of_every_earlier_program_arrives_whole_on_postgres() {
    for version in FIRST_POSTGRES..=newest(&POSTGRES) {
        let home = Home::postgres().await;
        database_of(version, &home).await;
        let store = home.open().await;
        let address = Some([10, 0, 0, 4].into());
        let fourth = NewMachine { address, ..machine("n4", &[2]) };
        let fourth = Machine { id: MachineId(1), revision: 1, spec: fourth };
        assert_eq!(store.machines().await.unwrap(), [fourth], "from {version}");
        has_what_it_had(&store, version).await;
        let next = store.add_machine(&machine("n5", &[5])).await.unwrap();
        assert!(next.id > MachineId(1));
        store.close().await;
    }
}

#[tokio::test]
async fn both_kinds_of_database_have_the_same_columns() {
    let [(_file, sqlite), (_server, postgres)] = stores().await;
    let columns: Vec<(String, String)> = query(
        "SELECT m.name, c.name FROM sqlite_schema m, pragma_table_info(m.name) c \
         WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'",
    )
    .fetch_all(&sqlite.db)
    .await
    .unwrap();
    let others: Vec<(String, String)> = query(
        "SELECT table_name::text, column_name::text FROM information_schema.columns \
         WHERE table_schema = 'public'",
    )
    .fetch_all(&postgres.db)
    .await
    .unwrap();
    let set = |columns: Vec<_>| columns.into_iter().collect::<BTreeSet<_>>();
    assert_eq!(set(columns), set(others));
    assert_eq!(newest(&SQLITE), newest(&POSTGRES), "they are numbered alike");
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    for (home, store) in stores().await {
        let newer = if home.is_postgres() {
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9000, 'from the future', TRUE, '\\x00', 0)"
        } else {
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
             VALUES (9000, 'from the future', TRUE, x'00', 0)"
        };
        store.add_machine(&machine("n1", &[1])).await.unwrap();
        query(newer).execute(&store.db).await.unwrap();
        store.close().await;
        let error = Store::connect(&home.database).await.unwrap_err();
        assert!(matches!(error, StoreError::TooNew { version: 9000, .. }), "{error:?}");
        assert!(error.to_string().contains("run that version"), "{error}");
    }
}
