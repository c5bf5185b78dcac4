//! A private network with virtual machines in it, for `kiln demo` and for the tests.
//!
//! ```text
//!  this process, in a network namespace of its own
//!    server ── kiln0 (bridge, 10.77.0.1/24 and fd77::1/64) ─┬─ kt0 ── qemu: SeaBIOS, OVMF or AAVMF
//!                                                           └─ kt1 ── qemu …
//! ```
//!
//! Nothing of it is visible from outside, and nothing has to be taken down: the namespace ends with the last
//! process in it, and the machines end with the thread that started them.

mod console;
mod error;
mod firmware;
mod machine;
mod neighbour;
mod network;
mod site;

pub use console::{Console, ConsoleError};
pub use error::LabError;
pub use firmware::{FirmwareImages, FirmwareKind, MachineKind};
pub use machine::{Card, Drive, Machine, MachineConfig};
pub use neighbour::Neighbour;
pub use network::{ADDRESS, ADDRESS6, BRIDGE, Lab, NETWORK, NETWORK6};
pub use site::{Served, Site};
