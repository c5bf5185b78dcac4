//! What a built version can be written as.
//!
//! Everything that boots is a [`Plan`] first: small, with an exact length, its large parts still in the store.
//!
//! ```text
//! stub + kernel + segments ─► uki ─► sign ─► fat (ESP) ─┬─► raw (GPT) ─► qcow2
//!                                                       └─► iso
//! ```

mod format;
mod plan;

pub use format::{Format, ParseFormatError};
pub use plan::{ArtifactError, Piece, Plan, PlanReader};
