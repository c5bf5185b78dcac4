//! OCI images: how they are named, where they come from, what they say of themselves.

mod config;
mod layer;
mod reference;

pub use self::config::ImageConfig;
pub use self::layer::{Compression, LayerFile, LayerRef};
pub use self::reference::{Reference, ReferenceError};
