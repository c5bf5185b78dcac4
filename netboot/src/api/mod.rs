//! The control plane: REST on a unix socket, for the command line. Who may open the socket may do everything.

mod boots;
mod builds;
mod leases;
mod machines;
mod orders;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use kiln_inventory::Store;
use kiln_ipxe::Endpoints;
use kiln_types::Digest;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use boots::{BootDetail, KernelLog};
pub use builds::BuildLog;
pub use leases::LeaseRow;
pub use orders::Ask;

use crate::bake::Baker;
use crate::boots::Boots;
use crate::dhcp::Ledger;
use crate::orders::Orders;
use crate::settings::{AgentSettings, Subnet6Settings, SubnetSettings};
use crate::view::View;

/// What the control plane works on.
#[derive(Clone, Debug)]
pub struct Control {
    /// Machines and boots.
    pub inventory: Store,
    /// What the boot plane sees; refreshed after each change.
    pub view: Arc<View>,
    /// Where machines of each subnet find us.
    pub endpoints: Vec<(SubnetSettings, Endpoints)>,
    /// Where machines reach us by IPv6.
    pub endpoints6: Vec<(Subnet6Settings, Endpoints)>,
    /// Who builds images.
    pub baker: Baker,
    /// Who knows the boots that are under way.
    pub boots: Boots,
    /// What running machines are told to do.
    pub orders: Orders,
    /// What machines may be told.
    pub agent: AgentSettings,
    /// Who has which address.
    pub leases: Ledger,
}

/// An error as the API tells it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Problem {
    /// What went wrong, in one line.
    pub error: String,
}

/// Serves until told to stop.
pub async fn serve(listener: UnixListener, control: Control, stop: CancellationToken) {
    let router = router(control).into_make_service_with_connect_info::<orders::Caller>();
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "the control plane died");
    }
}

/// Returns every route.
pub fn router(control: Control) -> Router {
    Router::new()
        .route("/api/v1/machines", get(machines::list).post(machines::add))
        .route(
            "/api/v1/machines/{key}",
            get(machines::show).put(machines::change).delete(machines::remove),
        )
        .route("/api/v1/machines/{key}/explain", get(machines::explain_one))
        .route("/api/v1/machines/{key}/facts", get(machines::facts))
        .route("/api/v1/machines/{key}/orders", get(orders::list).post(orders::give))
        .route("/api/v1/orders/{id}", get(orders::show))
        .route("/api/v1/boots", get(boots::list))
        .route("/api/v1/boots/{id}", get(boots::show))
        .route("/api/v1/boots/{id}/kernel-log", get(boots::kernel_log))
        .route("/api/v1/leases", get(leases::list))
        .route("/api/v1/leases/{key}", get(leases::show).delete(leases::release))
        .route("/api/v1/images", get(images))
        .route("/api/v1/builds", get(builds::list))
        .route("/api/v1/builds/{image}", get(builds::show).post(builds::start))
        .route("/api/v1/builds/{image}/log", get(builds::log))
        .fallback(async || Fault(StatusCode::NOT_FOUND, "there is no such path".to_owned()))
        .method_not_allowed_fallback(async || {
            Fault(StatusCode::METHOD_NOT_ALLOWED, "this path has other methods".to_owned())
        })
        .with_state(Arc::new(control))
}

/// The images of the artifact store.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Images {
    /// What there is.
    #[serde(flatten)]
    pub index: kiln_builder::store::Index,
    /// Versions that are not served, and why.
    #[serde(default)]
    pub refused: BTreeMap<Digest, String>,
}

async fn images(
    axum::extract::State(control): axum::extract::State<Arc<Control>>,
) -> Result<Json<Images>, Fault> {
    let index = control.view.artifacts().index();
    let index =
        index.map_err(|e| Fault(StatusCode::INTERNAL_SERVER_ERROR, crate::cli::chain(&e)))?;
    Ok(Json(Images { index, refused: BTreeMap::clone(&control.view.refused()) }))
}

/// Status and text of an error.
#[derive(Debug)]
pub(crate) struct Fault(StatusCode, String);

impl Fault {
    fn not_found(what: &str, key: &str) -> Self {
        Self(StatusCode::NOT_FOUND, format!("there is no {what} `{key}`"))
    }
}

impl From<kiln_inventory::StoreError> for Fault {
    fn from(error: kiln_inventory::StoreError) -> Self {
        let status = match &error {
            error if error.is_conflict() => StatusCode::CONFLICT,
            error if error.is_invalid() => StatusCode::BAD_REQUEST,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(status, crate::cli::chain(&error))
    }
}

impl From<QueryRejection> for Fault {
    fn from(error: QueryRejection) -> Self {
        Self(error.status(), error.body_text())
    }
}

impl From<BytesRejection> for Fault {
    fn from(error: BytesRejection) -> Self {
        Self(error.status(), error.body_text())
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        (self.0, Json(Problem { error: self.1 })).into_response()
    }
}

#[cfg(test)]
mod tests;
