use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use kiln_inventory::{NewMachine, Store, UnknownMachines};
use kiln_types::{Arch, ImageRef};

use super::{ADDRESS, BRIDGE};
use crate::settings::{DhcpMode, Settings, SubnetSettings};

/// A server for a private network: where its files are, and what is done before and after the network is entered.
#[derive(Clone, Debug)]
pub struct Site {
    directory: PathBuf,
    store: PathBuf,
}

impl Site {
    /// Names the folder for what ends with the server, and the artifact store, which stays.
    pub fn new(directory: &Path, store: &Path) -> Self {
        Self { directory: directory.to_owned(), store: store.to_owned() }
    }

    /// Returns the settings of a server on the bridge of the private network.
    pub fn settings(&self) -> Settings {
        Settings {
            data_dir: self.directory.clone(),
            socket: self.directory.join("kiln.sock"),
            store_dir: self.store.clone(),
            http_port: 8080,
            tftp_port: 69,
            unknown: UnknownMachines::Ignore,
            loaders_dir: None,
            mirror: None,
            subnets: vec![SubnetSettings {
                network: Ipv4Addr::new(10, 77, 0, 0),
                prefix: 24,
                interface: BRIDGE.to_owned(),
                address: ADDRESS,
                dhcp: DhcpMode::Server,
                pool: vec![Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 199)],
                router: vec![ADDRESS],
                dns: Vec::new(),
                domain: None,
                lease_time: Duration::from_secs(3600),
            }],
        }
    }

    /// Builds an image for each architecture and fetches the loaders. Needs the host's network.
    ///
    /// # Errors
    ///
    /// When something cannot be fetched or built.
    pub async fn prepare(&self, spec: &Path, architectures: &[Arch]) -> anyhow::Result<ImageRef> {
        // TODO(demo): the builder's `build` and the loaders' `fetch`.
        let _ = architectures;
        bail!("cannot build {} yet", spec.display())
    }

    /// Starts a server that knows these machines.
    ///
    /// # Errors
    ///
    /// When the inventory cannot be written or the server does not start.
    pub async fn serve(
        &self,
        machines: impl IntoIterator<Item = NewMachine>,
    ) -> anyhow::Result<Served> {
        let settings = self.settings();
        let path = settings.data_dir.join("inventory.db");
        let inventory = Store::open(&path)
            .await
            .with_context(|| format!("cannot open the inventory {}", path.display()))?;
        for machine in machines {
            inventory
                .add_machine(&machine)
                .await
                .with_context(|| format!("cannot add the machine {}", machine.name))?;
        }
        // TODO(demo): `serve::start`.
        Ok(Served { inventory, socket: settings.socket })
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Served {
    inventory: Store,
    socket: PathBuf,
}

impl Served {
    /// Returns its inventory.
    pub const fn inventory(&self) -> &Store {
        &self.inventory
    }

    /// Returns the path of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Ends it in good order.
    pub async fn shutdown(self) {}
}
