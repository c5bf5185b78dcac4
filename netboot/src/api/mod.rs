//! The control plane: REST on a unix socket, where who may open it may do everything, and encrypted on TCP for those
//! who have a token.

mod access;
mod apply;
mod audit;
mod boots;
mod builds;
mod change;
mod deliver;
mod discovery;
mod discovery_rules;
mod events;
mod exports;
mod extract;
mod feed;
mod gate;
mod groups;
mod idempotency;
mod identity;
mod images;
mod leases;
mod listen;
mod machines;
mod merge;
mod netbox;
mod openapi;
mod orders;
mod page;
mod peer;
mod problem;
mod route;
mod routes;
mod scope;
mod secrets;
mod take_over;
mod tokens;
mod users;
mod webhooks;

use std::sync::Arc;

use axum::Router;
use kiln_inventory::Store;
use kiln_ipxe::Endpoints;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

pub use access::{Noun, ParseNounError};
pub use apply::{AppliedChange, Apply, ApplyAnswer};
pub use audit::{AuditRow, Verification};
pub use boots::{BootDetail, BootRow, KernelLog};
pub use builds::BuildLog;
pub use change::Preview;
pub use deliver::Courier;
pub use discovery::{Approve, Decided, DiscoveryRow, MergeInto};
pub use discovery_rules::{Expect, RuleRow, RuleTest, Tried};
pub use exports::Targets;
pub use feed::Event;
pub(crate) use feed::NOUNS;
pub use gate::Gate;
pub use groups::{GroupRow, MachineSettings};
pub use identity::{Merge, Merged, Split};
pub use images::Images;
pub use leases::LeaseRow;
pub use listen::serve_encrypted;
pub use merge::FieldChange;
pub use netbox::{Import, ImportChange, Skipped};
pub use orders::Ask;
pub use problem::Problem;
pub use scope::{ParseScopeError, Scope};
pub use secrets::{Encoding, NewSecret, RotatedKey, SecretRow};
pub use take_over::{SkippedLease, TakenLeases};
pub use tokens::{CreatedToken, NewToken, TokenRow};
pub use users::{Login, NewPassword, NewUser, Session, UserRow};
pub use webhooks::{CreatedWebhook, NewWebhook, WebhookRow, courier, deliver_events};

#[cfg(feature = "otel")]
pub(crate) use boots::ended;
pub(crate) use deliver::webhook_states;
pub(crate) use problem::Fault;

use crate::bake::Baker;
use crate::boots::Boots;
use crate::dhcp::Ledger;
use crate::discovery::Vendors;
use crate::hear::Book;
use crate::orders::Orders;
use crate::secrets::Secrets;
use crate::settings::{AgentSettings, Subnet6Settings, SubnetSettings};
use crate::view::View;
use crate::webhook::Hooks;

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
    /// What machines have said.
    pub heard: Book,
    /// What running machines are told to do.
    pub orders: Orders,
    /// What machines may be told.
    pub agent: AgentSettings,
    /// Who has which address.
    pub leases: Ledger,
    /// Those of IPv6.
    pub leases6: crate::dhcp::v6::Ledger,
    /// What opens the secrets of machines.
    pub secrets: Arc<Secrets>,
    /// Who made which network card.
    pub vendors: Vendors,
    /// Who is told what happens.
    pub hooks: Hooks,
    /// Who may come in.
    pub gate: Gate,
    /// Ends what would never end by itself.
    pub stop: CancellationToken,
}

/// Serves until told to stop.
pub async fn serve(listener: UnixListener, router: Router, stop: CancellationToken) {
    let router = router.into_make_service_with_connect_info::<peer::Peer>();
    let served = axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned());
    if let Err(error) = served.await {
        tracing::error!(error = &error as &dyn std::error::Error, "the control plane died");
    }
}

/// Returns every route.
pub fn router(control: Control) -> Router {
    routes::router(control)
}

#[cfg(test)]
mod access_tests;
#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod audit_tests;
#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod dry_tests;
#[cfg(test)]
mod events_tests;
#[cfg(test)]
mod groups_tests;
#[cfg(test)]
mod header_tests;
#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod lease_tests;
#[cfg(test)]
mod list_tests;
#[cfg(test)]
mod noun_tests;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod webhook_tests;
