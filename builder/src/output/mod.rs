//! What a built version can be written as.
//!
//! Everything that boots is a [`Plan`] first: small, with an exact length, its large parts still in the store.
//!
//! ```text
//! stub + kernel + segments ─► uki ─► sign ─► fat (ESP) ─┬─► raw (GPT) ─► qcow2
//!                                                       └─► iso
//! ```

mod certificate;
mod der;
mod format;
pub mod pe;
mod plan;
pub mod secure_boot;
pub mod sign;
pub mod uki;

pub use format::{Format, ParseFormatError};
pub use plan::{ArtifactError, Piece, Plan, PlanReader};
