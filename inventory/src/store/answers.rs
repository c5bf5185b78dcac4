//! Answers to requests that may come twice: whoever comes first claims the key, and who comes again, at any server, gets
//! what the first one got.

use std::time::Duration;

use kiln_types::Digest;

use super::db::query;
use super::servers::clock;
use super::{Store, StoreError};

const ANSWERS: &str = "answers that may be asked for again";

/// How long answers are kept.
const KEPT: Duration = Duration::from_secs(24 * 3600);
/// The most answers that are kept; the oldest go first.
const MOST: i64 = 4096;
/// Who has no answer after so long went away without one.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// What is known of a request when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    /// Nothing: it is to be done now, by who asked, and nobody else does it.
    New,
    /// It is under way.
    UnderWay,
    /// It was begun, and nobody knows whether it came to its end.
    Lost,
    /// Another request had this key.
    Another,
    /// It was done. The answer is there where it was kept.
    Done(Option<String>),
}

impl Store {
    /// Claims the key of a request, before anything is done for it.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn claim_answer(&self, key: &Digest, request: &Digest) -> Result<Asked, StoreError> {
        let failed = |source| StoreError::writing(ANSWERS, source);
        let mut tx = self.write(ANSWERS).await?;
        let now = clock(&mut tx).await.map_err(failed)?;
        let (key, request) = (key.hex(), request.hex());
        let claimed: Option<(String,)> = query(
            "INSERT INTO answers (key, request, at) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE \
             SET request = excluded.request, at = excluded.at, done = 0, answer = NULL \
             WHERE answers.at < $4 RETURNING key",
        )
        .bind(&key)
        .bind(&request)
        .bind(now)
        .bind(before(now, KEPT))
        .fetch_optional(&mut tx)
        .await
        .map_err(failed)?;
        if claimed.is_some() {
            query(
                "DELETE FROM answers WHERE key IN (SELECT key FROM answers WHERE done = 1 \
                 ORDER BY at DESC, key LIMIT $1 OFFSET $1)",
            )
            .bind(MOST)
            .execute(&mut tx)
            .await
            .map_err(failed)?;
            tx.commit().await.map_err(failed)?;
            return Ok(Asked::New);
        }
        let found: Option<(String, i64, i64, Option<String>)> =
            query("SELECT request, at, done, answer FROM answers WHERE key = $1")
                .bind(&key)
                .fetch_optional(&mut tx)
                .await
                .map_err(failed)?;
        Ok(match found {
            Some((other, ..)) if other != request => Asked::Another,
            Some((_, _, 1, answer)) => Asked::Done(answer),
            Some((_, at, ..)) if at < before(now, PATIENCE) => Asked::Lost,
            // Where it was given back a moment ago it can be had when it is asked for again.
            Some(_) | None => Asked::UnderWay,
        })
    }

    /// Says that what was claimed is done, and keeps the answer where there is one to keep.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn keep_answer(&self, key: &Digest, answer: Option<&str>) -> Result<(), StoreError> {
        let kept = query("UPDATE answers SET done = 1, answer = $2 WHERE key = $1")
            .bind(key.hex())
            .bind(answer)
            .execute(&self.db)
            .await;
        kept.map(drop).map_err(|source| StoreError::writing(ANSWERS, source))
    }

    /// Gives a key back for which nothing was done.
    ///
    /// # Errors
    ///
    /// When the database cannot be written.
    pub async fn give_answer_back(&self, key: &Digest) -> Result<(), StoreError> {
        let forgotten =
            query("DELETE FROM answers WHERE key = $1").bind(key.hex()).execute(&self.db).await;
        forgotten.map(drop).map_err(|source| StoreError::writing(ANSWERS, source))
    }

    /// Removes answers that nobody gets any more, and returns how many.
    pub(super) async fn prune_answers(&self) -> Result<u64, StoreError> {
        let failed = |source| StoreError::writing(ANSWERS, source);
        let mut tx = self.write(ANSWERS).await?;
        let now = clock(&mut tx).await.map_err(failed)?;
        let removed = query("DELETE FROM answers WHERE at < $1")
            .bind(before(now, KEPT))
            .execute(&mut tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(removed)
    }
}

fn before(now: i64, time: Duration) -> i64 {
    now.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use super::super::Cutoff;
    use super::super::test_stores::stores;
    use super::*;

    fn digest(number: u8) -> Digest {
        Digest::from_bytes([number; 32])
    }

    async fn age(store: &Store, key: u8, by: Duration) {
        query("UPDATE answers SET at = at - $2 WHERE key = $1")
            .bind(digest(key).hex())
            .bind(i64::try_from(by.as_millis()).unwrap())
            .execute(&store.db)
            .await
            .unwrap();
    }

    #[tokio::test]
    async fn a_key_is_claimed_once_and_its_answer_is_there_after_a_restart_and_at_other_servers() {
        for (home, store) in stores().await {
            let (other, [key, request]) = (home.open().await, [digest(1), digest(2)]);
            let both = tokio::join!(
                store.claim_answer(&key, &request),
                other.claim_answer(&key, &request)
            );
            let mut both = [both.0.unwrap(), both.1.unwrap()];
            both.sort_by_key(|claim| *claim != Asked::New);
            assert_eq!(both, [Asked::New, Asked::UnderWay]);
            assert_eq!(other.claim_answer(&key, &digest(3)).await.unwrap(), Asked::Another);
            store.keep_answer(&key, Some("it")).await.unwrap();
            store.close().await;
            let again = other.claim_answer(&key, &request).await.unwrap();
            assert_eq!(again, Asked::Done(Some("it".to_owned())));
            other.keep_answer(&key, None).await.unwrap();
            assert_eq!(other.claim_answer(&key, &request).await.unwrap(), Asked::Done(None));
            other.give_answer_back(&key).await.unwrap();
            assert_eq!(other.claim_answer(&key, &request).await.unwrap(), Asked::New);
        }
    }

    #[tokio::test]
    async fn answers_are_kept_for_a_day_and_who_went_away_is_not_waited_for() {
        for (_home, store) in stores().await {
            let (key, request) = (digest(1), digest(2));
            store.claim_answer(&key, &request).await.unwrap();
            age(&store, 1, PATIENCE + Duration::from_secs(1)).await;
            assert_eq!(store.claim_answer(&key, &request).await.unwrap(), Asked::Lost);
            age(&store, 1, KEPT).await;
            assert_eq!(store.claim_answer(&key, &digest(3)).await.unwrap(), Asked::New);
            store.keep_answer(&key, Some("it")).await.unwrap();
            assert_eq!(store.prune(Cutoff::default()).await.unwrap(), 0);
            age(&store, 1, KEPT + Duration::from_secs(1)).await;
            assert_eq!(store.prune(Cutoff::default()).await.unwrap(), 1);
            assert_eq!(store.claim_answer(&key, &request).await.unwrap(), Asked::New);
        }
    }

    #[tokio::test]
    async fn the_number_of_answers_is_bounded_and_the_newest_stay() {
        for (_home, store) in stores().await {
            let mut tx = store.write(ANSWERS).await.unwrap();
            for number in 0..MOST + 10 {
                query("INSERT INTO answers (key, request, at, done) VALUES ($1, 'r', $2, 1)")
                    .bind(format!("{number:08}"))
                    .bind(i64::MAX / 2 - number)
                    .execute(&mut tx)
                    .await
                    .unwrap();
            }
            tx.commit().await.unwrap();
            assert_eq!(store.claim_answer(&digest(1), &digest(2)).await.unwrap(), Asked::New);
            let (count, oldest): (i64, String) =
                query("SELECT count(*), max(key) FROM answers WHERE done = 1")
                    .fetch_one(&store.db)
                    .await
                    .unwrap();
            assert_eq!((count, oldest), (MOST, format!("{:08}", MOST - 1)));
            assert_eq!(
                store.claim_answer(&digest(1), &digest(2)).await.unwrap(),
                Asked::UnderWay,
                "what is under way stays claimed"
            );
        }
    }
}
