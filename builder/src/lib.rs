//! The builder: an image specification in, kernel and initrd segments out.
//!
//! ```text
//! spec ─► resolve, fetch ─► tree per component ─► cpio ─► zstd ─► store ─► manifest
//!          (deb, fetch)      (deb, bundle,       (cpio)  (segment)
//!                             kernel, modules)
//! ```

pub mod build;
pub mod bundle;
mod compress;
pub mod cpio;
pub mod deb;
pub mod diff;
mod disk;
pub mod durable;
pub mod fetch;
pub mod hash;
pub mod init_binary;
pub mod kernel;
pub mod layer;
pub mod lock;
pub mod manifest;
pub mod modules;
pub mod oci;
pub mod output;
pub mod packed;
mod pax;
pub mod progress;
pub mod provenance;
pub mod sbom;
pub mod segment;
pub mod spec;
pub mod store;
pub mod tree;
pub mod trust;

pub use build::{BuildError, BuildReport, BuildRequest, FetchReport, build, fetch, update};
pub use store::Store;
