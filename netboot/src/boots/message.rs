//! What goes through the queue to the task that follows boots.

use std::collections::HashMap;
use std::net::IpAddr;

use kiln_inventory::{Boot, BootId, Database, Decision, MachineId, OrderId, Sighting, StoreError};
use kiln_ipxe::BootTicket;
use tokio::sync::oneshot;

use super::{BootsError, Exchange, Identity, NextPlan, Reports, Standing, Transfer};
use crate::discovery::Discovery;

/// What a machine tells besides its timeline.
#[derive(Debug)]
pub(super) enum Told {
    Facts(String),
    KernelLog(String),
}

/// Who asks for what ties fetches to a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScriptBy {
    /// iPXE, for its script.
    Ipxe,
    /// Another loader, for its menu.
    Menu,
    /// The firmware, for one file with everything in it.
    Firmware,
}

/// What the servers hand to the task that follows boots.
#[derive(Debug)]
pub(super) enum Message {
    Discovery(Discovery),
    GoOn {
        database: Database,
        reply: oneshot::Sender<Result<(), StoreError>>,
    },
    #[cfg(feature = "otel")]
    Ends(crate::otel::Ended),
    Seen {
        at: i64,
        sighting: Sighting,
        decision: Option<Decision>,
        fresh: bool,
        address: Option<IpAddr>,
        exchange: Option<Exchange>,
    },
    Warn {
        at: i64,
        boot: BootId,
        detail: String,
    },
    Loader {
        at: i64,
        peer: IpAddr,
        transfer: Transfer,
    },
    Untrusted {
        at: i64,
        peer: IpAddr,
        detail: String,
    },
    Script {
        at: i64,
        peer: IpAddr,
        sighting: Sighting,
        decision: Decision,
        by: ScriptBy,
        reply: oneshot::Sender<Option<BootTicket>>,
    },
    Who {
        peer: IpAddr,
        reply: oneshot::Sender<Option<Sighting>>,
    },
    At {
        peer: IpAddr,
        reply: oneshot::Sender<Option<BootId>>,
    },
    Transfer {
        at: i64,
        peer: IpAddr,
        boot: BootId,
        transfer: Transfer,
    },
    LoaderFailed {
        at: i64,
        peer: IpAddr,
        boot: BootId,
        detail: String,
    },
    Identity {
        at: i64,
        peer: IpAddr,
        boot: BootId,
        key: String,
        reply: oneshot::Sender<Result<Identity, BootsError>>,
    },
    Reports {
        at: i64,
        peer: IpAddr,
        boot: BootId,
        token: String,
        reports: Reports,
        reply: oneshot::Sender<Result<(), BootsError>>,
    },
    Told {
        at: i64,
        peer: IpAddr,
        boot: BootId,
        token: String,
        told: Told,
        reply: oneshot::Sender<Result<(), BootsError>>,
    },
    Proof {
        at: i64,
        peer: IpAddr,
        boot: BootId,
        token: String,
        reply: oneshot::Sender<Result<MachineId, BootsError>>,
    },
    Gave {
        peer: IpAddr,
        boot: BootId,
        reply: oneshot::Sender<bool>,
    },
    Running {
        machine: MachineId,
        reply: oneshot::Sender<Option<Boot>>,
    },
    Addresses {
        reply: oneshot::Sender<HashMap<MachineId, IpAddr>>,
    },
    Next {
        at: i64,
        machine: MachineId,
        plan: NextPlan,
        order: OrderId,
        reply: oneshot::Sender<Option<BootTicket>>,
    },
    Census {
        reply: oneshot::Sender<Vec<Standing>>,
    },
    NextFailed {
        at: i64,
        machine: MachineId,
        detail: String,
    },
}
