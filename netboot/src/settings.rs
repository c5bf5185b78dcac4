//! `kiln.toml`: what is written there, and the checked [`Settings`] it becomes.

mod api;
mod debian;
mod discovery;
mod error;
mod folders;
mod hear;
mod https;
mod images;
mod inventory;
mod loaders;
mod metrics;
mod ports;
mod registries;
mod rules;
mod secrets;
mod subnet;
mod subnet6;
mod tftp;
mod transfers;
mod trust;
mod webhooks;

use std::net::{IpAddr, SocketAddr};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use kiln_builder::oci::RegistrySettings;
use kiln_builder::output::Signing;
use serde::Deserialize;
use toml::Spanned;

pub use self::api::ApiSettings;
pub use self::debian::{DebianSettings, debian};
pub use self::discovery::DiscoverySettings;
pub use self::error::{Problem, SettingsError};
pub use self::folders::{Folders, folders};
pub use self::hear::HearSettings;
pub use self::https::{HttpsSettings, OwnCertificate};
pub use self::inventory::{InventorySettings, Keep};
pub use self::metrics::{LogFormat, LogSettings};
pub use self::registries::registries;
pub use self::subnet::{DhcpMode, SubnetSettings};
pub use self::subnet6::{Advertise, Dhcp6Mode, Subnet6Settings};
pub use self::transfers::TransferSettings;
pub use self::trust::{TrustSettings, image_policy};
use crate::bake::BakeSettings;

/// Where `kiln serve` looks for its settings unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/kiln/kiln.toml";
/// Where the server's socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/kiln/kiln.sock";
const DEFAULT_DATA: &str = "/var/lib/kiln";
/// The times that can be set: of leases, of builds.
const TIMES: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);

/// Checked settings of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where loaders, leases and what the server makes are kept, and the inventory unless it is elsewhere.
    pub data_dir: PathBuf,
    /// Where machines, boots and leases are kept.
    pub inventory: InventorySettings,
    /// The unix socket of the control plane.
    pub socket: PathBuf,
    /// The artifact store.
    pub store_dir: PathBuf,
    /// TCP port of the boot plane, on the address of every subnet. 0 lets the kernel choose.
    pub http_port: u16,
    /// UDP port of TFTP, on the address of every subnet. 0 lets the kernel choose.
    pub tftp_port: u16,
    /// Folder of the templates of metadata.
    pub metadata_dir: Option<PathBuf>,
    /// How TFTP is served.
    pub tftp: crate::tftp::Config,
    /// How machines are treated that the inventory does not know.
    pub discovery: DiscoverySettings,
    /// A folder that has the loaders already; without one they come from Debian's `ipxe` package.
    pub loaders_dir: Option<PathBuf>,
    /// Whether shim and GRUB are fetched too, for machines with Secure Boot.
    pub secure_boot: bool,
    /// Who signs the UEFI programs that are made for one machine; without one they are not signed.
    pub uki_signing: Option<Signing>,
    /// Whether the firmware of Raspberry Pis is fetched too, which is not free software.
    pub raspberry_pi: bool,
    /// Whether U-Boot for Raspberry Pis is fetched too, which they then start in the place of the kernel.
    pub u_boot_rpi: bool,
    /// Debian mirror for the loaders; without one, the one that the host's apt uses.
    pub mirror: Option<String>,
    /// What the server builds by itself.
    pub bake: BakeSettings,
    /// Which versions may be served.
    pub trust: TrustSettings,
    /// What running machines may be told.
    pub agent: AgentSettings,
    /// The control plane on the network.
    pub api: ApiSettings,
    /// Where events may be sent.
    pub webhooks: crate::webhook::WebhookSettings,
    /// The file of the keys that secrets are encrypted with.
    pub secrets_key: PathBuf,
    /// The boot plane with encryption, where there is one.
    pub https: Option<HttpsSettings>,
    /// How many files are sent at a time, and how fast.
    pub transfers: TransferSettings,
    /// Where metrics and health are served, where they are.
    pub metrics: Option<SocketAddr>,
    /// For how long a machine may boot, or have failed to, before metrics count it as late.
    pub late_after: Duration,
    /// Where what machines say is heard.
    pub hear: HearSettings,
    /// What the log looks like.
    pub log: LogSettings,
    /// The networks that are served.
    pub subnets: Vec<SubnetSettings>,
    /// The networks of IPv6 that are served.
    pub subnets6: Vec<Subnet6Settings>,
}

/// What running machines may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// Whether to run programs on them.
    pub run: bool,
}

impl Settings {
    /// Reads and checks a file.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, or names every place that is wrong.
    pub fn read(path: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| SettingsError::Read { path: path.to_owned(), source })?;
        let mut settings = Self::parse(path, &text)?;
        settings.bake.config = Some(path.to_owned());
        Ok(settings)
    }

    /// Returns how TFTP is served at one of our addresses: its blocks fit the frames of the interface.
    pub fn tftp_at(&self, address: IpAddr) -> crate::tftp::Config {
        let mut config = self.tftp;
        let ipv6 = address.is_ipv6();
        let subnets = self.subnets.iter().filter(|subnet| ipv6 || subnet.address == address);
        for mtu in subnets.filter_map(|subnet| crate::net::mtu(&subnet.interface)) {
            config.limits = config.limits.within_mtu(mtu, ipv6);
        }
        config
    }

    /// Checks a text; `path` is only for the messages.
    ///
    /// # Errors
    ///
    /// Names every place that is wrong.
    pub fn parse(path: &Path, text: &str) -> Result<Self, SettingsError> {
        let fail = |problems: Vec<(Option<Range<usize>>, String)>| SettingsError::Invalid {
            problems: problems
                .into_iter()
                .map(|(span, message)| Problem::new(path, text, span, message))
                .collect(),
        };
        let wire: Wire =
            toml::from_str(text).map_err(|e| fail(vec![(e.span(), e.message().to_owned())]))?;
        let mut problems = Vec::new();
        let settings = wire.check(&mut problems);
        ports::check(&settings, text, &mut problems);
        if problems.is_empty() { Ok(settings) } else { Err(fail(problems)) }
    }
}

type Problems = Vec<(Option<Range<usize>>, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Wire {
    #[serde(default)]
    server: WireServer,
    #[serde(default)]
    inventory: inventory::WireInventory,
    #[serde(default)]
    store: WireStore,
    #[serde(default)]
    http: WirePort,
    #[serde(default)]
    metadata: WireMetadata,
    #[serde(default)]
    tftp: tftp::WireTftp,
    #[serde(default)]
    discovery: discovery::WireDiscovery,
    #[serde(default)]
    loaders: loaders::WireLoaders,
    #[serde(default)]
    debian: debian::WireDebian,
    #[serde(default)]
    images: images::WireImages,
    #[serde(default)]
    image: Vec<images::WireImage>,
    #[serde(default)]
    trust: trust::WireTrust,
    #[serde(default)]
    agent: AgentSettings,
    #[serde(default)]
    api: api::WireApi,
    #[serde(default)]
    secrets: secrets::WireSecrets,
    #[serde(default)]
    webhooks: webhooks::WireWebhooks,
    #[serde(default)]
    https: https::WireHttps,
    #[serde(default)]
    transfers: transfers::WireTransfers,
    #[serde(default)]
    metrics: metrics::WireMetrics,
    #[serde(default)]
    syslog: hear::WireHear,
    #[serde(default)]
    netconsole: hear::WireNetconsole,
    #[serde(default)]
    log: metrics::WireLog,
    #[serde(default)]
    registry: Vec<Spanned<RegistrySettings>>,
    #[serde(default)]
    subnet: Vec<Spanned<subnet::WireSubnet>>,
    #[serde(default)]
    subnet6: Vec<Spanned<subnet6::WireSubnet6>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireServer {
    data_dir: Option<PathBuf>,
    socket: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireStore {
    dir: Option<PathBuf>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WirePort {
    port: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireMetadata {
    dir: Option<PathBuf>,
}

impl Wire {
    fn check(self, problems: &mut Problems) -> Settings {
        registries::check(&self.registry, problems);
        if self.subnet.is_empty() && self.subnet6.is_empty() {
            let message = "no [[subnet]] or [[subnet6]]; add one for each network to serve";
            problems.push((None, message.to_owned()));
        }
        let data_dir = self.server.data_dir.unwrap_or_else(|| DEFAULT_DATA.into());
        let mut subnets: Vec<SubnetSettings> = Vec::new();
        for wire in self.subnet {
            let span = wire.span();
            let subnet = wire.into_inner().check(problems);
            if subnets.iter().any(|other| other.overlaps(&subnet)) {
                problems.push((
                    Some(span),
                    format!("network {}/{} is in two subnets", subnet.network, subnet.prefix),
                ));
            }
            subnets.push(subnet);
        }
        let subnets6 = subnet6::check(self.subnet6, problems);
        let store_dir = folders::store_dir(self.store.dir, Some(&data_dir));
        let trust = self.trust.check(&store_dir);
        let mut bake = images::check(self.images, self.image, problems);
        bake.keys = Some(trust.keys.path().to_owned());
        Settings {
            inventory: self.inventory.check(problems),
            socket: self.server.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            webhooks: self.webhooks.check(problems),
            secrets_key: self.secrets.key_file(&data_dir),
            store_dir,
            data_dir,
            http_port: self.http.port.unwrap_or(8080),
            tftp_port: self.tftp.port.unwrap_or(69),
            tftp: self.tftp.check(problems),
            metadata_dir: self.metadata.dir,
            discovery: self.discovery.check(problems),
            uki_signing: self.loaders.signing(problems),
            loaders_dir: self.loaders.dir,
            secure_boot: self.loaders.secure_boot,
            raspberry_pi: self.loaders.raspberry_pi,
            u_boot_rpi: self.loaders.u_boot_rpi,
            mirror: self.debian.check(problems).mirror,
            bake,
            trust,
            agent: self.agent,
            api: self.api.check(problems),
            https: self.https.check(problems),
            transfers: self.transfers.check(problems),
            late_after: self.metrics.late_after(problems),
            metrics: self.metrics.check(problems),
            hear: hear::check(self.syslog, self.netconsole, problems),
            log: self.log.check(problems),
            subnets,
            subnets6,
        }
    }
}

/// Reads a range of addresses, of either version; the example is for the message.
fn parse_range<A: FromStr + PartialOrd>(
    text: &str,
    example: &str,
) -> Result<RangeInclusive<A>, String> {
    let error = || format!("`{text}` is not a range; write it as {example}");
    let (first, last) = text.split_once('-').ok_or_else(error)?;
    let first: A = first.trim().parse().map_err(|_| error())?;
    let last: A = last.trim().parse().map_err(|_| error())?;
    if first <= last {
        Ok(first..=last)
    } else {
        Err(format!("range `{text}` ends before it begins; swap its two addresses"))
    }
}

/// Reads a time, such as 90s, 30m, 12h or 7d, in seconds: at most as many as there are numbers for.
pub(crate) fn parse_seconds(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match text.get(digits.len()..)? {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    digits.parse().ok().map(|number: u64| number.saturating_mul(factor))
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a time; write it as 90s, 30m, 12h or 7d");
    let time = Duration::from_secs(parse_seconds(text).ok_or_else(error)?);
    if TIMES.contains(&time) {
        Ok(time)
    } else {
        Err(format!("`{text}` is not between 60s and 30d"))
    }
}

#[cfg(test)]
mod tests;
