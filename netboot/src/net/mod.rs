//! Sockets and interfaces: what the standard library does not say.

mod frame;
mod udp;

pub use frame::FrameSocket;
pub use udp::send_from;
