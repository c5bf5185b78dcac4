//! Sockets and interfaces: what the standard library does not say.

mod frame;
mod udp;

pub use frame::FrameSocket;
pub use udp::send_from;

/// Returns the longest packet that an interface sends, or nothing when there is no such interface.
pub fn mtu(interface: &str) -> Option<u32> {
    let path = std::path::Path::new("/sys/class/net").join(interface).join("mtu");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}
