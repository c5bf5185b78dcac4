//! What a boot ends that begins: the tokens of those before it, and what their systems were told.

use super::db::query;
use super::row::word;
use super::{Store, StoreError};
use crate::{BootId, MachineId, OrderState};

const EARLIER: &str = "the boots before";
/// Where two servers see the same machine, each begins a boot of it within seconds, and one of them runs. What the other
/// server knows of it is not ended.
const AT_ONCE_MS: i64 = 10_000;

impl Store {
    /// Forgets the tokens of the boots of a machine that are over, because another one has begun, and ends what it was
    /// told in them: it did start anew where it was told to, and will not do the rest. A boot that another server began
    /// at the same time or later is not over by that. Can be repeated.
    ///
    /// # Errors
    ///
    /// When the database cannot be written; nothing has changed then.
    pub async fn begins_anew(
        &self,
        machine: MachineId,
        boot: BootId,
        at_ms: i64,
    ) -> Result<(), StoreError> {
        let failed = |source| StoreError::writing(EARLIER, source);
        let since = at_ms.saturating_sub(AT_ONCE_MS);
        let mut tx = self.write(EARLIER).await?;
        query(
            "DELETE FROM boot_tokens WHERE boot <> $1 AND boot IN (SELECT id FROM boots \
             WHERE machine = $2 AND NOT (server <> $3 AND started >= $4))",
        )
        .bind(boot.0)
        .bind(machine.0)
        .bind(self.server)
        .bind(since)
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        let steps: [(&str, &[&str], OrderState, &str); 3] = [
            ("queued", &[], OrderState::Expired, "the machine started anew"),
            ("sent", &["reboot", "kexec"], OrderState::Done, "started anew"),
            ("sent", &[], OrderState::Failed, "the machine started anew before it answered"),
        ];
        for (before, kinds, state, answer) in steps {
            query(
                "UPDATE orders SET state = $1, answer = $2, ended = $3 WHERE machine = $4 \
                 AND boot <> $5 AND state = $6 AND ($7 IS NULL OR kind IN ($7, $8)) \
                 AND boot NOT IN (SELECT id FROM boots \
                 WHERE machine = $4 AND server <> $9 AND started >= $10)",
            )
            .bind(word(&state))
            .bind(answer)
            .bind(at_ms)
            .bind(machine.0)
            .bind(boot.0)
            .bind(before)
            .bind(kinds.first().copied())
            .bind(kinds.get(1).copied())
            .bind(self.server)
            .bind(since)
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        }
        tx.commit().await.map_err(failed)
    }
}

#[cfg(test)]
mod tests {
    use kiln_types::Digest;

    use super::super::test_stores::stores;
    use super::super::tests::{machine, new_boot, open_boot};
    use super::*;
    use crate::{Command, NewBoot, NewOrder};

    #[tokio::test]
    async fn a_boot_that_another_server_began_at_the_same_time_goes_on() {
        for (home, store) in stores().await {
            let mine = store.serving("a", "one", &[]).await.unwrap();
            let other = home.open().await.serving("b", "two", &[]).await.unwrap();
            let id = mine.add_machine(&machine("n1", &[1])).await.unwrap().id;
            let at = |started| NewBoot { machine: id, started, ..new_boot() };
            let began = 1_000_000;
            let old = open_boot(&other, &at(began - AT_ONCE_MS - 1)).await;
            let own = open_boot(&mine, &at(began - 1)).await;
            let beside = open_boot(&other, &at(began - 20)).await;
            let mut orders = Vec::new();
            for (store, boot) in [(&other, &old), (&mine, &own), (&other, &beside)] {
                store.keep_token(boot.id, &Digest::from_bytes([9; 32])).await.unwrap();
                let order = NewOrder {
                    machine: id,
                    machine_name: "n1".to_owned(),
                    boot: boot.id,
                    command: Command::Reboot,
                    asked: began,
                    asked_by: "uid 0".to_owned(),
                    expires: i64::MAX,
                };
                orders.push(store.add_order(&order).await.unwrap().id);
            }
            // Which is told late: its server was without the database meanwhile.
            let new = open_boot(&mine, &at(began)).await;
            mine.begins_anew(id, new.id, began).await.unwrap();
            let mut states = Vec::new();
            for order in orders {
                states.push(store.order(order).await.unwrap().unwrap().state);
            }
            use OrderState::{Expired, Queued};
            assert_eq!(states, [Expired, Expired, Queued]);
            let running = other.take_up_boots(began).await.unwrap().running;
            let running: Vec<_> = running.iter().map(|(boot, _)| boot.id).collect();
            assert_eq!(running, [beside.id]);
            assert!(mine.take_up_boots(began).await.unwrap().running.is_empty());
        }
    }
}
