//! Sockets and interfaces: what the standard library does not say.

mod address;
mod arp;
mod frame;
mod link;
mod neighbour;
mod udp;

pub use address::Addresses;
pub use arp::{ArpSocket, Heard};
pub use frame::FrameSocket;
pub use link::{Link, links, mtu};
pub use neighbour::neighbours6;
pub use udp::try_send_from;
