//! Opens the ports that the settings name.

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use tokio::net::TcpListener;

use super::ServeError;
use super::ipv6::{self, Link};
use crate::dhcp;
use crate::hear::{self, Source};
use crate::settings::{DhcpMode, Settings, SubnetSettings};

/// Every port of the server, opened before anything else is done.
pub(super) struct Sockets {
    /// Where machines fetch, one for each of our addresses.
    pub(super) planes: Vec<PlaneSockets>,
    /// DHCP, one for each interface.
    pub(super) wires: Vec<WireSockets>,
    /// The control plane on the network.
    pub(super) api: Option<TcpListener>,
    /// DHCPv6 and router advertisements, one for each interface.
    pub(super) links: Vec<Link>,
    /// Where machines are heard.
    pub(super) heard: Vec<(Source, tokio::net::UdpSocket)>,
    /// Metrics and health, where they are served.
    pub(super) metrics: Option<TcpListener>,
}

/// The ports of one of our addresses.
pub(super) struct PlaneSockets {
    pub(super) address: IpAddr,
    pub(super) http: TcpListener,
    pub(super) https: Option<TcpListener>,
    pub(super) tftp: UdpSocket,
}

/// The ports of DHCP on one interface, and the subnets that are reached by it.
pub(super) struct WireSockets {
    pub(super) interface: String,
    pub(super) ports: Vec<(dhcp::Port, UdpSocket)>,
    pub(super) subnets: Vec<dhcp::Subnet>,
}

impl Sockets {
    /// Opens them all.
    pub(super) async fn bind(settings: &Settings) -> Result<Self, ServeError> {
        let mut planes: Vec<PlaneSockets> = Vec::new();
        let mut wires: Vec<WireSockets> = Vec::new();
        let four = settings.subnets.iter().map(|subnet| Own {
            address: subnet.address.into(),
            prefix: subnet.prefix,
            interface: &subnet.interface,
        });
        let six = settings.subnets6.iter().map(|subnet| Own {
            address: subnet.address.into(),
            prefix: subnet.prefix,
            interface: &subnet.interface,
        });
        let mut heard = Vec::new();
        for own in four.chain(six) {
            if planes.iter().all(|plane| plane.address != own.address) {
                heard.extend(bind_heard(settings, &own)?);
                planes.push(PlaneSockets::bind(settings, own).await?);
            }
        }
        for subnet in &settings.subnets {
            let Some(checked) = dhcp_subnet(subnet)? else { continue };
            match wires.iter_mut().find(|wire| wire.interface == subnet.interface) {
                Some(wire) => wire.subnets.push(checked),
                None => {
                    let (interface, subnets) = (subnet.interface.clone(), vec![checked]);
                    wires.push(WireSockets { interface, ports: Vec::new(), subnets });
                }
            }
        }
        for wire in &mut wires {
            let socket = dhcp::bind(&wire.interface).map_err(ServeError::Dhcp)?;
            wire.ports.push((dhcp::Port::Dhcp, socket));
            let is_proxy = |subnet: &dhcp::Subnet| matches!(subnet.role, dhcp::Role::Proxy { .. });
            if wire.subnets.iter().any(is_proxy) {
                let socket = dhcp::bind_boot_server(&wire.interface).map_err(ServeError::Dhcp)?;
                wire.ports.push((dhcp::Port::BootServer, socket));
            }
        }
        let links = ipv6::bind(settings)?;
        let metrics = match settings.metrics {
            Some(address) => {
                let fail = |source| ServeError::Bind { what: "metrics", address, source };
                Some(TcpListener::bind(address).await.map_err(fail)?)
            }
            None => None,
        };
        let api = match &settings.api.listen {
            Some((address, _)) => Some(bind_api(*address).await?),
            None => None,
        };
        Ok(Self { planes, wires, api, links, heard, metrics })
    }
}

async fn bind_api(address: SocketAddr) -> Result<TcpListener, ServeError> {
    let what = "api";
    TcpListener::bind(address).await.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ServeError::InUse { what, address },
        io::ErrorKind::PermissionDenied => ServeError::NotAllowed { what, address },
        _ => ServeError::Bind { what, address, source },
    })
}

/// One of our addresses.
#[derive(Clone, Copy)]
struct Own<'a> {
    address: IpAddr,
    prefix: u8,
    interface: &'a str,
}

/// Opens the ports at which machines are heard at one of our addresses.
fn bind_heard(
    settings: &Settings,
    own: &Own<'_>,
) -> Result<Vec<(Source, tokio::net::UdpSocket)>, ServeError> {
    let wanted = [
        ("syslog", Source::Syslog, settings.hear.syslog),
        ("netconsole", Source::Netconsole, settings.hear.netconsole),
    ];
    let mut heard = Vec::new();
    for (what, source, port) in wanted {
        let Some(port) = port else { continue };
        let address = SocketAddr::new(own.address, port);
        let socket = hear::bind(address, own.interface);
        let socket = socket.map_err(|source| ServeError::Bind { what, address, source })?;
        heard.push((source, socket));
    }
    Ok(heard)
}

impl PlaneSockets {
    async fn bind(settings: &Settings, own: Own<'_>) -> Result<Self, ServeError> {
        let explain = |what, port| {
            move |source: io::Error| {
                let address = SocketAddr::new(own.address, port);
                match source.kind() {
                    io::ErrorKind::AddrInUse => ServeError::InUse { what, address },
                    io::ErrorKind::PermissionDenied => ServeError::NotAllowed { what, address },
                    io::ErrorKind::AddrNotAvailable => ServeError::NoAddress {
                        address: own.address,
                        prefix: own.prefix,
                        interface: own.interface.to_owned(),
                    },
                    _ => ServeError::Bind { what, address, source },
                }
            }
        };
        let http = TcpListener::bind((own.address, settings.http_port))
            .await
            .map_err(explain("http", settings.http_port))?;
        let https = match &settings.https {
            Some(https) => Some(
                TcpListener::bind((own.address, https.port))
                    .await
                    .map_err(explain("https", https.port))?,
            ),
            None => None,
        };
        let tftp = UdpSocket::bind((own.address, settings.tftp_port))
            .map_err(explain("tftp", settings.tftp_port))?;
        Ok(Self { address: own.address, http, https, tftp })
    }
}

/// Returns a subnet as DHCP serves it, where it does.
fn dhcp_subnet(subnet: &SubnetSettings) -> Result<Option<dhcp::Subnet>, ServeError> {
    let role = match subnet.dhcp {
        DhcpMode::Off => return Ok(None),
        DhcpMode::Server => dhcp::Role::Server,
        DhcpMode::Proxy => dhcp::Role::Proxy { by_4011: subnet.boot_server },
    };
    let name = format!("{}/{}", subnet.network, subnet.prefix);
    let network = dhcp::Network::new(subnet.network, subnet.prefix).ok_or_else(|| {
        let source = io::Error::from(io::ErrorKind::InvalidInput);
        let address = SocketAddr::new(subnet.network.into(), 67);
        ServeError::Bind { what: "dhcp", address, source }
    })?;
    let checked = dhcp::Subnet {
        network,
        interface: subnet.interface.clone(),
        address: subnet.address,
        role,
        relayed: subnet.relay,
        pool: subnet.pool.clone(),
        router: subnet.router.clone(),
        dns: subnet.dns.clone(),
        domain: subnet.domain.clone(),
        lease_time: subnet.lease_time,
        rules: subnet.rules.clone(),
    };
    checked.check().map_err(|source| ServeError::Subnet(name, source))?;
    Ok(Some(checked))
}
