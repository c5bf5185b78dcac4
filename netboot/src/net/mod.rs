//! Sockets and interfaces: what the standard library does not say.

mod udp;

pub use udp::send_from;
