//! The words that every part of Kiln shares: [`Mac`], [`Arch`], [`Digest`], [`ImageRef`], [`Reach`], and the
//! [`facts`] of a machine.
//!
//! Each is parsed once, at the edge, and is correct from then on. No I/O and no dependency beyond serde.

mod arch;
mod digest;
pub mod facts;
mod image_ref;
mod mac;
#[cfg(feature = "openapi")]
mod openapi;
mod reach;

pub use arch::{Arch, ParseArchError};
pub use digest::{Digest, ParseDigestError};
pub use image_ref::{ImageRef, ParseImageRefError};
pub use mac::{Mac, ParseMacError};
pub use reach::{Reach, plain_ip};
