//! Sockets and interfaces: what the standard library does not say.

mod frame;
mod link;
mod udp;

pub use frame::FrameSocket;
pub use link::{Link, links, mtu};
pub use udp::send_from;
