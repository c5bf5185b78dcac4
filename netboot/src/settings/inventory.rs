//! `[inventory]`: where machines, boots and leases are kept.

use std::path::PathBuf;
use std::str::FromStr as _;
use std::time::Duration;

use kiln_inventory::Database;
use serde::Deserialize;
use toml::Spanned;

use super::{Problems, Settings};

/// Where machines, boots and leases are kept, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventorySettings {
    /// The database; without one, a file in the folder of the data.
    pub database: Option<Database>,
    /// For how long what happened is kept.
    pub keep: Keep,
    /// Directory whose files say which machines and groups there are.
    pub files: Option<PathBuf>,
}

/// For how long what happened is kept; without a time, for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Boots with their timelines, and orders.
    pub boots: Option<Duration>,
    /// What was seen on the network.
    pub sightings: Option<Duration>,
    /// The log of changes.
    pub changes: Option<Duration>,
}

const DAY: Duration = Duration::from_secs(24 * 3600);

impl Default for Keep {
    fn default() -> Self {
        Self { boots: Some(180 * DAY), sightings: Some(90 * DAY), changes: Some(730 * DAY) }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireInventory {
    database: Option<Spanned<String>>,
    keep_boots: Option<Spanned<String>>,
    keep_sightings: Option<Spanned<String>>,
    keep_changes: Option<Spanned<String>>,
    files: Option<PathBuf>,
}

/// Reads a number of days, or `for-ever`.
fn parse_days(text: &str) -> Result<Option<Duration>, String> {
    if text == "for-ever" {
        return Ok(None);
    }
    let days = text.strip_suffix('d').and_then(|days| days.parse::<u32>().ok());
    match days.filter(|days| (1..=36_500).contains(days)) {
        Some(days) => Ok(Some(DAY * days)),
        None => Err(format!("`{text}` is not a number of days; write it as 30d, or as for-ever")),
    }
}

impl WireInventory {
    pub(super) fn check(self, problems: &mut Problems) -> InventorySettings {
        let database = self.database.and_then(|wire| {
            let problem =
                |error: kiln_inventory::ParseDatabaseError| (Some(wire.span()), error.to_string());
            Database::from_str(wire.get_ref()).map_err(|error| problems.push(problem(error))).ok()
        });
        let mut keep = |wire: Option<Spanned<String>>, usual| {
            let Some(wire) = wire else { return usual };
            parse_days(wire.get_ref()).unwrap_or_else(|message| {
                problems.push((Some(wire.span()), message));
                usual
            })
        };
        let usual = Keep::default();
        let keep = Keep {
            boots: keep(self.keep_boots, usual.boots),
            sightings: keep(self.keep_sightings, usual.sightings),
            changes: keep(self.keep_changes, usual.changes),
        };
        InventorySettings { database, keep, files: self.files }
    }
}

impl Settings {
    /// Returns where the inventory is.
    pub fn database(&self) -> Database {
        let file = || Database::Sqlite(self.data_dir.join("inventory.db"));
        self.inventory.database.clone().unwrap_or_else(file)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SUBNET: &str = "[[subnet]]\nnetwork = \"10.0.0.0/24\"\ninterface = \"br0\"\n\
                          address = \"10.0.0.1\"\ndhcp = \"off\"\n";

    #[test]
    fn the_inventory_is_a_file_of_the_data_unless_the_settings_say_otherwise() {
        let database = |text: &str| {
            Settings::parse(Path::new("kiln.toml"), &format!("{SUBNET}{text}")).unwrap().database()
        };
        assert_eq!(database("").file(), Some(Path::new("/var/lib/kiln/inventory.db")));
        let other = database("[server]\ndata-dir = \"/srv/kiln\"\n");
        assert_eq!(other.file(), Some(Path::new("/srv/kiln/inventory.db")));
        let file = database("[inventory]\ndatabase = \"/srv/i.db\"\n");
        assert_eq!(file.file(), Some(Path::new("/srv/i.db")));
        let server = database("[inventory]\ndatabase = \"postgres://kiln:geheim@db/kiln\"\n");
        assert_eq!(server.to_string(), "postgres://kiln@db:5432/kiln");
    }

    #[test]
    fn what_happened_is_kept_for_some_days_or_for_ever() {
        let keep = |text: &str| {
            let text = format!("{SUBNET}[inventory]\n{text}");
            Settings::parse(Path::new("kiln.toml"), &text).map(|settings| settings.inventory.keep)
        };
        assert_eq!(keep("").unwrap(), Keep::default());
        let set = keep("keep-boots = \"30d\"\nkeep-changes = \"for-ever\"\n").unwrap();
        assert_eq!(set, Keep { boots: Some(30 * DAY), changes: None, ..Keep::default() });
        for wrong in ["0d", "3h", "d", "-1d", "99999d"] {
            let error = keep(&format!("keep-sightings = \"{wrong}\"\n")).unwrap_err().to_string();
            assert!(error.contains("is not a number of days"), "{error}");
        }
    }

    #[test]
    fn a_wrong_database_is_named_by_its_place_and_without_its_password() {
        let text = format!("{SUBNET}[inventory]\ndatabase = \"postgres://kiln:geheim@db\"\n");
        let error = Settings::parse(Path::new("kiln.toml"), &text).unwrap_err().to_string();
        assert_eq!(
            error,
            "kiln.toml:7:12: the address does not name a database; \
             write the path of a file, or `postgres://user@host/database`"
        );
    }
}
