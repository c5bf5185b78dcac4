//! IPv6 on the interfaces that the settings name: DHCPv6 and router advertisements.

use std::fs;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::Arc;

use arc_swap::ArcSwap;
use kiln_inventory::{Decision, Duid, Lease6, Place, Sighting, Snapshot, Store, StoreError};
use kiln_ipxe::Endpoints;
use kiln_types::Mac;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::ServeError;
use crate::boots::Boots;
use crate::dhcp::{self, v6};
use crate::discovery::Discovery;
use crate::observe::COUNTS;
use crate::router::{self, Announcement, Prefix, Router};
use crate::settings::{Dhcp6Mode, Settings, Subnet6Settings};

/// One interface: its sockets, and what is done there.
pub(super) struct Link {
    pub(super) interface: String,
    /// DHCPv6, where some subnet of the interface has it.
    pub(super) dhcp: Option<UdpSocket>,
    pub(super) subnets: Vec<v6::Subnet>,
    pub(super) router: Option<(Router, Announcement)>,
}

/// Opens the sockets.
pub(super) fn bind(settings: &Settings) -> Result<Vec<Link>, ServeError> {
    let mut links: Vec<Link> = Vec::new();
    for subnet in &settings.subnets6 {
        let interface = &subnet.interface;
        let at = match links.iter().position(|link| link.interface == *interface) {
            Some(at) => at,
            None => {
                let (interface, subnets) = (interface.clone(), Vec::new());
                links.push(Link { interface, dhcp: None, subnets, router: None });
                links.len() - 1
            }
        };
        let Some(link) = links.get_mut(at) else { continue };
        if let Some(served) = served(subnet) {
            if link.dhcp.is_none() {
                link.dhcp = Some(v6::bind(interface).map_err(ServeError::Dhcp6)?);
            }
            link.subnets.push(served);
        }
        announce(subnet, link)?;
    }
    Ok(links)
}

/// Returns a subnet as DHCPv6 serves it, where it does.
fn served(subnet: &Subnet6Settings) -> Option<v6::Subnet> {
    let mode = match subnet.dhcp {
        Dhcp6Mode::Off => return None,
        Dhcp6Mode::Stateful => v6::Mode::Stateful,
        Dhcp6Mode::Stateless => v6::Mode::Stateless,
    };
    Some(v6::Subnet {
        network: subnet.network,
        prefix: subnet.prefix,
        address: subnet.address,
        mode,
        relayed: subnet.relay,
        pool: subnet.pool.clone(),
        dns: subnet.dns.clone(),
        domain: subnet.domain.clone(),
        lease_time: subnet.lease_time,
        preference: subnet.preference,
        rapid_commit: subnet.rapid_commit,
    })
}

/// Adds what a subnet has to say to the announcement of its interface.
fn announce(subnet: &Subnet6Settings, link: &mut Link) -> Result<(), ServeError> {
    let Some(said) = &subnet.advertise else { return Ok(()) };
    if link.router.is_none() {
        let bare = Announcement {
            mac: hardware_address(&subnet.interface),
            managed: said.managed,
            other: said.other,
            default_router: said.default_router,
            mtu: said.mtu,
            prefixes: Vec::new(),
            dns: Vec::new(),
            domains: Vec::new(),
        };
        let router = router::bind(&subnet.interface).map_err(ServeError::Router)?;
        link.router = Some((router, bare));
    }
    let Some((_, announcement)) = &mut link.router else { return Ok(()) };
    announcement.prefixes.push(Prefix {
        network: subnet.network,
        length: subnet.prefix,
        autonomous: said.autonomous,
        lifetime: u32::try_from(said.prefix_lifetime.as_secs()).unwrap_or(u32::MAX),
    });
    announcement.dns.extend(&subnet.dns);
    announcement.domains.extend(subnet.domain.clone());
    Ok(())
}

/// Returns our hardware address, which saves machines a question. An interface without one has none to tell.
fn hardware_address(interface: &str) -> Option<Mac> {
    let text = fs::read_to_string(format!("/sys/class/net/{interface}/address")).ok()?;
    text.trim().parse().ok().filter(|mac: &Mac| mac.is_unicast())
}

/// Reads what the server before has left: the leases, and what we call ourselves where there is DHCPv6.
pub(super) async fn kept(
    settings: &Settings,
    inventory: &Store,
    is_away: bool,
    failed: impl Fn(StoreError) -> ServeError,
) -> Result<(Vec<Lease6>, Option<Duid>), ServeError> {
    // While the database is away no lease can be written and so none is given; they are read before one can be.
    let (leases, damaged) = match is_away {
        false => inventory.leases6().await.map_err(failed)?,
        true => (Vec::new(), 0),
    };
    if damaged > 0 {
        tracing::warn!(damaged, "leases of IPv6 that make no sense are left out");
    }
    if settings.subnets6.is_empty() {
        return Ok((leases, None));
    }
    let path = settings.data_dir.join("dhcpv6-duid");
    match v6::server_id(&path) {
        Ok(server) => Ok((leases, Some(server))),
        Err(source) => Err(ServeError::ServerId(path, source)),
    }
}

/// What answers are made of.
pub(super) struct Known<'a> {
    pub(super) leases: Vec<Lease6>,
    pub(super) server: Option<Duid>,
    pub(super) inventory: Store,
    pub(super) snapshot: Arc<ArcSwap<Snapshot>>,
    pub(super) boots: Boots,
    pub(super) discovery: Discovery,
    pub(super) planes: &'a [Endpoints],
    /// Where this server begins to claim what it gives of the pools, where it shares them.
    pub(super) place: Option<usize>,
    /// Whether the leases are not known yet.
    pub(super) is_away: bool,
}

/// Starts what each interface does, and returns the leases. A part that dies tells why.
///
/// # Errors
///
/// When the pools are shared, and the database in which this server claims its part fails.
pub(super) async fn start(
    links: Vec<Link>,
    known: Known<'_>,
    stop: &CancellationToken,
    death: &mpsc::Sender<String>,
) -> Result<(Vec<JoinHandle<()>>, v6::Ledger), StoreError> {
    let inventory = known.inventory.clone();
    let (ledger, writer) = v6::Ledger::start(known.leases, Leases6(known.inventory));
    if known.is_away {
        ledger.is_to_learn();
    }
    let mut tasks = vec![writer];
    let pools: Vec<_> = links.iter().flat_map(|link| link.subnets.iter().cloned()).collect();
    if let Some(place) = known.place.filter(|_| !pools.is_empty()) {
        let claimer = dhcp::Claimer::start(inventory, ledger.clone(), pools, place).await?;
        tasks.push(tokio::spawn(claimer.run(stop.clone())));
    }
    for Link { interface, dhcp, subnets, router } in links {
        if let Some((router, announcement)) = router {
            let (stop, death) = (stop.clone(), death.clone());
            tasks.push(tokio::spawn(async move {
                if let Err(error) = router::serve(router, announcement, stop).await {
                    let _ = death.try_send(crate::cli::chain(&error));
                }
            }));
        }
        let (Some(socket), Some(server)) = (dhcp, known.server.clone()) else { continue };
        let site = |subnet: v6::Subnet| {
            let at = known.planes.iter().find(|at| at.address == subnet.address)?;
            Some(v6::Site { subnet, endpoints: *at })
        };
        let service = Arc::new(v6::Service {
            interface,
            sites: subnets.into_iter().filter_map(site).collect(),
            server,
            snapshot: known.snapshot.clone(),
            ledger: ledger.clone(),
            observer: Watcher6(known.boots.clone(), known.discovery.clone()),
        });
        let (stop, death) = (stop.clone(), death.clone());
        tasks.push(tokio::spawn(async move {
            if let Err(error) = v6::serve(socket, service, stop).await {
                let _ = death.try_send(crate::cli::chain(&error));
            }
        }));
    }
    Ok((tasks, ledger))
}

/// Leases go to the inventory.
struct Leases6(Store);

impl v6::LeaseLog for Leases6 {
    async fn commit(&self, leases: &[Lease6]) -> Result<(), dhcp::BoxError> {
        Ok(self.0.commit_leases6(leases).await?)
    }
}

/// What DHCPv6 sees goes to the boot tracker.
struct Watcher6(Boots, Discovery);

impl v6::Observer for Watcher6 {
    fn counted(&self, what: v6::Counted) {
        COUNTS.packet6(what);
    }

    fn seen(
        &self,
        sighting: &Sighting,
        decision: Option<&Decision>,
        fresh: bool,
        address: Option<Ipv6Addr>,
    ) {
        self.0.seen(sighting, decision, fresh, address.map(Into::into));
    }

    fn unknown(&self, sighting: &Sighting, place: Place) {
        self.1.seen(sighting, place);
    }
}
