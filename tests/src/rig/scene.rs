use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use kiln::bake::BakeSettings;
use kiln::lab::{Lab, Machine, MachineConfig, MachineKind, Served, Site};
use kiln_inventory::{Boot, BootEvent, Lease, NewMachine, Outcome, Phase, Store};
use kiln_types::{ImageRef, Mac};
use tempfile::TempDir;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::image::store;

/// Emulated machines on busy cores are slow; alone on an idle computer a boot takes half a minute.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// A server in a private network, with machines.
#[derive(Debug)]
pub(crate) struct Scene {
    lab: Lab,
    site: Site,
    served: Served,
    // Last: its files are in use until the rest is gone.
    _directory: TempDir,
}

impl Scene {
    /// Enters a private network, starts a server there that knows these machines, and plays the case. The calling
    /// thread stays in that network.
    pub(crate) fn play<F>(
        machines: Vec<NewMachine>,
        case: impl FnOnce(Self) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Self>>,
    {
        Self::play_with(BakeSettings::default(), machines, case)
    }

    /// The same, with a server that bakes images by itself.
    pub(crate) fn play_with<F>(
        bake: BakeSettings,
        machines: Vec<NewMachine>,
        case: impl FnOnce(Self) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Self>>,
    {
        Self::play_among(|_| Ok(()), |site| site.with_bake(bake), machines, case)
    }

    /// The same, in a network with more in it than the server, which stays as long as the case does.
    pub(crate) fn play_among<F, N>(
        network: impl FnOnce(&mut Lab) -> anyhow::Result<N>,
        server: impl FnOnce(Site) -> Site,
        machines: Vec<NewMachine>,
        case: impl FnOnce(Self) -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = anyhow::Result<Self>>,
    {
        let directory = tempfile::Builder::new().prefix("kiln-case-").tempdir()?;
        let site = server(Site::new(directory.path(), &store()));
        let mut lab = Lab::enter(directory.path())?;
        let _network = network(&mut lab)?;
        let inside =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        inside.block_on(async {
            let served = site.serve(machines).await?;
            let scene = case(Self { lab, site, served, _directory: directory }).await?;
            scene.served.shutdown().await;
            Ok(())
        })
    }

    /// Describes a machine.
    pub(crate) fn machine(name: &str, mac: Mac, image: &ImageRef) -> NewMachine {
        NewMachine { image: Some(image.clone()), ..NewMachine::new(name, [mac]) }
    }

    /// Powers a machine on.
    pub(crate) fn power_on(&mut self, kind: MachineKind, mac: Mac) -> anyhow::Result<Machine> {
        self.start(&MachineConfig::new(mac.dashed(), kind, mac))
    }

    /// Powers a machine on that is described in full.
    pub(crate) fn start(&mut self, config: &MachineConfig) -> anyhow::Result<Machine> {
        Ok(Machine::start(&mut self.lab, config)?)
    }

    /// Returns the private network, to add hosts to it.
    pub(crate) const fn lab(&mut self) -> &mut Lab {
        &mut self.lab
    }

    /// Ends the server in good order and starts it anew on the same data.
    pub(crate) async fn restart_server(self) -> anyhow::Result<Self> {
        let Self { lab, site, served, _directory } = self;
        served.shutdown().await;
        let served = site.serve([]).await?;
        Ok(Self { lab, site, served, _directory })
    }

    /// Returns the server's inventory.
    pub(crate) const fn inventory(&self) -> &Store {
        self.served.inventory()
    }

    /// Returns the server's leases, also those that have ended.
    pub(crate) fn leases(&self) -> Vec<Lease> {
        self.served.leases()
    }

    /// Returns the path of the server's socket, for `kiln … --socket`.
    pub(crate) fn socket(&self) -> String {
        self.served.socket().display().to_string()
    }

    /// Returns the moment when patience ends.
    pub(crate) fn deadline() -> Instant {
        Instant::now() + PATIENCE
    }

    /// Waits until a boot of the machine is healthy and returns it with its timeline.
    ///
    /// A failure carries the timeline so far and the end of the console.
    pub(crate) async fn healthy(
        &self,
        machine: &mut Machine,
        mac: Mac,
    ) -> anyhow::Result<(Boot, Vec<BootEvent>)> {
        self.reaches(machine, mac, Phase::Healthy).await
    }

    /// The same until a boot of the machine has reached a phase, where what follows is shown elsewhere.
    pub(crate) async fn reaches(
        &self,
        machine: &mut Machine,
        mac: Mac,
        phase: Phase,
    ) -> anyhow::Result<(Boot, Vec<BootEvent>)> {
        let deadline = Self::deadline();
        let mut timeline = String::new();
        let found = until(deadline, async || {
            let boots = self.inventory().boots(16).await?;
            let Some(newest) = boots.iter().find(|boot| boot.mac == mac) else {
                return gone(machine);
            };
            let Some((boot, events)) = self.inventory().boot(newest.id).await? else {
                return Ok(None);
            };
            timeline.clear();
            for event in &events {
                writeln!(timeline, "{:>9} {}", event.phase, event.detail)?;
            }
            match boot.outcome {
                Outcome::Failed => bail!("the boot failed"),
                _ if events.iter().any(|event| event.phase == phase) => Ok(Some((boot, events))),
                _ => gone(machine),
            }
        })
        .await;
        found.with_context(|| {
            format!(
                "not {phase}; the timeline so far:\n{timeline}and the end of the console:\n{}",
                machine.console().tail(40)
            )
        })
    }
}

fn gone<T>(machine: &mut Machine) -> anyhow::Result<Option<T>> {
    match machine.ended() {
        Some(status) => bail!("qemu ended ({status}): {}", machine.messages()),
        None => Ok(None),
    }
}

/// Asks again and again until there is an answer, an error, or no time left.
pub(crate) async fn until<T>(
    deadline: Instant,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let mut look = interval(Duration::from_millis(200));
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        look.tick().await;
        if let Some(answer) = ask().await? {
            return Ok(answer);
        }
        if Instant::now() >= deadline {
            bail!("the deadline passed");
        }
    }
}
