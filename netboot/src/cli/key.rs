//! `kiln key`.

use clap::{Args, Subcommand};

use super::Failure;
use super::secure_boot::{self, SecureBootArgs};

/// Keys
#[derive(Debug, Args)]
pub struct KeyArgs {
    #[command(subcommand)]
    command: KeyCommand,
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// The key that UEFI programs are signed with: create
    SecureBoot(SecureBootArgs),
}

pub(super) fn run(args: &KeyArgs) -> Result<(), Failure> {
    match &args.command {
        KeyCommand::SecureBoot(args) => secure_boot::run(args),
    }
}
