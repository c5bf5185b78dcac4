//! The boot plane: everything that firmware, loaders and booting systems fetch over HTTP, and what they report.

mod body;
mod disk;
mod file;
mod listen;
mod machine;
mod metadata;
mod orders;
mod reply;
mod reports;
mod routes;
mod shares;
mod told;
mod transfers;
mod wire;

use std::sync::Arc;

pub use self::listen::Server;
pub(crate) use self::machine::machine_segment;
pub(crate) use self::shares::Shares;
pub use self::transfers::Transfers;
use crate::bake::Baker;
use crate::boots::Boots;
use crate::loaders::Loaders;
use crate::orders::Orders;
use crate::view::View;

/// What the boot plane serves from. One for each listener, because scripts name the address they came from.
#[derive(Debug)]
pub struct Plane {
    /// Machines and images.
    pub view: Arc<View>,
    /// Who is told of what was fetched.
    pub boots: Boots,
    /// Loaders.
    pub loaders: Loaders,
    /// Who builds images.
    pub baker: Baker,
    /// What running machines are told to do.
    pub orders: Orders,
    /// How many files are sent at a time, and how fast. One for all listeners.
    pub transfers: Arc<Transfers>,
    /// Folder of the templates of metadata.
    pub templates: Option<std::path::PathBuf>,
}

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod damage_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod made_tests;
#[cfg(test)]
mod metadata_tests;
#[cfg(test)]
mod order_tests;
#[cfg(test)]
mod outsider_tests;
#[cfg(test)]
mod secret_tests;
#[cfg(test)]
mod state_tests;
#[cfg(test)]
mod tests;
