//! `kiln config`.

use clap::{Args, Subcommand};

use super::{ConfigArg, Failure};
use crate::settings::Settings;

/// The settings of the server
#[derive(Debug, Args)]
pub struct ConfigArgs {
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Say what is wrong in kiln.toml, or nothing
    Check {
        #[command(flatten)]
        config: ConfigArg,
    },
}

pub(super) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    let ConfigCommand::Check { config } = &args.command;
    Settings::read(&config.config).map_err(|error| Failure::new(Failure::CONFIG, error))?;
    Ok(())
}
