//! Databases of earlier programs, and of later ones.

use std::collections::BTreeSet;

use kiln_types::Arch;
use sqlx::migrate::Migrator;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::db::query;
use super::test_stores::stores;
use super::tests::machine;
use super::*;
use crate::{BootId, Machine, MachineId, NewMachine, OrderId, OrderState, Phase};

/// What a program had in its database that knew the migrations up to a number, besides what those before it had.
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

/// Makes a file as the program wrote it that knew the migrations up to this one.
async fn file_of(version: i64, path: &Path) {
    let options = SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let pool = SqlitePool::connect_with(options).await.unwrap();
    for at in 1..=version {
        let known: Vec<_> =
            SQLITE.iter().filter(|migration| migration.version <= at).cloned().collect();
        Migrator { migrations: known.into(), ..Migrator::DEFAULT }.run(&pool).await.unwrap();
        for (_, had) in HAD.iter().filter(|(since, _)| *since == at) {
            sqlx::raw_sql(*had).execute(&pool).await.unwrap();
        }
    }
    pool.close().await;
}

#[tokio::test]
async fn a_database_of_every_earlier_program_arrives_whole() {
    for version in 1..=6 {
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
        let seen = store.last_sighting("52:54:00:00:00:08".parse().unwrap()).await.unwrap();
        assert_eq!(seen.unwrap().1, 2);
        let order = store.order(OrderId(1)).await.unwrap().map(|order| order.state);
        assert_eq!(order, (version >= 2).then_some(OrderState::Done));
        assert_eq!(store.running_boots().await.unwrap().len(), usize::from(version >= 2));
        let facts = store.facts(MachineId(4)).await.unwrap().map(|facts| facts.at);
        assert_eq!(facts, (version >= 3).then_some(9));
        assert_eq!(store.leases6().await.unwrap().0.len(), usize::from(version >= 6));
        // What comes next is numbered on from there.
        let next = store.add_machine(&machine("n5", &[5])).await.unwrap();
        assert!(next.id > MachineId(4));
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
    let newest = |migrator: &Migrator| migrator.iter().map(|migration| migration.version).max();
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
