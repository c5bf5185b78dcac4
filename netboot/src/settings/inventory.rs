//! `[inventory]`: where machines, boots and leases are kept.

use std::str::FromStr as _;

use kiln_inventory::Database;
use serde::Deserialize;
use toml::Spanned;

use super::{Problems, Settings};

/// Where machines, boots and leases are kept, and for how long.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InventorySettings {
    /// The database; without one, a file in the folder of the data.
    pub database: Option<Database>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireInventory {
    database: Option<Spanned<String>>,
}

impl WireInventory {
    pub(super) fn check(self, problems: &mut Problems) -> InventorySettings {
        let database = self.database.and_then(|wire| {
            let problem =
                |error: kiln_inventory::ParseDatabaseError| (Some(wire.span()), error.to_string());
            Database::from_str(wire.get_ref()).map_err(|error| problems.push(problem(error))).ok()
        });
        InventorySettings { database }
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
