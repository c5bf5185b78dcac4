//! DHCP for IPv6 (RFC 8415): addresses, and the first step of a boot where there is no IPv4.
//!
//! As for IPv4, bytes become a [`Request`] in one guarded place, [`respond`] is pure and asks
//! [`decide`](kiln_inventory::decide), and a lease is on disk before the reply that gives it leaves.
//!
//! What is different: clients name themselves by a DUID, and firmware, loader and system of one machine by three. What
//! they have in common is the hardware address. It is in the packet of a relay (option 79), in the address that the
//! client made of it (firmware and iPXE always do), or in the DUID itself, and is looked for in this order.

mod address;
mod bind;
mod classify;
mod encode;
mod engine;
mod ledger;
mod note;
pub(super) mod option;
mod server;
mod server_id;
mod subnet;
mod table;
mod wire;

#[cfg(test)]
mod engine_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod reader_tests;
#[cfg(test)]
mod replay;
#[cfg(test)]
mod world;

pub use bind::{Bind6Error, bind};
pub use encode::{Reply, ReplyKind};
pub use engine::{Outcome, View, respond};
pub use ledger::{LeaseLog, Ledger};
pub use note::Note;
pub use server::{Counted, Observer, Serve6Error, Service, Site, serve};
pub use server_id::server_id;
pub(crate) use subnet::pool_size;
pub use subnet::{Mode, Subnet};
pub use table::{Holder, LeaseTable};
pub use wire::{Association, Kind, Other, OtherKind, Relay, Request, WireError};
