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
mod board;
mod book;
mod claims;
mod classify;
pub mod client;
mod clock;
mod encode;
mod engine;
mod flood;
pub mod journal;
mod leases;
mod ledger;
mod option;
mod pool;
mod probe;
mod proxy;
mod rival;
mod rules;
mod seldom;
mod select;
mod server;
mod subnet;
mod transport;
pub mod v6;
mod wire;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod proxy_tests;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod rules_tests;

pub(crate) use bind::make_room;
pub use bind::{BindError, bind, bind_boot_server};
pub use claims::{Claimer, Ours, Pooled, SharedLedger, Shares, place};
pub use classify::classify;
pub use encode::{EncodeError, Reply, ReplyKind, ReplyOption};
pub use engine::{Change, Note, Outcome, View, respond};
pub use leases::{LeaseTable, Timestamp};
pub use ledger::{BoxError, LeaseLog, Ledger};
pub use proxy::respond_4011;
#[cfg(test)]
pub(crate) use replay::{Random, rounds};
pub use rules::{Hostnames, ParseRouteError, Route, Rules, is_domain};
pub use select::Site;
pub use server::{DhcpEvent, Observer, Port, ServeError, Service, serve};
pub use subnet::{Network, ParseNetworkError, Role, Subnet, SubnetError};
pub use wire::{Kind, Request, WireError};
