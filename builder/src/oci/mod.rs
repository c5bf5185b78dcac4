//! OCI images: how they are named, where they come from, what they say of themselves.

mod config;
mod reference;

pub use self::config::ImageConfig;
pub use self::reference::{Reference, ReferenceError};
