use kiln_types::Digest;

use super::boots::{BootRow, boot_columns};
use super::db::query;
use super::row::{parse, word};
use super::{Store, StoreError};
use crate::{Boot, BootId, Outcome};

const TOKENS: &str = "tokens of boots";

/// What has become of the boots that a server left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenUp {
    /// Those that go on, the oldest first, each with the hash of its token.
    pub running: Vec<(Boot, Digest)>,
    /// How many have ended.
    pub abandoned: u64,
}

impl Store {
    /// Remembers by what the system of a boot proves itself, as a hash of it.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn keep_token(&self, boot: BootId, sha256: &Digest) -> Result<(), StoreError> {
        query(
            "INSERT INTO boot_tokens (boot, sha256) VALUES ($1, $2) \
             ON CONFLICT (boot) DO UPDATE SET sha256 = excluded.sha256",
        )
        .bind(boot.0)
        .bind(sha256.hex())
        .execute(&self.db)
        .await
        .map_err(|source| StoreError::writing(TOKENS, source))?;
        Ok(())
    }

    /// Takes up the boots that this server left: those whose systems can prove themselves, of machines that are still in the
    /// inventory, go on; the tokens of all others are forgotten, and those of them that are under way end as abandoned.
    ///
    /// # Errors
    ///
    /// When the database cannot be read or written; nothing has changed then.
    pub async fn take_up_boots(&self, at_ms: i64) -> Result<TakenUp, StoreError> {
        let failed = |source| StoreError::writing(TOKENS, source);
        let mut tx = self.write(TOKENS).await?;
        query(
            "DELETE FROM boot_tokens WHERE boot NOT IN \
             (SELECT boots.id FROM boots JOIN machines ON machines.id = boots.machine \
             WHERE boots.outcome <> $1)",
        )
        .bind(word(&Outcome::Abandoned))
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        let rows: Vec<BootRow> = query(concat!(
            "SELECT ",
            boot_columns!(),
            " FROM boots WHERE id IN (SELECT boot FROM boot_tokens) AND server = $1 ORDER BY started, id"
        ))
        .bind(self.server)
        .fetch_all(&mut tx)
        .await
        .map_err(failed)?;
        let tokens: Vec<(i64, String)> =
            query("SELECT boot, sha256 FROM boot_tokens JOIN boots ON id = boot WHERE server = $1 ORDER BY started, id")
                .bind(self.server)
                .fetch_all(&mut tx)
                .await
                .map_err(failed)?;
        let read = |(row, (_, sha256)): (BootRow, (i64, String))| {
            Ok((row.read()?, parse("a digest", &sha256)?))
        };
        let running = rows.into_iter().zip(tokens).map(read).collect::<Result<_, StoreError>>()?;
        let abandoned = query(
            "UPDATE boots SET outcome = $1, ended = $2 WHERE outcome = $3 \
             AND id NOT IN (SELECT boot FROM boot_tokens) AND server = $4",
        )
        .bind(word(&Outcome::Abandoned))
        .bind(at_ms)
        .bind(word(&Outcome::Booting))
        .bind(self.server)
        .execute(&mut tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(TakenUp { running, abandoned })
    }
}
