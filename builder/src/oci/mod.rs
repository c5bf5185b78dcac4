//! OCI images: how they are named, where they come from, what they say of themselves.
//!
//! ```text
//!  reference ─► the folder or file that it names ──────────────────────┐
//!            └► local sources (layout folder, archive, `docker save`) ─┤
//!            └► cache by digest ─► mirrors ─► registry ────────────────┴─► Image ─► LayerFile…
//! ```

mod artifact;
mod blobs;
mod config;
mod cosign;
mod directory;
mod document;
mod error;
mod given;
mod images;
mod layer;
mod layout;
mod local;
mod reference;
mod registry;
mod select;
#[cfg(test)]
mod testing;

pub use self::artifact::{PullFrom, Pulled, Pushed, pull, push, write_archive};
pub use self::config::ImageConfig;
pub use self::cosign::{ImagePolicy, ImageRule, Verdict};
pub use self::error::OciError;
pub use self::images::{Image, ImageSettings, Images};
pub use self::layer::{Compression, LayerFile, LayerRef};
pub use self::reference::{GivenImage, GivenKind, Reference, ReferenceError};
pub use self::registry::{RegistryError, RegistrySettings};
