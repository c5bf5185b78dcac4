use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use kiln_builder::BuildRequest;
use kiln_builder::output::Signing;
use kiln_builder::progress::Bars;
use kiln_builder::trust::KeyDir;
use kiln_inventory::{Lease, NewMachine, Store};
use kiln_types::{Arch, ImageRef};

use super::{ADDRESS, ADDRESS6, BRIDGE, NETWORK6};
use crate::bake::BakeSettings;
use crate::dhcp::Rules;
use crate::loaders;
use crate::serve::{self, Running};
use crate::settings::{
    Advertise, AgentSettings, Dhcp6Mode, DhcpMode, DiscoverySettings, HearSettings, HttpsSettings,
    InventorySettings, LogSettings, Settings, Subnet6Settings, SubnetSettings, TransferSettings,
    TrustSettings,
};

/// What is given on the bridge.
const NETWORK6_POOL: (Ipv6Addr, Ipv6Addr) =
    (Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, 0), Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 1, 0xffff));

/// A server for a private network: where its files are, and what is done before and after the network is entered.
#[derive(Clone, Debug)]
pub struct Site {
    directory: PathBuf,
    store: PathBuf,
    bake: BakeSettings,
    inventory: InventorySettings,
    discovery: DiscoverySettings,
    subnets: Vec<SubnetSettings>,
    subnets6: Vec<Subnet6Settings>,
    https: Option<HttpsSettings>,
    secure_boot: bool,
    uki_signing: Option<Signing>,
    loaders: Option<PathBuf>,
}

impl Site {
    /// Names the folder for what ends with the server, and the artifact store, which stays.
    pub fn new(directory: &Path, store: &Path) -> Self {
        let bake = BakeSettings::default();
        let subnets = vec![Self::subnet()];
        Self {
            directory: directory.to_owned(),
            store: store.to_owned(),
            bake,
            inventory: InventorySettings::default(),
            discovery: DiscoverySettings::default(),
            subnets,
            subnets6: Vec::new(),
            https: None,
            secure_boot: false,
            uki_signing: None,
            loaders: None,
        }
    }

    /// Lets the server bake images by itself.
    #[must_use]
    pub fn with_bake(self, bake: BakeSettings) -> Self {
        Self { bake, ..self }
    }

    /// Lets the server keep its inventory somewhere else than in its folder.
    #[must_use]
    pub fn with_inventory(self, inventory: InventorySettings) -> Self {
        Self { inventory, ..self }
    }

    /// Says what machines get that nobody has added.
    #[must_use]
    pub fn with_discovery(self, discovery: DiscoverySettings) -> Self {
        Self { discovery, ..self }
    }

    /// Lets the server serve HTTPS beside HTTP.
    #[must_use]
    pub fn with_https(self, https: HttpsSettings) -> Self {
        Self { https: Some(https), ..self }
    }

    /// Has shim and GRUB fetched with the loaders.
    #[must_use]
    pub fn with_secure_boot(self) -> Self {
        Self { secure_boot: true, ..self }
    }

    /// Lets the server use the loaders of another folder.
    #[must_use]
    pub fn with_loaders(self, loaders: &Path) -> Self {
        Self { loaders: Some(loaders.to_owned()), ..self }
    }

    /// Lets the server sign the programs that it makes for one machine.
    #[must_use]
    pub fn with_signing(self, signing: Signing) -> Self {
        Self { uki_signing: Some(signing), ..self }
    }

    /// Lets the server use another store.
    #[must_use]
    pub fn with_store(self, store: &Path) -> Self {
        Self { store: store.to_owned(), ..self }
    }

    /// Lets the server serve these subnets, instead of the one of the bridge.
    #[must_use]
    pub fn with_subnets(self, subnets: Vec<SubnetSettings>) -> Self {
        Self { subnets, ..self }
    }

    /// Lets the server serve IPv6 too, on these subnets.
    #[must_use]
    pub fn with_subnets6(self, subnets6: Vec<Subnet6Settings>) -> Self {
        Self { subnets6, ..self }
    }

    /// Returns the subnet of IPv6 on the bridge, in which the server is the router that says where addresses come
    /// from, and gives them.
    pub fn subnet6() -> Subnet6Settings {
        Subnet6Settings {
            dhcp: Dhcp6Mode::Stateful,
            pool: vec![NETWORK6_POOL.0..=NETWORK6_POOL.1],
            advertise: Some(Advertise {
                managed: true,
                other: true,
                autonomous: false,
                ..Advertise::default()
            }),
            ..Subnet6Settings::new(NETWORK6, 64, BRIDGE, ADDRESS6)
        }
    }

    /// Returns the subnet of the bridge, in which the server gives addresses.
    pub fn subnet() -> SubnetSettings {
        SubnetSettings {
            network: Ipv4Addr::new(10, 77, 0, 0),
            prefix: 24,
            interface: BRIDGE.to_owned(),
            address: ADDRESS,
            dhcp: DhcpMode::Server,
            boot_server: false,
            relay: false,
            pool: vec![Ipv4Addr::new(10, 77, 0, 100)..=Ipv4Addr::new(10, 77, 0, 199)],
            router: vec![ADDRESS],
            dns: Vec::new(),
            domain: None,
            lease_time: Duration::from_secs(3600),
            rules: Rules::default(),
        }
    }

    /// Returns the settings of a server on the bridge of the private network.
    pub fn settings(&self) -> Settings {
        Settings {
            data_dir: self.directory.clone(),
            inventory: self.inventory.clone(),
            webhooks: crate::webhook::WebhookSettings::default(),
            secrets_key: self.directory.join("secrets.key"),
            socket: self.directory.join("kiln.sock"),
            store_dir: self.store.clone(),
            http_port: 8080,
            tftp_port: 69,
            tftp: crate::tftp::Config::default(),
            metadata_dir: Some(self.directory.join("metadata")),
            discovery: self.discovery.clone(),
            secure_boot: self.secure_boot,
            uki_signing: self.uki_signing.clone(),
            raspberry_pi: false,
            u_boot_rpi: false,
            loaders_dir: Some(self.loaders.clone().unwrap_or_else(|| self.cache().join("loaders"))),
            mirror: None,
            bake: self.bake.clone(),
            trust: TrustSettings::beside(&self.store),
            agent: AgentSettings::default(),
            api: crate::settings::ApiSettings::default(),
            https: self.https.clone(),
            transfers: TransferSettings::default(),
            metrics: None,
            late_after: Duration::from_secs(15 * 60),
            hear: HearSettings { syslog: Some(514), netconsole: Some(6666), every_kernel: false },
            log: LogSettings::default(),
            subnets: self.subnets.clone(),
            subnets6: self.subnets6.clone(),
        }
    }

    /// Returns where the loaders are kept from run to run.
    fn cache(&self) -> PathBuf {
        self.store.join("cache")
    }

    /// Fetches the loaders, unless an earlier run has. Needs the host's network.
    ///
    /// # Errors
    ///
    /// When they cannot be fetched.
    pub async fn fetch_loaders(&self) -> anyhow::Result<()> {
        let settings = Settings { data_dir: self.cache(), loaders_dir: None, ..self.settings() };
        loaders::obtain(&settings).await?;
        Ok(())
    }

    /// Builds an image for each architecture. Needs the host's network.
    ///
    /// # Errors
    ///
    /// When something cannot be fetched or built.
    pub async fn build(&self, spec: &Path, architectures: &[Arch]) -> anyhow::Result<ImageRef> {
        let store = kiln_builder::Store::open(&self.store)?;
        let progress = Bars::new();
        let mut image = None;
        for &arch in architectures {
            let request = BuildRequest {
                keys: Some(KeyDir::beside(&self.store)),
                progress: &progress,
                ..BuildRequest::new(&store, vec![spec.to_owned()], arch)
            };
            let report = kiln_builder::build(request)
                .await
                .with_context(|| format!("cannot build {} for {arch}", spec.display()))?;
            image = Some(report.image);
        }
        image.context("no architecture to build for")
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
        // Before the server starts, so that its first snapshot has them.
        let database = settings.database();
        let inventory = Store::connect(&database)
            .await
            .with_context(|| format!("cannot open the inventory {database}"))?;
        for machine in machines {
            inventory
                .add_machine(&machine)
                .await
                .with_context(|| format!("cannot add the machine {}", machine.name))?;
        }
        let running = serve::start(settings).await?;
        Ok(Served { inventory, running })
    }
}

/// A server that runs.
#[derive(Debug)]
pub struct Served {
    inventory: Store,
    running: Running,
}

impl Served {
    /// Returns its inventory.
    pub const fn inventory(&self) -> &Store {
        &self.inventory
    }

    /// Returns its leases, also those that have ended.
    pub fn leases(&self) -> Vec<Lease> {
        self.running.leases()
    }

    /// Returns the path of its socket.
    pub fn socket(&self) -> &Path {
        self.running.socket_path()
    }

    /// Waits until a part of it dies, and says which.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn failed(&mut self) -> String {
        self.running.failed().await
    }

    /// Ends it in good order.
    pub async fn shutdown(self) {
        self.running.shutdown().await;
    }
}
