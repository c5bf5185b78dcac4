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
pub mod fat;
mod fat_name;
mod format;
pub mod gpt;
pub mod iso;
pub mod pe;
mod plan;
mod qcow2;
pub mod raw;
pub mod secure_boot;
mod settings;
pub mod sign;
mod stub;
pub mod tar;
pub mod uki;
mod write;

pub use certificate::Certificate;
pub use format::{Format, ParseFormatError};
pub use plan::{ArtifactError, Piece, Plan, PlanReader};
pub use qcow2::Qcow2Error;
pub use settings::{EfiSettings, Signing};
pub use stub::{Stub, StubError};
pub use write::{Bootable, Options, OutputError, initrd, plan, write};
