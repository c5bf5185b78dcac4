use super::db::{Tx, query};
use super::row::text;
use super::{Store, StoreError};
use crate::Lease;

const LEASES: &str = "leases";

impl Store {
    /// Returns every lease that this server gave, and those of before there were several servers, also those that have
    /// ended. A row that makes no sense is left out: it must not keep the
    /// server from starting.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn leases(&self) -> Result<Vec<Lease>, StoreError> {
        let rows: Vec<(String, String, i64, Option<String>)> = query(
            "SELECT address, mac, expires, hostname FROM leases WHERE server IN ($1, 0) ORDER BY server, address",
        )
        .bind(self.server)
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(LEASES))?;
        let lease = |(address, mac, expires, hostname): (String, String, i64, Option<String>)| {
            Some(Lease {
                address: address.parse().ok()?,
                mac: mac.parse().ok()?,
                expires,
                hostname,
            })
        };
        Ok(rows.into_iter().filter_map(lease).collect())
    }

    /// Writes leases, all or none of them; they are on disk when this returns.
    ///
    /// A lease replaces the one that its address had, and the one that its interface had on another address of this
    /// server. One that another server gave on the address later stays: ours comes late, out of a journal.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is done leaves either all of the leases or none.
    pub async fn commit_leases(&self, leases: &[Lease]) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let failed = |source| StoreError::writing(LEASES, source);
        let mut tx = self.write(LEASES).await?;
        self.put_leases(&mut tx, leases).await?;
        tx.commit().await.map_err(failed)
    }

    pub(super) async fn put_leases(&self, tx: &mut Tx, leases: &[Lease]) -> Result<(), StoreError> {
        let failed = |source| StoreError::writing(LEASES, source);
        for lease in leases {
            let (address, mac) = (lease.address.to_string(), lease.mac.to_string());
            query("DELETE FROM leases WHERE mac = $1 AND address <> $2 AND server = $3")
                .bind(&mac)
                .bind(&address)
                .bind(self.server)
                .execute(&mut *tx)
                .await
                .map_err(failed)?;
            query(
                "INSERT INTO leases (address, mac, expires, hostname, server) \
                 VALUES ($1, $2, $3, $4, $5) ON CONFLICT (address) DO UPDATE SET \
                 mac = excluded.mac, expires = excluded.expires, hostname = excluded.hostname, \
                 server = excluded.server \
                 WHERE leases.server = excluded.server OR leases.expires <= excluded.expires",
            )
            .bind(&address)
            .bind(&mac)
            .bind(lease.expires)
            .bind(text(lease.hostname.as_ref()))
            .bind(self.server)
            .execute(&mut *tx)
            .await
            .map_err(failed)?;
        }
        Ok(())
    }
}
