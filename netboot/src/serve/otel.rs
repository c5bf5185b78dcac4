//! Starts the export of boots.

use kiln_inventory::{Boot, Outcome};
use tokio::task::JoinHandle;

use crate::api::{self, Control};
use crate::otel::Follower;
use crate::settings::LogSettings;

/// Boots among which those are looked for that ended when the server began.
const LATEST: u32 = 1000;

/// Exports boots where the settings name a collector. The server has begun at a time, in milliseconds since 1970.
pub(super) fn start(log: &LogSettings, control: &Control, begun: i64) -> Option<JoinHandle<()>> {
    let (ended, follower) = Follower::new(log.otlp.as_deref()?)
        .inspect_err(|error| {
            let error = format!("{error:#}");
            tracing::error!(error, "boots are not exported to the collector");
        })
        .ok()?;
    control.boots.ends(ended);
    let control = control.clone();
    Some(tokio::spawn(async move {
        // Those that the server before left under way were ended before anyone could be told.
        let latest = control.inventory.boots(LATEST).await.unwrap_or_default().into_iter();
        let abandoned = |boot: &Boot| {
            boot.outcome == Outcome::Abandoned && boot.ended.is_some_and(|at| at >= begun)
        };
        let read = |boot| api::ended(&control, boot);
        follower.run(latest.filter(abandoned).collect(), read, control.stop.clone()).await;
    }))
}
