//! Starts the server's parts on the addresses that the settings name, and stops them in order.

mod away;
#[cfg(test)]
mod away_tests;
mod error;
mod files;
mod inventory;
mod ipv6;
#[cfg(feature = "otel")]
mod otel;
mod running;
mod sockets;
mod watcher;

use std::net::{IpAddr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use kiln_builder::store::Store as Artifacts;
use kiln_ipxe::{Endpoints, Https};
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::error::ServeError;
pub use self::files::FilesFault;
pub(crate) use self::inventory::take as take_data;
pub use self::running::Running;
use self::sockets::{PlaneSockets, Sockets, WireSockets};
use self::watcher::Watcher;
use crate::bake::{Baker, BakerConfig};
use crate::boots::Boots;
use crate::discovery::{Discovery, Vendors};
use crate::hear::{self, Book};
use crate::loaders::OverTftp;
use crate::notify::Notify;
use crate::observe::{self, Observed};
use crate::orders::Orders;
use crate::secrets::Secrets;
use crate::settings::{HttpsSettings, Settings};
use crate::tls::Tls;
use crate::view::View;
use crate::webhook::Hooks;
use crate::{api, dhcp, http, loaders, tftp};

/// Starts the server. When it fails, nothing is left running.
///
/// # Errors
///
/// Each of the usual obstacles is one sentence that says what to do.
pub async fn start(settings: Settings) -> Result<Running, ServeError> {
    let data = &settings.data_dir;
    make_dir(data)?;
    let lock = lock(data)?;
    // Ports first: they are what fails most often, and fetching loaders takes a while.
    let sockets = Sockets::bind(&settings).await?;
    let database = settings.database();
    let inventory_error = |source| ServeError::OpenInventory(database.clone(), source);
    let away::Opened { inventory, identity, known, spare } = away::open(&settings).await?;
    let is_away = known.is_some();
    let secrets = Secrets::open(&settings.secrets_key).map_err(ServeError::Secrets)?;
    let secrets = Arc::new(secrets);
    let inventory = inventory.sealing(secrets.clone());
    let mut leases = match is_away {
        false => inventory.leases().await.map_err(inventory_error)?,
        true => dhcp::journal::kept(data).map_err(ServeError::Journal)?,
    };
    if inventory.is_shared() && !is_away {
        dhcp::journal::keep(data, &leases).map_err(ServeError::Journal)?;
    }
    // What the journal has came after what the database has.
    let (newer, journal, folder) = dhcp::journal::open(data).map_err(ServeError::Journal)?;
    let (leases6, server_id) = ipv6::kept(&settings, &inventory, is_away, inventory_error).await?;
    let dir = &settings.store_dir;
    let artifacts =
        Artifacts::open(dir).map_err(|source| ServeError::OpenArtifacts(dir.clone(), source))?;
    let trust = &settings.trust;
    if settings.bake.dir.is_some() {
        // Builds of the server may read the key, but not make one.
        trust.keys.site_key().map_err(ServeError::Key)?;
    }
    let keys = trust.require_signature.then(|| trust.keys.clone());
    let unknown = settings.discovery.unknown;
    let view = View::load_known(inventory.clone(), artifacts, unknown, keys, known);
    let view = view.await.map_err(ServeError::LoadView)?;
    let view = Arc::new(view);
    view.keeps(secrets.clone()).await.map_err(ServeError::LoadView)?;
    if let Some(error) = view.lost_secrets() {
        tracing::error!(error, "secrets cannot be opened");
    } else if !is_away && inventory::seal(&inventory).await.map_err(inventory_error)? {
        view.refresh().await.map_err(ServeError::LoadView)?;
    }
    if let Some(netconsole) = settings.hear.kernels() {
        view.hears_kernels(netconsole);
    }
    let loaders = loaders::obtain(&settings).await.map_err(ServeError::Loaders)?;
    view.set_absent(loaders.absent()).await.map_err(ServeError::LoadView)?;
    let control = bind_control(&settings.socket)?;

    let stop = CancellationToken::new();
    #[cfg(feature = "otel")]
    let begun = crate::boots::now_ms();
    let (boots, tracker) = Boots::start_with(inventory.clone(), spare);
    let orders = Orders::new(inventory.clone(), stop.clone());
    if !is_away {
        orders.take_up().await.map_err(inventory_error)?;
    }
    let (death, died) = mpsc::channel(1);
    let mut running = Running {
        http: Vec::new(),
        https: Vec::new(),
        tftp: Vec::new(),
        api: None,
        socket: settings.socket.clone(),
        metrics: None,
        stop: stop.clone(),
        tasks: Vec::new(),
        tracker,
        died,
        ledger: None,
        _lock: lock,
    };
    let config = BakerConfig {
        settings: settings.bake.clone(),
        data_dir: settings.data_dir.clone(),
        store_dir: settings.store_dir.clone(),
        mirror: settings.mirror.clone(),
    };
    let (baker, baking) = Baker::start(config, view.clone(), stop.clone());
    running.tasks.push(baking);
    let mut planes = Vec::new();
    let transfers = http::Transfers::new(&settings.transfers);
    let tls = start_tls(&settings, &sockets)?;
    if let Some(tls) = &tls {
        view.encrypts_with(tls.clone());
        running.tasks.push(tokio::spawn(tls.clone().renew(stop.clone())));
    }
    for PlaneSockets { address, http, https, tftp } in sockets.planes {
        let plane = Arc::new(http::Plane {
            view: view.clone(),
            boots: boots.clone(),
            loaders: loaders.clone(),
            baker: baker.clone(),
            orders: orders.clone(),
            transfers: transfers.clone(),
            templates: settings.metadata_dir.clone(),
        });
        let bind_error = |what, source| {
            let address = SocketAddr::new(address, 0);
            ServeError::Bind { what, address, source }
        };
        let agent = https.as_ref().and_then(|https| https.local_addr().ok());
        let server = http::Server::start(http, plane.clone(), agent);
        let server = server.map_err(|e| bind_error("http", e))?;
        let mut at = Endpoints::new(address, server.local_addr().port()).with_agents_at(agent);
        running.http.push(server);
        if let (Some(listener), Some(tls)) = (https, &tls) {
            let port = at.http.port();
            let server = http::Server::start_encrypted(listener, plane, tls.clone(), port)
                .map_err(|e| bind_error("https", e))?;
            let urls = settings.https.as_ref().and_then(|https| https.urls);
            at.https = urls.map(|of| Https { at: server.local_addr(), of });
            running.https.push(server);
        }
        planes.push(at);
        let (view, loaders, boots) = (view.clone(), loaders.clone(), boots.clone());
        let files = Arc::new(OverTftp { view, at, loaders, boots, baker: baker.clone() });
        let config = settings.tftp_at(address);
        let server = tftp::Server::start(tftp, files, config).map_err(|e| bind_error("tftp", e))?;
        running.tftp.push(server);
    }
    let reached_at = |address: IpAddr| planes.iter().find(|at| at.address == address).copied();
    leases.extend(newer);
    let (ledger, writer) = dhcp::Ledger::start(leases, journal);
    running.tasks.push(writer);
    running.tasks.push(tokio::spawn(folder.run(inventory.clone())));
    running.ledger = Some(ledger.clone());
    let place = identity.as_ref().map(|identity| dhcp::place(identity.as_bytes()));
    if let Some((place, identity)) = place.zip(identity) {
        let pools = sockets.wires.iter().flat_map(|wire| wire.subnets.iter().cloned()).collect();
        let claimer = dhcp::Claimer::start(inventory.clone(), ledger.clone(), pools, place);
        let claimer = claimer.await.map_err(inventory_error)?;
        running.tasks.push(tokio::spawn(claimer.run(stop.clone())));
        let follow = inventory::follow(inventory.clone(), view.clone(), stop.clone());
        running.tasks.push(tokio::spawn(follow));
        let memory = away::Memory::new(&settings, identity, inventory.clone());
        running.tasks.push(tokio::spawn(memory.run(stop.clone())));
    }
    let files_fault = FilesFault::default();
    match &settings.inventory.files {
        Some(dir) => {
            let (inventory, view) = (inventory.clone(), view.clone());
            let mut keeper = files::Keeper::new(dir, inventory, view, files_fault.clone());
            // Before the first machine is answered.
            keeper.look(true).await;
            running.tasks.push(tokio::spawn(keeper.run(stop.clone())));
        }
        None => running.tasks.push(tokio::spawn(files::nothing_to_read(stop.clone()))),
    }
    let prune = inventory::prune(inventory.clone(), settings.inventory.keep, stop.clone());
    running.tasks.push(tokio::spawn(prune));
    if let Some(image) = settings.discovery.image.clone() {
        view.boots_strangers(image).await.map_err(ServeError::LoadView)?;
    }
    let vendors = tokio::task::spawn_blocking(Vendors::of_host).await.unwrap_or_default();
    let (discovery, keeper) =
        Discovery::new(view.clone(), vendors.clone(), settings.discovery.most);
    boots.tells(discovery.clone());
    running.tasks.push(tokio::spawn(keeper.run(stop.clone())));
    for WireSockets { interface, ports, subnets } in sockets.wires {
        let site = |subnet: dhcp::Subnet| {
            reached_at(subnet.address.into()).map(|endpoints| dhcp::Site { subnet, endpoints })
        };
        let sites = subnets.into_iter().filter_map(site).collect();
        let watcher = Watcher(boots.clone(), discovery.clone());
        let service = dhcp::Service::new(interface, sites, view.shared(), ledger.clone(), watcher);
        let service = Arc::new(service);
        for (port, socket) in ports {
            let (service, stop, death) = (service.clone(), stop.clone(), death.clone());
            running.tasks.push(tokio::spawn(async move {
                if let Err(error) = dhcp::serve(socket, port, service, stop).await {
                    let _ = death.try_send(crate::cli::chain(&error));
                }
            }));
        }
    }
    let known = ipv6::Known {
        leases: leases6,
        server: server_id,
        inventory: inventory.clone(),
        snapshot: view.shared(),
        boots: boots.clone(),
        discovery: discovery.clone(),
        planes: &planes,
        place,
        is_away,
    };
    let started = ipv6::start(sockets.links, known, &stop, &death).await;
    let (tasks, leases6) = started.map_err(inventory_error)?;
    running.tasks.extend(tasks);
    if is_away {
        let waiting = away::Waiting {
            settings: settings.clone(),
            inventory: inventory.clone(),
            view: view.clone(),
            boots: boots.clone(),
            orders: orders.clone(),
            leases6: leases6.clone(),
        };
        running.tasks.push(tokio::spawn(waiting.run(stop.clone(), death.clone())));
    }
    let endpoints = settings
        .subnets
        .iter()
        .filter_map(|subnet| Some((subnet.clone(), reached_at(subnet.address.into())?)))
        .collect();
    let endpoints6 = settings
        .subnets6
        .iter()
        .filter_map(|subnet| Some((subnet.clone(), reached_at(subnet.address.into())?)))
        .collect();
    let watch = {
        let (view, stop) = (view.clone(), stop.clone());
        async move { view.watch(stop).await }
    };
    running.tasks.push(tokio::spawn(watch));
    let agent = settings.agent;
    let heard = Book::new(settings.data_dir.join("heard"));
    if !sockets.heard.is_empty() {
        running.tasks.push(tokio::spawn(hear::keep(heard.clone(), stop.clone())));
    }
    for (source, socket) in sockets.heard {
        let (heard, boots, stop) = (heard.clone(), boots.clone(), stop.clone());
        running.tasks.push(tokio::spawn(hear::listen(socket, source, heard, boots, stop)));
    }
    let observed = Observed {
        inventory: inventory.clone(),
        view: view.clone(),
        boots: boots.clone(),
        leases: ledger.clone(),
        leases6: leases6.clone(),
        baker: baker.clone(),
        tftp: running.tftp.iter().map(tftp::Server::stats).collect(),
        transfers,
        subnets: settings.subnets.clone(),
        subnets6: settings.subnets6.clone(),
        files: settings.inventory.files.is_some().then(|| files_fault.clone()),
        since: crate::boots::now_ms(),
        late_after: settings.late_after,
    };
    let shown = observe::router(observed);
    if let Some(listener) = sockets.metrics {
        let (shown, stop) = (shown.clone(), stop.clone());
        running.metrics = listener.local_addr().ok();
        running.tasks.push(tokio::spawn(observe::serve(listener, shown, stop)));
    }
    running.tasks.extend(Notify::from_env().feed(boots.clone(), stop.clone()));
    let state = api::Control {
        inventory,
        view,
        endpoints,
        endpoints6,
        baker,
        boots,
        heard,
        orders,
        agent,
        leases: ledger,
        leases6,
        secrets,
        vendors,
        hooks: Hooks::new(settings.webhooks.clone()),
        gate: api::Gate::default(),
        stop: stop.clone(),
    };
    #[cfg(feature = "otel")]
    running.tasks.extend(otel::start(&settings.log, &state, begun));
    let (courier, halt) = (api::courier(&state), stop.clone());
    running.tasks.push(tokio::spawn(api::deliver_events(courier, halt)));
    let router = api::router(state);
    if let (Some(listener), Some((_, tls))) = (sockets.api, &settings.api.listen) {
        let tls = start_api_tls(&settings, tls, &planes)?;
        running.api = listener.local_addr().ok();
        running.tasks.push(tokio::spawn(tls.clone().renew(stop.clone())));
        let served = api::serve_encrypted(listener, tls, router.clone(), stop.clone());
        running.tasks.push(tokio::spawn(served));
    }
    running.tasks.push(tokio::spawn(api::serve(control, router.merge(shown), stop)));
    // The first randomness takes long to gather: it is there by the time that a machine needs it.
    drop(tokio::task::spawn_blocking(crate::boots::secret::secret));
    Ok(running)
}

/// Prepares HTTPS for all our addresses, where there is HTTPS.
fn start_tls(settings: &Settings, sockets: &Sockets) -> Result<Option<Arc<Tls>>, ServeError> {
    let Some(https) = &settings.https else { return Ok(None) };
    let addresses = sockets.planes.iter().map(|plane| plane.address).collect();
    let tls = Tls::new(https, &settings.trust.keys, addresses).map_err(ServeError::Tls)?;
    Ok(Some(Arc::new(tls)))
}

/// Prepares the certificate of the control plane: it is for the address where it listens, and for all others of ours.
fn start_api_tls(
    settings: &Settings,
    tls: &HttpsSettings,
    planes: &[Endpoints],
) -> Result<Arc<Tls>, ServeError> {
    let mut addresses: Vec<IpAddr> = planes.iter().map(|plane| plane.address).collect();
    let own = settings.api.listen.as_ref().map(|(address, _)| address.ip());
    addresses.extend(own.filter(|own| !own.is_unspecified() && !addresses.contains(own)));
    let tls = Tls::new(tls, &settings.trust.keys, addresses).map_err(ServeError::Tls)?;
    Ok(Arc::new(tls))
}

fn make_dir(dir: &Path) -> Result<(), ServeError> {
    std::fs::create_dir_all(dir).map_err(|source| ServeError::MakeDir(dir.to_owned(), source))
}

/// Takes the data for this process alone; the kernel gives it back when the process ends in any way.
fn lock(data: &Path) -> Result<std::fs::File, ServeError> {
    let path = data.join("lock");
    let fail = |source| ServeError::Lock(path.clone(), source);
    let file = std::fs::OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(fail)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(ServeError::Locked(data.to_owned())),
        Err(std::fs::TryLockError::Error(source)) => Err(fail(source)),
    }
}

/// Makes the control socket under another name first, so that it never exists with other permissions. A socket that
/// a crash left behind is replaced; the lock of the data has shown that no other server of ours is there.
fn bind_control(path: &Path) -> Result<UnixListener, ServeError> {
    let fail = |source| ServeError::Socket(path.to_owned(), source);
    if let Some(dir) = path.parent() {
        make_dir(dir)?;
    }
    if std::os::unix::net::UnixStream::connect(path).is_ok() {
        return Err(ServeError::SocketInUse(path.to_owned()));
    }
    let new = path.with_extension("new");
    let _ = std::fs::remove_file(&new);
    let listener = UnixListener::bind(&new).map_err(fail)?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o660)).map_err(fail)?;
    std::fs::rename(&new, path).map_err(fail)?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
