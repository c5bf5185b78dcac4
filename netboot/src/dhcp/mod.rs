//! DHCP for IPv4: addresses, and the first step of every boot.
//!
//! ```text
//!  packet ─▶ wire::Request ─▶ respond(request, view, now) ─▶ Outcome ─┬─▶ lease on disk ─▶ ACK
//!            guarded decode     pure, calls decide                    └─▶ OFFER, NAK, silence
//! ```
//!
//! Leases belong to hardware addresses, never to client identifiers, since firmware, loader and system of one
//! machine each send another one.

mod address;
mod answer;
mod bind;
mod classify;
mod encode;
mod engine;
mod leases;
mod option;
mod server;
mod subnet;
mod wire;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod replay;

pub use bind::{BindError, bind};
pub use classify::classify;
pub use encode::{EncodeError, Reply, ReplyKind};
pub use engine::{Change, Note, Outcome, View, respond};
pub use leases::{LeaseTable, Timestamp};
pub use server::{BoxError, DhcpEvent, LeaseLog, Observer, ServeError, Service, serve};
pub use subnet::{Network, ParseNetworkError, Subnet, SubnetError};
pub use wire::{Kind, Request, WireError};
