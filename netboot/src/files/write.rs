//! Writes what files describe. Secrets are never written.

use anyhow::{Context as _, anyhow};
use clap::ValueEnum;
use kiln_inventory::Wanted;

/// How a description is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Style {
    /// YAML
    #[default]
    Yaml,
    /// TOML
    Toml,
    /// JSON
    Json,
    /// A table with commas, of machines only: without metadata, DHCP options and disks
    Csv,
}

impl Style {
    /// Returns how names of such files end.
    pub const fn ending(self) -> &'static str {
        match self {
            Self::Yaml => "yaml",
            Self::Toml => "toml",
            Self::Json => "json",
            Self::Csv => "csv",
        }
    }
}

/// Writes a description, so that it reads as the same one.
///
/// # Errors
///
/// When the format has no form for something.
pub fn write(wanted: &Wanted, style: Style) -> anyhow::Result<String> {
    let mut wanted = wanted.clone();
    for machine in &mut wanted.machines {
        machine.metadata.remove("secrets");
    }
    for group in &mut wanted.groups {
        group.settings.metadata.remove("secrets");
    }
    Ok(match style {
        Style::Yaml => serde_saphyr::to_string(&wanted).map_err(|error| anyhow!("{error}"))?,
        Style::Toml => toml::to_string(&wanted)
            .context("TOML has no form for a `null` in the metadata; use YAML")?,
        Style::Csv => super::table::write(&wanted.machines)?,
        Style::Json => serde_json::to_string_pretty(&wanted)? + "\n",
    })
}
