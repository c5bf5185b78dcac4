//! An IPv4 address from a DHCP server.

mod client;
mod message;
mod options;

pub(super) use client::{Action, Client, Event, Lease, Why};
#[cfg(test)]
pub(super) use message::Ask;
pub(super) use message::{Answer, Asker, read, write};
