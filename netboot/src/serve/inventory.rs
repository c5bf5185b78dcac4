//! What a server does for its inventory besides asking it: it enters itself, follows the changes of others, and lets go
//! of what is too old.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use kiln_inventory::{Cutoff, Duid, Store, StoreError};
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::dhcp::v6;
use crate::settings::{Keep, Settings};
use crate::trouble::Trouble;
use crate::view::View;

/// How often it is seen whether something is too old, and how long others may write in between.
const PRUNE: Duration = Duration::from_secs(3600);
const PAUSE: Duration = Duration::from_millis(100);
/// How long after a failure the inventory is read again.
const AGAIN: Duration = Duration::from_secs(2);

/// Enters this server where the inventory is shared. Returns the inventory as this server uses it, and its identity.
pub(super) async fn enter(
    settings: &Settings,
    inventory: Store,
    failed: impl Fn(StoreError) -> ServeError,
) -> Result<(Store, Option<Duid>), ServeError> {
    if !inventory.is_shared() {
        return Ok((inventory, None));
    }
    let path = settings.data_dir.join("server-id");
    let identity = v6::server_id(&path).map_err(|source| ServeError::ServerId(path, source))?;
    let name = nix::unistd::gethostname().unwrap_or_default();
    let four =
        settings.subnets.iter().map(|subnet| format!("{}/{}", subnet.network, subnet.prefix));
    let six =
        settings.subnets6.iter().map(|subnet| format!("{}/{}", subnet.network, subnet.prefix));
    let subnets: Vec<String> = four.chain(six).collect();
    let name = name.to_string_lossy();
    let entered = inventory.serving(&identity.to_string(), &name, &subnets).await;
    Ok((entered.map_err(failed)?, Some(identity)))
}

/// Seals what secrets an older Kiln has kept in the clear in metadata. Returns whether there were any.
pub(super) async fn seal(inventory: &Store) -> Result<bool, StoreError> {
    let mut edit = inventory.edit().await?;
    let count = edit.renew_secrets().await?;
    if count > 0 {
        edit.commit().await?;
        tracing::info!(count, "secrets in metadata are encrypted now");
    }
    Ok(count > 0)
}

/// Reads the inventory anew whenever another server has changed it, until told to stop.
pub(super) async fn follow(inventory: Store, view: Arc<View>, stop: CancellationToken) {
    let mut news = inventory.watch_changes();
    news.mark_changed();
    let mut trouble = Trouble::new(
        "the inventory cannot be read; what was known stays in use",
        "the inventory is read again",
    );
    let refresh = async {
        while news.changed().await.is_ok() {
            while trouble.note(view.refresh_inventory().await).is_none() {
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = inventory.follow_changes() => {}
        () = refresh => {}
    }
}

/// Removes what is too old, a little at a time, until told to stop.
pub(super) async fn prune(inventory: Store, keep: Keep, stop: CancellationToken) {
    let mut turns = tokio::time::interval(PRUNE);
    let mut trouble = Trouble::new("what is too old stays for now", "what is too old goes again");
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = turns.tick() => {}
        }
        let mut gone = 0;
        loop {
            match trouble.note(inventory.prune(cutoff(keep)).await) {
                None | Some(0) => break,
                Some(rows) => gone += rows,
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        if gone > 0 {
            tracing::info!(rows = gone, "what was too old is gone from the inventory");
        }
    }
}

fn cutoff(keep: Keep) -> Cutoff {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let before = |time: Option<Duration>| i64::try_from(now.saturating_sub(time?).as_millis()).ok();
    Cutoff {
        boots: before(keep.boots),
        sightings: before(keep.sightings),
        changes: before(keep.changes),
    }
}

/// Takes the data of a server that does not run, to change what it would read.
pub(crate) fn take(data: &Path) -> Result<std::fs::File, ServeError> {
    super::make_dir(data)?;
    super::lock(data)
}
