//! `kiln.toml`: what is written there, and the checked [`Settings`] it becomes.

mod debian;
mod images;
mod registries;
mod trust;

use std::fmt;
use std::net::Ipv4Addr;
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use kiln_builder::oci::RegistrySettings;
use kiln_inventory::UnknownMachines;
use serde::Deserialize;
use toml::Spanned;

pub use self::debian::{DebianSettings, debian};
pub use self::registries::registries;
pub use self::trust::{TrustSettings, image_policy};
use crate::bake::BakeSettings;

/// Where `kiln serve` looks for its settings unless told otherwise.
pub const DEFAULT_PATH: &str = "/etc/kiln/kiln.toml";
/// Where the server's socket is unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/kiln/kiln.sock";
/// Where images are kept unless told otherwise.
pub const DEFAULT_STORE: &str = "/var/lib/kiln/store";
const DEFAULT_DATA: &str = "/var/lib/kiln";
/// The times that can be set: of leases, of builds.
const TIMES: RangeInclusive<Duration> =
    Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 3600);

/// Checked settings of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the inventory and the loaders are kept.
    pub data_dir: PathBuf,
    /// The unix socket of the control plane.
    pub socket: PathBuf,
    /// The artifact store.
    pub store_dir: PathBuf,
    /// TCP port of the boot plane, on the address of every subnet. 0 lets the kernel choose.
    pub http_port: u16,
    /// UDP port of TFTP, on the address of every subnet. 0 lets the kernel choose.
    pub tftp_port: u16,
    /// What machines get that the inventory does not know.
    pub unknown: UnknownMachines,
    /// A folder that has the loaders already; without one they come from Debian's `ipxe` package.
    pub loaders_dir: Option<PathBuf>,
    /// Debian mirror for the loaders; without one, the one that the host's apt uses.
    pub mirror: Option<String>,
    /// What the server builds by itself.
    pub bake: BakeSettings,
    /// Which versions may be served.
    pub trust: TrustSettings,
    /// What running machines may be told.
    pub agent: AgentSettings,
    /// The networks that are served.
    pub subnets: Vec<SubnetSettings>,
}

/// Checked settings of one subnet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubnetSettings {
    /// Address of the network.
    pub network: Ipv4Addr,
    /// Length of its prefix.
    pub prefix: u8,
    /// Network interface that is in it.
    pub interface: String,
    /// Our own address in it.
    pub address: Ipv4Addr,
    /// Whether we give addresses there.
    pub dhcp: DhcpMode,
    /// Whether a proxy sends firmware to port 4011 for its boot file.
    pub boot_server: bool,
    /// Whether its machines reach us by a relay, so that our address is in another network.
    pub relay: bool,
    /// Addresses for machines without a reservation.
    pub pool: Vec<RangeInclusive<Ipv4Addr>>,
    /// Routers that machines are told.
    pub router: Vec<Ipv4Addr>,
    /// Name servers that machines are told.
    pub dns: Vec<Ipv4Addr>,
    /// Domain that machines are told.
    pub domain: Option<String>,
    /// How long a lease lasts.
    pub lease_time: Duration,
}

impl SubnetSettings {
    /// Returns a subnet whose addresses another server gives.
    #[cfg(test)]
    pub(crate) fn without_dhcp(
        network: Ipv4Addr,
        prefix: u8,
        interface: &str,
        address: Ipv4Addr,
    ) -> Self {
        Self {
            network,
            prefix,
            interface: interface.to_owned(),
            address,
            dhcp: DhcpMode::Off,
            boot_server: false,
            relay: false,
            pool: Vec::new(),
            router: Vec::new(),
            dns: Vec::new(),
            domain: None,
            lease_time: Duration::from_secs(3600),
        }
    }

    /// Returns whether an address is inside.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.network.to_bits()
    }
}

/// What running machines may be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AgentSettings {
    /// Whether to run programs on them.
    pub run: bool,
}

/// What the server does about DHCP in one subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DhcpMode {
    /// Gives addresses and boot files.
    #[default]
    Server,
    /// Boot files only, beside another server that gives the addresses.
    Proxy,
    /// Nothing: TFTP and HTTP only.
    Off,
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
        if problems.is_empty() { Ok(settings) } else { Err(fail(problems)) }
    }
}

/// `kiln.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read.
    #[error("cannot read the settings in {}; name another file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Some of it is wrong.
    #[error("{}", problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\nkiln: "))]
    Invalid {
        /// Every place, in the order of the file.
        problems: Vec<Problem>,
    },
}

/// One thing that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    path: PathBuf,
    line: usize,
    column: usize,
    message: String,
}

impl Problem {
    fn new(path: &Path, text: &str, span: Option<Range<usize>>, message: String) -> Self {
        let before = span.and_then(|s| text.get(..s.start)).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { path: path.to_owned(), line, column, message: message.replace('\n', "; ") }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}: {}", self.path.display(), self.line, self.column, self.message)
    }
}

type Problems = Vec<(Option<Range<usize>>, String)>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Wire {
    #[serde(default)]
    server: WireServer,
    #[serde(default)]
    store: WireStore,
    #[serde(default)]
    http: WirePort,
    #[serde(default)]
    tftp: WirePort,
    #[serde(default)]
    discovery: WireDiscovery,
    #[serde(default)]
    loaders: WireLoaders,
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
    registry: Vec<Spanned<RegistrySettings>>,
    #[serde(default)]
    subnet: Vec<Spanned<WireSubnet>>,
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
struct WireDiscovery {
    #[serde(default)]
    unknown: UnknownMachines,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireLoaders {
    dir: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireSubnet {
    network: Spanned<String>,
    interface: Spanned<String>,
    address: Spanned<Ipv4Addr>,
    #[serde(default)]
    dhcp: DhcpMode,
    boot_server: Option<Spanned<bool>>,
    #[serde(default)]
    relay: bool,
    #[serde(default)]
    pool: Vec<Spanned<String>>,
    #[serde(default)]
    router: Vec<Spanned<Ipv4Addr>>,
    #[serde(default)]
    dns: Vec<Ipv4Addr>,
    domain: Option<String>,
    lease_time: Option<Spanned<String>>,
}

impl Wire {
    fn check(self, problems: &mut Problems) -> Settings {
        registries::check(&self.registry, problems);
        if self.subnet.is_empty() {
            problems.push((None, "no [[subnet]]; add one for each network to serve".to_owned()));
        }
        let data_dir = self.server.data_dir.unwrap_or_else(|| DEFAULT_DATA.into());
        let mut subnets: Vec<SubnetSettings> = Vec::new();
        for wire in self.subnet {
            let span = wire.span();
            let subnet = wire.into_inner().check(problems);
            if subnets.iter().any(|other| overlap(other, &subnet)) {
                problems.push((
                    Some(span),
                    format!("network {}/{} is in two subnets", subnet.network, subnet.prefix),
                ));
            }
            subnets.push(subnet);
        }
        let store_dir = self.store.dir.unwrap_or_else(|| data_dir.join("store"));
        let trust = self.trust.check(&store_dir);
        let mut bake = images::check(self.images, self.image, problems);
        bake.keys = Some(trust.keys.path().to_owned());
        Settings {
            socket: self.server.socket.unwrap_or_else(|| DEFAULT_SOCKET.into()),
            store_dir,
            data_dir,
            http_port: self.http.port.unwrap_or(8080),
            tftp_port: self.tftp.port.unwrap_or(69),
            unknown: self.discovery.unknown,
            loaders_dir: self.loaders.dir,
            mirror: self.debian.check(problems).mirror,
            bake,
            trust,
            agent: self.agent,
            subnets,
        }
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

fn overlap(a: &SubnetSettings, b: &SubnetSettings) -> bool {
    let mask = mask(a.prefix.min(b.prefix));
    a.network.to_bits() & mask == b.network.to_bits() & mask
}

impl WireSubnet {
    fn check(self, problems: &mut Problems) -> SubnetSettings {
        let mut wrong = |span: Range<usize>, message: String| problems.push((Some(span), message));
        let (network, prefix) = parse_network(self.network.get_ref()).unwrap_or_else(|message| {
            wrong(self.network.span(), message);
            (Ipv4Addr::UNSPECIFIED, 0)
        });
        let mask = mask(prefix);
        let inside = |address: Ipv4Addr| address.to_bits() & mask == network.to_bits();
        let outside = |address| format!("address {address} is not in {network}/{prefix}");
        let own = (!self.relay).then_some(&self.address);
        for address in self.router.iter().chain(own) {
            if !inside(*address.get_ref()) {
                wrong(address.span(), outside(*address.get_ref()));
            }
        }
        if self.relay && inside(*self.address.get_ref()) {
            let address = self.address.get_ref();
            let message = format!(
                "address {address} is in {network}/{prefix} itself; behind a relay, it is where the relay reaches us"
            );
            wrong(self.address.span(), message);
        }
        if let Some(span) = self.boot_server.as_ref().filter(|_| self.dhcp != DhcpMode::Proxy) {
            wrong(span.span(), "`boot-server` goes with `dhcp = \"proxy\"` only".to_owned());
        }
        let name = self.interface.get_ref();
        if name.is_empty() || name.len() > 15 || name.contains(['/', ' ']) {
            wrong(
                self.interface.span(),
                format!("`{name}` is no name of a network interface; `ip link` lists them"),
            );
        }
        let mut pool = Vec::new();
        for text in &self.pool {
            match parse_range(text.get_ref()) {
                Ok(range) if inside(*range.start()) && inside(*range.end()) => pool.push(range),
                Ok(range) => {
                    let address = if inside(*range.start()) { range.end() } else { range.start() };
                    wrong(text.span(), outside(*address));
                }
                Err(message) => wrong(text.span(), message),
            }
        }
        let lease_time = self.lease_time.as_ref().map_or(Ok(Duration::from_secs(3600)), |text| {
            parse_duration(text.get_ref()).map_err(|message| (text.span(), message))
        });
        SubnetSettings {
            network,
            prefix,
            interface: self.interface.into_inner(),
            address: self.address.into_inner(),
            dhcp: self.dhcp,
            boot_server: self.boot_server.is_some_and(Spanned::into_inner),
            relay: self.relay,
            pool,
            router: self.router.into_iter().map(Spanned::into_inner).collect(),
            dns: self.dns,
            domain: self.domain,
            lease_time: lease_time.unwrap_or_else(|(span, message)| {
                wrong(span, message);
                Duration::from_secs(3600)
            }),
        }
    }
}

fn parse_network(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let error = || format!("`{text}` is not a network; write it as 10.0.0.0/24");
    let (address, prefix) = text.split_once('/').ok_or_else(error)?;
    let address: Ipv4Addr = address.parse().map_err(|_| error())?;
    let prefix: u8 = prefix.parse().ok().filter(|p| (8..=30).contains(p)).ok_or_else(|| {
        format!("`{text}` has no usable prefix length; it is a number from 8 to 30")
    })?;
    let network = Ipv4Addr::from_bits(address.to_bits() & mask(prefix));
    if network == address {
        Ok((address, prefix))
    } else {
        Err(format!("`{text}` has bits after its prefix; the network is {network}/{prefix}"))
    }
}

fn parse_range(text: &str) -> Result<RangeInclusive<Ipv4Addr>, String> {
    let error = || format!("`{text}` is not a range; write it as 10.0.0.100-10.0.0.199");
    let (first, last) = text.split_once('-').ok_or_else(error)?;
    let first: Ipv4Addr = first.trim().parse().map_err(|_| error())?;
    let last: Ipv4Addr = last.trim().parse().map_err(|_| error())?;
    if first <= last {
        Ok(first..=last)
    } else {
        Err(format!("range `{text}` ends before it begins; swap its two addresses"))
    }
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let error = || format!("`{text}` is not a time; write it as 90s, 30m, 12h or 7d");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text.get(digits.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 24 * 3600,
        _ => return Err(error()),
    };
    let number: u64 = digits.parse().map_err(|_| error())?;
    let time = Duration::from_secs(number.saturating_mul(factor));
    if TIMES.contains(&time) {
        Ok(time)
    } else {
        Err(format!("`{text}` is not between 60s and 30d"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"
[[subnet]]
network = "10.0.0.0/24"
interface = "br0"
address = "10.0.0.1"
pool = ["10.0.0.100-10.0.0.199"]
lease-time = "12h"
"#;

    fn error(text: &str) -> String {
        Settings::parse(Path::new("kiln.toml"), text).unwrap_err().to_string()
    }

    #[test]
    fn the_shipped_example_is_good() {
        let text = include_str!("../../config/kiln.toml");
        let settings = Settings::parse(Path::new("kiln.toml"), text).unwrap();
        assert_eq!(settings.subnets.len(), 1);
        assert_eq!(settings.http_port, 8080);
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let settings = Settings::parse(Path::new("kiln.toml"), GOOD).unwrap();
        assert_eq!(settings.socket, Path::new(DEFAULT_SOCKET));
        assert_eq!(settings.store_dir, Path::new(DEFAULT_STORE));
        assert_eq!(settings.unknown, UnknownMachines::Ignore);
        let subnet = &settings.subnets[0];
        assert_eq!(subnet.lease_time, Duration::from_secs(12 * 3600));
        assert_eq!(subnet.dhcp, DhcpMode::Server);
    }

    #[test]
    fn every_error_names_its_place_and_what_to_write() {
        for (from, to, expected) in [
            ("[[subnet]]", "[[subnets]]", "kiln.toml:2:3: unknown field `subnets`"),
            (
                "10.0.0.0/24",
                "10.0.0.7/24",
                "kiln.toml:3:11: `10.0.0.7/24` has bits after its prefix",
            ),
            ("10.0.0.0/24", "10.0.0.0", "kiln.toml:3:11: `10.0.0.0` is not a network"),
            (
                "\"10.0.0.1\"",
                "\"10.9.0.1\"",
                "kiln.toml:5:11: address 10.9.0.1 is not in 10.0.0.0/24",
            ),
            ("0.199\"", "1.199\"", "kiln.toml:6:9: address 10.0.1.199 is not in 10.0.0.0/24"),
            ("-10.0.0.199", "-10.0.0.9", "kiln.toml:6:9: range"),
            ("12h", "12", "kiln.toml:7:14: `12` is not a time; write it as 90s, 30m, 12h or 7d"),
            ("12h", "1s", "kiln.toml:7:14: `1s` is not between 60s and 30d"),
        ] {
            let text = error(&GOOD.replace(from, to));
            assert!(text.starts_with(expected), "{to}: {text}");
        }
        assert!(error("").contains("no [[subnet]]"));
        assert!(error("[http]\nport = 70000\n").starts_with("kiln.toml:2:8: "));
    }

    #[test]
    fn what_is_served_has_to_be_signed_unless_the_settings_say_otherwise() {
        let trust = |text: &str| {
            Settings::parse(Path::new("kiln.toml"), &format!("{GOOD}{text}")).unwrap().trust
        };
        let default = trust("");
        assert!(default.require_signature);
        assert_eq!(default.keys.path(), Path::new("/var/lib/kiln/keys"));
        let other = trust("[trust]\nrequire-signature = false\nkeys = \"/srv/keys\"\n");
        assert!(!other.require_signature);
        assert_eq!(other.keys.path(), Path::new("/srv/keys"));
        assert_eq!(trust("[store]\ndir = \"/srv/store\"\n").keys.path(), Path::new("/srv/keys"));
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let text = error(&GOOD.replace("12h", "x").replace("\"10.0.0.1\"", "\"10.9.0.1\""));
        assert_eq!(text.lines().count(), 2, "{text}");
    }

    #[test]
    fn two_subnets_do_not_overlap() {
        assert!(error(&format!("{GOOD}{GOOD}")).contains("is in two subnets"));
    }
}
