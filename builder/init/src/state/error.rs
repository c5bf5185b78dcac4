//! Why there is no state, in sentences that say what to do.

use std::io;

use super::ext4::NotExt4;
use super::gpt::GptError;
use super::record::TooNew;
use crate::mounts::MountError;

/// Why the state partition is not mounted. Where nothing else is said, nothing was written.
#[derive(Debug, thiserror::Error)]
pub(super) enum StateError {
    #[error(
        "no disk has a partition called {label}, and the server names no disk of this machine for it (kiln machine set NAME --state-disk serial:…); here: {have}"
    )]
    NoPartition { label: String, have: String },
    #[error("the disk {named} that the server names is not here; here: {have}")]
    NoDisk { named: String, have: String },
    #[error(
        "{named}, which the server names, is more than one disk: {have}; name it by its serial"
    )]
    Ambiguous { named: String, have: String },
    #[error(
        "{label} is the name of more than one partition: {have}; take one of these disks out, or rename one"
    )]
    Twice { label: String, have: String },
    #[error(
        "{label} is a partition of {at}, and the server names {named}; name that disk, or take it out"
    )]
    Elsewhere { label: String, at: String, named: String },
    #[error("{disk} can only be read")]
    ReadOnly { disk: String },
    #[error("{disk} is in use, such as by an array")]
    InUse { disk: String },
    #[error("{disk} has {has} MiB, and the image wants {wants} MiB; nothing was written to it")]
    DiskTooSmall { disk: String, has: u64, wants: u64 },
    #[error(
        "{disk}, which the server names, is not empty: it has {what}; nothing was written to it"
    )]
    NotEmpty { disk: String, what: &'static str },
    #[error("{disk} has sectors or a size that no disk has")]
    Geometry { disk: String },
    #[error("cannot use {what}")]
    Io { what: String, source: io::Error },
    #[error("{disk} is not used")]
    Table { disk: String, source: GptError },
    #[error("{disk} is not used: its partition table is not what the kernel has read")]
    TableDiffers { disk: String },
    #[error("{partition} has {has} MiB, and the image wants {wants} MiB")]
    TooSmall { partition: String, has: u64, wants: u64 },
    #[error("{partition} is not mounted")]
    NotExt4 { partition: String, source: NotExt4 },
    #[error("{partition} is not mounted: its check ({program}) {end}: {words}; look at it by hand")]
    Check { partition: String, program: &'static str, end: String, words: String },
    #[error("{program} cannot make a file system on {disk}: {end}: {words}")]
    Make { disk: String, program: &'static str, end: String, words: String },
    #[error("{disk} was made, and its partition does not appear")]
    DoesNotAppear { disk: String },
    #[error("{partition} cannot be mounted")]
    Mount { partition: String, source: MountError },
    #[error("{partition} is not used: what it says of itself in .kiln/state.json cannot be read")]
    Record { partition: String, source: io::Error },
    #[error("{partition} is not used")]
    TooNew { partition: String, source: TooNew },
}

impl StateError {
    pub(super) fn io(what: &str) -> impl FnOnce(io::Error) -> Self + '_ {
        move |source| Self::Io { what: what.to_owned(), source }
    }
}
