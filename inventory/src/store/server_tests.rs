//! Several servers on one inventory, and a database in trouble.

use std::time::Duration;

use super::db::query;
use super::test_stores::stores;
use super::tests::{lease, machine, new_boot, open_boot};
use super::*;
use crate::Outcome;

const LONG: Duration = Duration::from_secs(3600);

/// Blocks of IPv4 and of IPv6, whose numbers no column of the database could hold.
const POOLS: [(Pools, u128); 2] = [(Pools::V4, 0), (Pools::V6, 0xfd77 << 108)];

#[tokio::test]
async fn no_two_servers_have_a_block_until_the_claim_of_one_has_ended() {
    for (home, store) in stores().await {
        let first = store.serving("a", "one", &[]).await.unwrap();
        let other = home.open().await.serving("b", "two", &[]).await.unwrap();
        for (pools, base) in POOLS {
            let [three, four, seven] = [3, 4, 7].map(|number| base + number);
            let claimed = first.claim(pools, &[seven, three], LONG).await.unwrap();
            assert_eq!(claimed, [three, seven]);
            assert_eq!(other.claim(pools, &[three, four], LONG).await.unwrap(), [four]);
            assert_eq!(first.claimed_by_others(pools).await.unwrap(), [four]);
            assert_eq!(first.claim(pools, &[three], LONG).await.unwrap(), [three], "its own");
            // It comes back with the same folder of data, and later not at all.
            let again = home.open().await.serving("a", "one", &[]).await.unwrap();
            let mut blocks = again.renew_claims(pools, Duration::ZERO).await.unwrap();
            blocks.sort_unstable();
            assert_eq!(blocks, [three, seven]);
            tokio::time::sleep(Duration::from_millis(20)).await;
            let claimed = other.claim(pools, &[three], LONG).await.unwrap();
            assert_eq!(claimed, [three], "nobody has a lease there now");
            let left = first.renew_claims(pools, LONG).await.unwrap();
            assert_eq!(left, [seven], "what is left of it");
            first.give_back(pools, &[seven, three]).await.unwrap();
            assert!(first.renew_claims(pools, LONG).await.unwrap().is_empty());
            let mut blocks = other.renew_claims(pools, LONG).await.unwrap();
            blocks.sort_unstable();
            assert_eq!(blocks, [three, four], "what is another's cannot be given back");
        }
    }
}

#[tokio::test]
async fn many_servers_that_claim_at_once_share_what_there_is() {
    for (home, store) in stores().await {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 0..4_u32 {
            let server = home.open().await.serving(&number.to_string(), "n", &[]).await.unwrap();
            let mut blocks: Vec<u128> = (0..50).collect();
            blocks.rotate_left(usize::try_from(number * 10).unwrap());
            tasks.spawn(async move {
                let mut claimed = Vec::new();
                for chunk in blocks.chunks(5) {
                    claimed.extend(server.claim(Pools::V4, chunk, LONG).await.unwrap());
                }
                claimed
            });
        }
        let mut all: Vec<u128> = tasks.join_all().await.concat();
        all.sort_unstable();
        assert_eq!(all, (0..50).collect::<Vec<_>>());
        drop(store);
    }
}

#[tokio::test]
async fn a_server_neither_ends_the_boots_of_another_nor_forgets_its_leases() {
    for (home, store) in stores().await {
        let first = store.serving("a", "one", &[]).await.unwrap();
        let other = home.open().await.serving("b", "two", &[]).await.unwrap();
        let boot = open_boot(&first, &new_boot()).await;
        assert_eq!(other.take_up_boots(5).await.unwrap().abandoned, 0);
        assert_eq!(first.boot(boot.id).await.unwrap().unwrap().0.outcome, Outcome::Booting);
        first.commit_leases(&[lease(10, 1, 100)]).await.unwrap();
        other.commit_leases(&[lease(20, 1, 200)]).await.unwrap();
        assert_eq!(first.leases().await.unwrap(), [lease(10, 1, 100)]);
        assert_eq!(other.leases().await.unwrap(), [lease(20, 1, 200)]);
        // The block went to the other server; what the first one had in its journal comes late.
        other.commit_leases(&[lease(10, 2, 300)]).await.unwrap();
        first.commit_leases(&[lease(10, 1, 100)]).await.unwrap();
        assert_eq!(first.leases().await.unwrap(), []);
        assert_eq!(other.leases().await.unwrap().len(), 2);
    }
}

#[tokio::test]
async fn a_change_by_another_server_is_told_at_once_and_after_a_lost_connection() {
    let [_, (home, store)] = stores().await;
    let other = home.open().await;
    let mut news = store.watch_changes();
    let follower = store.clone();
    let task = tokio::spawn(async move { follower.follow_changes().await });
    other.add_machine(&machine("n1", &[1])).await.unwrap();
    tokio::time::timeout(LONG, news.wait_for(|last| *last == 1)).await.unwrap().unwrap();
    // What ends a connection is not in the condition, of which the database may try any part first.
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                WHERE datname = current_database() AND pid <> pg_backend_pid()";
    // The connections of both are cut, also those that wait in their pools.
    let third = home.open().await;
    query(kill).execute(&third.db).await.unwrap();
    third.add_machine(&machine("n2", &[2])).await.unwrap();
    let told = tokio::time::timeout(Duration::from_secs(60), news.wait_for(|last| *last == 2));
    told.await.unwrap().unwrap();
    assert_eq!(store.machines().await.unwrap().len(), 2);
    task.abort();
}

#[tokio::test]
async fn a_database_that_comes_back_older_is_followed_from_where_it_is() {
    let [_, (_home, store)] = stores().await;
    // What it had before a backup was put in its place.
    store.saw_change(1000);
    let (mut news, follower) = (store.watch_changes(), store.clone());
    let task = tokio::spawn(async move { follower.follow_changes().await });
    let told = tokio::time::timeout(Duration::from_secs(60), news.wait_for(|last| *last == 0));
    told.await.unwrap().unwrap();
    task.abort();
}

#[tokio::test]
async fn what_is_too_old_goes_but_not_what_is_still_needed() {
    for (_home, store) in stores().await {
        let mut ids = Vec::new();
        // Started at 0, 10, 20 …
        for (number, outcome) in [
            Outcome::Healthy,
            Outcome::Failed,
            Outcome::Healthy,
            Outcome::Booting,
            Outcome::Failed,
            Outcome::Failed,
        ]
        .into_iter()
        .enumerate()
        {
            let started = i64::try_from(number).unwrap() * 10;
            let mut boot = open_boot(&store, &crate::NewBoot { started, ..new_boot() }).await;
            boot.outcome = outcome;
            store.update_boot(&boot).await.unwrap();
            ids.push(boot.id);
        }
        let token = kiln_types::Digest::from_bytes([1; 32]);
        store.keep_token(ids[4], &token).await.unwrap();
        for number in 1..=9 {
            store.add_machine(&machine(&format!("n{number}"), &[number])).await.unwrap();
        }
        assert_eq!(store.prune(Cutoff::default()).await.unwrap(), 0);
        let all = i64::MAX;
        let cutoff = Cutoff { boots: Some(50), sightings: Some(all), changes: Some(all) };
        assert_eq!(store.prune(cutoff).await.unwrap(), 2 + 8);
        assert_eq!(store.prune(cutoff).await.unwrap(), 0);
        let mut left: Vec<_> =
            store.boots(10).await.unwrap().into_iter().map(|boot| boot.id).collect();
        left.reverse();
        assert_eq!(
            left,
            ids[2..],
            "the last good one, one that runs, one that reports, a young one"
        );
        let verified = store.verify_changes().await.unwrap();
        assert_eq!((verified.changes, verified.broken), (1, None));
        store.add_machine(&machine("n10", &[10])).await.unwrap();
        assert_eq!(store.last_change().await.unwrap(), 10);
        assert_eq!(store.verify_changes().await.unwrap().changes, 2);
    }
}

#[tokio::test]
async fn a_full_disk_is_named_and_nothing_is_lost() {
    let [(_home, store), _] = stores().await;
    store.add_machine(&machine("n1", &[1])).await.unwrap();
    let Db::Sqlite(pool) = &store.db else { panic!("a file") };
    let limit = async |pages: &'static str| {
        let mut all = Vec::new();
        for _ in 0..4 {
            all.push(pool.acquire().await.unwrap());
        }
        for connection in &mut all {
            sqlx::query(pages).execute(&mut **connection).await.unwrap();
        }
    };
    limit("PRAGMA max_page_count = 1").await;
    let mut big = machine("n2", &[2]);
    big.metadata.insert("x".to_owned(), "y".repeat(60_000).into());
    let error = store.add_machine(&big).await.unwrap_err();
    assert!(error.is_unavailable() && !error.is_lasting());
    assert!(error.to_string().ends_with("there is no room left on its disk; make room"), "{error}");
    assert_eq!(store.machines().await.unwrap().len(), 1);
    limit("PRAGMA max_page_count = 1000000").await;
    store.add_machine(&big).await.unwrap();
    assert_eq!(store.verify_changes().await.unwrap().changes, 2);
}

#[tokio::test]
async fn a_database_that_another_program_holds_is_named_and_free_afterwards() {
    for (home, store) in stores().await {
        let other = home.open().await;
        let mut tx = other.write("a test").await.unwrap();
        if home.is_postgres() {
            query("LOCK TABLE machines").execute(&mut tx).await.unwrap();
        }
        let error = store.add_machine(&machine("n1", &[1])).await.unwrap_err();
        assert!(error.is_unavailable(), "{error:?}");
        assert!(error.to_string().contains("another program holds it"), "{error}");
        drop(tx);
        other.close().await;
        store.add_machine(&machine("n1", &[1])).await.unwrap();
        assert_eq!(store.last_change().await.unwrap(), 1);
    }
}

#[tokio::test]
async fn a_file_that_is_moved_away_while_it_is_in_use_takes_nothing_more() {
    let [(home, store), _] = stores().await;
    store.add_machine(&machine("n1", &[1])).await.unwrap();
    let path = home.database.file().unwrap();
    let elsewhere = path.with_extension("away");
    std::fs::rename(path, &elsewhere).unwrap();
    let error = store.add_machine(&machine("n2", &[2])).await.unwrap_err();
    assert!(matches!(error, StoreError::Gone { .. }), "{error:?}");
    assert!(error.is_unavailable());
    std::fs::rename(&elsewhere, path).unwrap();
    store.add_machine(&machine("n2", &[2])).await.unwrap();
    assert_eq!(home.open().await.machines().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_server_that_is_gone_is_named() {
    let [_, (home, store)] = stores().await;
    let name: (String,) =
        query("SELECT current_database()::text").fetch_one(&store.db).await.unwrap();
    home.drop_database(&name.0).await;
    let error = store.add_machine(&machine("n1", &[1])).await.unwrap_err();
    assert!(error.is_unavailable(), "{error:?}");
    let error = Store::connect(&home.database).await.unwrap_err();
    assert!(error.to_string().contains("make it with `createdb`"), "{error}");
    let nobody: Database = "postgres:///kiln?host=/nonexistent&user=kiln".parse().unwrap();
    let error = Store::connect(&nobody).await.unwrap_err();
    assert!(error.to_string().contains("cannot be reached"), "{error}");
}
