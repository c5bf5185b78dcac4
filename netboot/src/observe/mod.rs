//! What the server shows of itself: metrics in the text format of Prometheus, whether it lives, whether it is ready.
//!
//! The metrics are written by hand: they are two dozen families whose labels are fixed words, and most are not counted
//! but asked of who knows them. That is less code than a library's registry would take to be filled.

mod by_image;
pub mod count;
mod fleet;
mod health;
mod page;
mod phases;
mod process;
mod rivals;
mod text;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use kiln_inventory::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::by_image::ByImage;
pub use self::count::{COUNTS, Histogram, Route};
pub use self::health::{Check, Health};
pub use self::phases::Phases;
pub use self::rivals::Rivals;
use crate::bake::Baker;
use crate::boots::Boots;
use crate::dhcp::{Ledger, v6};
use crate::http::Transfers;
use crate::serve::FilesFault;
use crate::settings::{Subnet6Settings, SubnetSettings};
use crate::tftp;
use crate::view::View;

/// Whom to ask.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Machines and boots.
    pub inventory: Store,
    /// What is served.
    pub view: Arc<View>,
    /// Who follows boots.
    pub boots: Boots,
    /// Who has which address.
    pub leases: Ledger,
    /// Who has which address of IPv6.
    pub leases6: v6::Ledger,
    /// Who builds images.
    pub baker: Baker,
    /// What TFTP counts, one for each of our addresses.
    pub tftp: Vec<Arc<tftp::Stats>>,
    /// The large transfers.
    pub transfers: Arc<Transfers>,
    /// The networks that are served.
    pub subnets: Vec<SubnetSettings>,
    /// Those of IPv6.
    pub subnets6: Vec<Subnet6Settings>,
    /// What is wrong with the files of the inventory, where it has any.
    pub files: Option<FilesFault>,
    /// When the settings were read, in milliseconds since 1970.
    pub since: i64,
    /// For how long a machine may boot, or have failed to.
    pub late_after: Duration,
}

/// Returns the routes. Nothing is changed by them, and no machine is named but in the words of `/readyz?verbose`.
pub fn router(observed: Observed) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .with_state(Arc::new(observed))
}

/// Serves the routes on a listener of their own until told to stop.
pub async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "metrics are not served any more"
        );
    }
}

async fn metrics(State(observed): State<Arc<Observed>>) -> Response {
    let page = observed.page().await;
    ([(CONTENT_TYPE, text::CONTENT_TYPE)], page).into_response()
}

/// That it answers shows that the event loop turns; that the task answers which all boots go through, that it does too.
async fn livez(State(observed): State<Arc<Observed>>) -> Response {
    if observed.boots.answers().await {
        (StatusCode::OK, "ok\n").into_response()
    } else {
        let text = "the task that follows boots does not answer\n";
        (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
    }
}

async fn readyz(State(observed): State<Arc<Observed>>, RawQuery(query): RawQuery) -> Response {
    let health = observed.health().await;
    let status = if health.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|it| it.starts_with("verbose")));
    let text = match (verbose, health.is_ready()) {
        (true, _) => health.to_string(),
        (false, true) => "ok\n".to_owned(),
        (false, false) => "not ready; ask for /readyz?verbose\n".to_owned(),
    };
    (status, text).into_response()
}

#[cfg(test)]
mod log_tests;
#[cfg(test)]
mod tests;
