//! Servers that share one inventory, and what each of them may give: blocks of addresses, claimed for a time.
//!
//! A claim lasts until a moment of the database's clock and is made longer by the heartbeat of its server. Who has a
//! claim gives no lease that lasts longer, so that nobody has an address of a block whose claim has ended, and any
//! server may take it then.

use std::net::Ipv6Addr;
use std::time::Duration;

use sqlx::postgres::PgListener;

use super::db::{Arg, Db, Tx, query, query_made};
use super::row::json;
use super::{Store, StoreError};

const CLAIMS: &str = "claims of addresses";

/// Longest wait between two looks for changes of others, when the database does not tell of them.
const LOOK: Duration = Duration::from_secs(10);
/// First and longest wait before the connection that tells of changes is made again.
const AGAIN: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(15));

/// What servers tell each other of a change that has no row in the log of changes, and so no number.
pub(super) const UNNUMBERED: &str = "unnumbered";

/// Addresses in a block: a block has the number of its first address, divided by this.
pub const BLOCK: u32 = 16;

/// Which pools a block is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pools {
    /// Those of IPv4.
    V4,
    /// Those of IPv6.
    V6,
}

impl Pools {
    const fn table(self) -> &'static str {
        match self {
            Self::V4 => "pool_blocks",
            Self::V6 => "pool_blocks6",
        }
    }

    /// Returns how a block is written: one of IPv6 has no number that a column could hold, but a first address.
    fn write(self, block: u128) -> Arg {
        match self {
            Self::V4 => i64::try_from(block).unwrap_or(i64::MAX).into(),
            Self::V6 => {
                let first = block.saturating_mul(u128::from(BLOCK));
                Ipv6Addr::from_bits(first).to_string().into()
            }
        }
    }

    fn read(self, rows: Vec<(String,)>) -> Vec<u128> {
        let block = |(text,): (String,)| match self {
            Self::V4 => text.parse().ok(),
            Self::V6 => Some(text.parse::<Ipv6Addr>().ok()?.to_bits() / u128::from(BLOCK)),
        };
        rows.into_iter().filter_map(block).collect()
    }
}

impl Store {
    /// Returns whether several servers may use this inventory at once.
    pub const fn is_shared(&self) -> bool {
        matches!(self.db, Db::Postgres(_))
    }

    /// Enters this server, and returns the inventory as that server uses it: boots and leases are its own. The identity
    /// belongs to the folder of its data, where its leases are.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn serving(
        &self,
        identity: &str,
        name: &str,
        subnets: &[String],
    ) -> Result<Self, StoreError> {
        const SERVER: &str = "this server";
        let failed = |source| StoreError::writing(SERVER, source);
        let mut tx = self.write(SERVER).await?;
        let now = clock(&mut tx).await.map_err(failed)?;
        let (server,): (i64,) = query(
            "INSERT INTO servers (identity, name, subnets, heartbeat) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (identity) DO UPDATE SET name = excluded.name, \
             subnets = excluded.subnets, heartbeat = excluded.heartbeat RETURNING id",
        )
        .bind(identity)
        .bind(name)
        .bind(json(&subnets))
        .bind(now)
        .fetch_one(&mut tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(Self { server, ..self.clone() })
    }

    /// Tells the others that this server is there, makes its claims last so long from now on, and returns the blocks
    /// that it has.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn renew_claims(
        &self,
        pools: Pools,
        lasting: Duration,
    ) -> Result<Vec<u128>, StoreError> {
        let failed = |source| StoreError::writing(CLAIMS, source);
        let mut tx = self.write(CLAIMS).await?;
        let now = clock(&mut tx).await.map_err(failed)?;
        query("UPDATE servers SET heartbeat = $1 WHERE id = $2")
            .bind(now)
            .bind(self.server)
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        let table = pools.table();
        let blocks = query_made(format!(
            "UPDATE {table} SET until = $1 WHERE server = $2 RETURNING CAST(block AS TEXT)"
        ))
        .bind(after(now, lasting))
        .bind(self.server)
        .fetch_all(&mut tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(pools.read(blocks))
    }

    /// Claims blocks, and returns those that nobody else has. They are this server's once this returns.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn claim(
        &self,
        pools: Pools,
        blocks: &[u128],
        lasting: Duration,
    ) -> Result<Vec<u128>, StoreError> {
        let failed = |source| StoreError::writing(CLAIMS, source);
        let mut tx = self.write(CLAIMS).await?;
        let now = clock(&mut tx).await.map_err(failed)?;
        let mut sorted = blocks.to_vec();
        // All servers in the same order, so that none of them waits for another that waits for it.
        sorted.sort_unstable();
        let table = pools.table();
        let mut claimed = Vec::new();
        for block in sorted {
            let row: Option<(String,)> = query_made(format!(
                "INSERT INTO {table} (block, server, until) VALUES ($1, $2, $3) \
                 ON CONFLICT (block) DO UPDATE SET server = excluded.server, until = excluded.until \
                 WHERE {table}.until < $4 OR {table}.server = excluded.server \
                 RETURNING CAST(block AS TEXT)"
            ))
            .bind(pools.write(block))
            .bind(self.server)
            .bind(after(now, lasting))
            .bind(now)
            .fetch_optional(&mut tx)
            .await
            .map_err(failed)?;
            claimed.extend(row);
        }
        tx.commit().await.map_err(failed)?;
        Ok(pools.read(claimed))
    }

    /// Returns the blocks that other servers have claimed.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn claimed_by_others(&self, pools: Pools) -> Result<Vec<u128>, StoreError> {
        let failed = StoreError::reading(CLAIMS);
        let mut tx = self.db.begin_read().await.map_err(&failed)?;
        let now = clock(&mut tx).await.map_err(&failed)?;
        let table = pools.table();
        let blocks = query_made(format!(
            "SELECT CAST(block AS TEXT) FROM {table} WHERE server <> $1 AND until >= $2"
        ))
        .bind(self.server)
        .bind(now)
        .fetch_all(&mut tx)
        .await
        .map_err(&failed)?;
        Ok(pools.read(blocks))
    }

    /// Gives blocks back. The caller gives no address of them any more, and nobody has a lease there.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn give_back(&self, pools: Pools, blocks: &[u128]) -> Result<(), StoreError> {
        let table = pools.table();
        for block in blocks {
            query_made(format!("DELETE FROM {table} WHERE block = $1 AND server = $2"))
                .bind(pools.write(*block))
                .bind(self.server)
                .execute(&self.db)
                .await
                .map_err(|source| StoreError::writing(CLAIMS, source))?;
        }
        Ok(())
    }

    /// Follows the changes that other servers make, and tells them to whoever [watches](Self::watch_changes). Does not
    /// end. When the database cannot be reached, it is asked again and again, ever more seldom; when it comes back,
    /// everything that was missed is told.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn follow_changes(&self) {
        let Db::Postgres(pool) = &self.db else { return std::future::pending().await };
        let mut wait = AGAIN.0;
        loop {
            if let Ok(mut listener) = PgListener::connect_with(pool).await
                && listener.listen("kiln_changes").await.is_ok()
            {
                // What came before this was told to nobody here, and not all of it has a number.
                let mut is_unnumbered = true;
                while let Ok(last) = self.last_change().await {
                    self.is_at_change(last);
                    if is_unnumbered {
                        self.newest.send_modify(|_| ());
                    }
                    wait = AGAIN.0;
                    // A connection that broke without a word is noticed by the look.
                    is_unnumbered = match tokio::time::timeout(LOOK, listener.try_recv()).await {
                        Ok(Ok(Some(told))) => told.payload() == UNNUMBERED,
                        // It was lost and is there again: what was told in between was told to nobody.
                        Ok(Ok(None)) => true,
                        Ok(Err(_)) => break,
                        Err(_) => false,
                    };
                }
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(AGAIN.1);
        }
    }
}

/// Returns the time of the database, in milliseconds since 1970: the one clock that all servers share.
pub(super) async fn clock(tx: &mut Tx) -> Result<i64, sqlx::Error> {
    let now = match tx {
        Tx::Sqlite(_) => "SELECT CAST(unixepoch('subsec') * 1000 AS INTEGER)",
        Tx::Postgres(_) => "SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) * 1000 AS BIGINT)",
    };
    let (now,): (i64,) = query(now).fetch_one(tx).await?;
    Ok(now)
}

fn after(now: i64, time: Duration) -> i64 {
    now.saturating_add(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}
