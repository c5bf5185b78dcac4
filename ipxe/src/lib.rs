//! iPXE: which loader a firmware gets, which boot file it is told, and the script that the loader runs.
//!
//! ```text
//!  Decision + Sighting ─┬─▶ boot_file ─▶ DHCP options: the loader, or the script once iPXE runs
//!                       └─▶ script    ─▶ text: fetch kernel and segments, wait, or say why not
//! ```
//!
//! Everything here is pure: no I/O, no clock.

mod boot_file;
mod endpoints;
mod loader;
mod old;
mod script;
mod text;

pub use boot_file::{BootFile, UBOOT_SCRIPT, boot_file, shim, uki_path};
pub use endpoints::{Endpoints, Https, HttpsFor};
pub use loader::{LOADERS, LoaderFile, MORE_LOADERS, loader};
pub use old::{INITRD_BY_KERNEL, is_old, renewed_by};
pub use script::{BootTicket, WAIT_SCRIPT, autoexec, script};
