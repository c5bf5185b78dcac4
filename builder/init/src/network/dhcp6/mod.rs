//! IPv6 addresses, or other settings only, from a DHCPv6 server.

mod client;
mod message;

pub(super) use client::{Action, Client, Event, Lease, Mode};
pub(super) use message::{Answer, read, write};

/// Where clients and servers listen (RFC 8415 §7.2).
pub(super) const CLIENT_PORT: u16 = 546;
pub(super) const SERVER_PORT: u16 = 547;
