use super::db::query;
use super::row::{parse, parse_opt, text};
use super::{Store, StoreError};
use crate::Lease6;

const LEASES: &str = "leases of IPv6";

/// A lease as it is kept.
type Row = (String, String, i64, Option<String>, i64);

impl Store {
    /// Returns every lease of IPv6 that this server gave, and those of before there were several servers, also those that
    /// have ended, and how many could not be read. One damaged row must not keep the server from starting.
    ///
    /// # Errors
    ///
    /// When the database cannot be read.
    pub async fn leases6(&self) -> Result<(Vec<Lease6>, usize), StoreError> {
        let rows: Vec<Row> = query(
            "SELECT address, duid, iaid, mac, expires FROM leases6 WHERE server IN ($1, 0) \
             ORDER BY server, expires, address",
        )
        .bind(self.server)
        .fetch_all(&self.db)
        .await
        .map_err(StoreError::reading(LEASES))?;
        let all = rows.len();
        let leases: Vec<Lease6> = rows.iter().filter_map(|row| read(row).ok()).collect();
        let damaged = all - leases.len();
        Ok((leases, damaged))
    }

    /// Writes leases of IPv6, all or none of them; they are on disk when this returns.
    ///
    /// A lease replaces the one that its address had, and the one that its association had on another address of this
    /// server: only its own server knows which of its leases a client has given up.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before it is done leaves either all of the leases or none.
    pub async fn commit_leases6(&self, leases: &[Lease6]) -> Result<(), StoreError> {
        if leases.is_empty() {
            return Ok(());
        }
        let failed = |source| StoreError::writing(LEASES, source);
        let mut tx = self.write(LEASES).await?;
        for lease in leases {
            let (address, duid) = (lease.address.to_string(), lease.duid.to_string());
            query(
                "DELETE FROM leases6 \
                 WHERE duid = $1 AND iaid = $2 AND address <> $3 AND server = $4",
            )
            .bind(&duid)
            .bind(i64::from(lease.iaid))
            .bind(&address)
            .bind(self.server)
            .execute(&mut tx)
            .await
            .map_err(failed)?;
            query(
                "INSERT INTO leases6 (address, duid, iaid, mac, expires, server) \
                 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (address) DO UPDATE SET \
                 duid = excluded.duid, iaid = excluded.iaid, mac = excluded.mac, \
                 expires = excluded.expires, server = excluded.server",
            )
            .bind(&address)
            .bind(&duid)
            .bind(i64::from(lease.iaid))
            .bind(text(lease.mac.as_ref()))
            .bind(lease.expires)
            .bind(self.server)
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }
}

fn read((address, duid, iaid, mac, expires): &Row) -> Result<Lease6, StoreError> {
    Ok(Lease6 {
        address: parse("an address", address)?,
        duid: parse("a DUID", duid)?,
        iaid: parse("an association", &iaid.to_string())?,
        mac: parse_opt("a MAC address", mac.as_deref())?,
        expires: *expires,
    })
}

#[cfg(test)]
mod tests {
    use kiln_types::Mac;

    use super::*;
    use crate::Duid;
    use crate::store::test_stores::stores;

    fn lease(address: u16, who: u8, iaid: u32, expires: i64) -> Lease6 {
        Lease6 {
            address: [0xfd77, 0, 0, 0, 0, 0, 0, address].into(),
            duid: Duid::new(&[0, 4, who]).unwrap(),
            iaid,
            mac: (who == 1).then(|| Mac::new([2, 0, 0, 0, 0, who])),
            expires,
        }
    }

    #[tokio::test]
    async fn a_lease_replaces_what_its_address_and_its_association_had() {
        for (_home, store) in stores().await {
            store.commit_leases6(&[]).await.unwrap();
            let all = [lease(1, 1, 7, 100), lease(2, 1, u32::MAX, 200), lease(3, 2, 7, 300)];
            store.commit_leases6(&all).await.unwrap();
            assert_eq!(store.leases6().await.unwrap(), (all.to_vec(), 0));
            // The second one moves to the third's address.
            store.commit_leases6(&[lease(3, 1, u32::MAX, 400)]).await.unwrap();
            let now = vec![lease(1, 1, 7, 100), lease(3, 1, u32::MAX, 400)];
            assert_eq!(store.leases6().await.unwrap(), (now, 0));
        }
    }

    #[tokio::test]
    async fn a_server_keeps_what_its_clients_had_when_another_one_gives_them_more() {
        for (home, store) in stores().await {
            let before = lease(9, 3, 7, 900);
            store.commit_leases6(std::slice::from_ref(&before)).await.unwrap();
            let first = store.serving("a", "one", &[]).await.unwrap();
            let other = home.open().await.serving("b", "two", &[]).await.unwrap();
            first.commit_leases6(&[lease(1, 1, 7, 100)]).await.unwrap();
            other.commit_leases6(&[lease(2, 1, 7, 200)]).await.unwrap();
            let has = async |store: &Store| store.leases6().await.unwrap().0;
            assert_eq!(has(&first).await, [before.clone(), lease(1, 1, 7, 100)]);
            assert_eq!(has(&other).await, [before, lease(2, 1, 7, 200)]);
            // Of its own server, a client has one address for each association.
            first.commit_leases6(&[lease(3, 1, 7, 300)]).await.unwrap();
            assert_eq!(has(&first).await[1..], [lease(3, 1, 7, 300)]);
            // The block of an address went to the other server, or it is one that both may give.
            other.commit_leases6(&[lease(3, 2, 7, 400)]).await.unwrap();
            assert_eq!((has(&first).await.len(), has(&other).await.len()), (1, 3));
        }
    }

    #[tokio::test]
    async fn a_row_that_makes_no_sense_keeps_no_other_from_being_read() {
        for (_home, store) in stores().await {
            store.commit_leases6(&[lease(1, 1, 7, 100)]).await.unwrap();
            for (address, duid, iaid) in
                [("fd77::x", "000409", 7), ("fd77::2", "", 7), ("fd77::3", "000402", -1)]
            {
                query("INSERT INTO leases6 (address, duid, iaid, expires) VALUES ($1, $2, $3, 1)")
                    .bind(address)
                    .bind(duid)
                    .bind(iaid)
                    .execute(&store.db)
                    .await
                    .unwrap();
            }
            assert_eq!(store.leases6().await.unwrap(), (vec![lease(1, 1, 7, 100)], 3));
        }
    }
}
