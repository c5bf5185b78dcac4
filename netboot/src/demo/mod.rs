//! `kiln demo`: the whole way on one computer.
//!
//! First, with the host's network, the image is built and the loaders are fetched. Then the process moves into a
//! network namespace of its own, runs the server there and boots virtual machines from it. What is downloaded and
//! built is kept in the store for the next run; everything else is in a temporary folder and ends with the process.

mod choice;
mod live;
mod timeline;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use kiln_inventory::{Boot, Outcome, Store};
use kiln_types::{Arch, ImageRef};
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::lab::{FirmwareKind, Lab, Machine, MachineConfig, Site};
use choice::Chosen;
use live::Live;

/// The image that is built unless another is given.
const IMAGE: &str = include_str!("../../../config/images/demo.yml");
/// Emulated machines on a busy computer are slow; a boot takes about a minute on an idle one.
const DEADLINE: Duration = Duration::from_secs(8 * 60);
/// How often the timelines are looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Boot virtual machines over a private network, to see all of Kiln on one computer
#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Only machines of this architecture: x86_64 or arm64. Can be given twice
    #[arg(long, value_name = "ARCH")]
    pub arch: Vec<Arch>,
    /// Only machines with this firmware. Can be given several times
    #[arg(long, value_enum, value_name = "FIRMWARE")]
    pub firmware: Vec<FirmwareKind>,
    /// Leave the server and the machines running until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Boot this image instead of the small one that Kiln brings along
    #[arg(long, value_name = "FILE")]
    pub image: Option<PathBuf>,
    /// Where downloads and the built image are kept for the next run
    /// [default: kiln/store in the user's cache folder]
    #[arg(long, value_name = "DIR", env = "KILN_STORE")]
    pub store: Option<PathBuf>,
}

/// Runs the demonstration. Ends well when every machine has become healthy.
///
/// Must be called where no other thread runs: it moves the calling thread into another network namespace.
///
/// # Errors
///
/// When something is not installed, the image cannot be built, or a machine does not become healthy in time; then
/// the end of its console is in the message.
pub fn run(args: &DemoArgs) -> anyhow::Result<()> {
    let chosen = choice::machines(&args.arch, &args.firmware)?;
    for one in &chosen {
        one.kind.check()?;
    }
    let temporary = tempfile::Builder::new()
        .prefix("kiln-demo-")
        .tempdir()
        .context("cannot make a temporary folder")?;
    let store = match &args.store {
        Some(store) => store.clone(),
        None => choice::default_store()?,
    };
    let site = Site::new(temporary.path(), &store);

    let spec = match &args.image {
        Some(path) => path.clone(),
        None => {
            let path = temporary.path().join("demo.yml");
            fs::write(&path, IMAGE).with_context(|| format!("cannot write {}", path.display()))?;
            path
        }
    };
    let outside = runtime::Builder::new_current_thread().enable_all().build()?;
    let architectures = choice::architectures(&chosen);
    let image = outside.block_on(async {
        tokio::select! {
            prepared = prepare(&site, &spec, &architectures) => prepared,
            interrupted = interrupted() => { interrupted?; bail!("interrupted") }
        }
    })?;
    // Its threads are in the host's network and must not be there any more when the server starts.
    drop(outside);

    let lab = Lab::enter(temporary.path())?;
    let inside = runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    // The machines are started by this thread, so that they end with it.
    inside.block_on(show(args, &site, lab, &chosen, &image))
}

async fn prepare(site: &Site, spec: &Path, architectures: &[Arch]) -> anyhow::Result<ImageRef> {
    site.fetch_loaders().await?;
    site.build(spec, architectures).await
}

/// Returns when someone wants the program to end.
async fn interrupted() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

async fn show(
    args: &DemoArgs,
    site: &Site,
    mut lab: Lab,
    chosen: &[Chosen],
    image: &ImageRef,
) -> anyhow::Result<()> {
    let mut served = site.serve(chosen.iter().map(|one| one.spec(image))).await?;
    let mut machines = Vec::new();
    for one in chosen {
        let config = MachineConfig::new(one.name.clone(), one.kind, one.mac);
        machines.push(Running {
            chosen: one,
            machine: Machine::start(&mut lab, &config)?,
            boot: None,
            failure: None,
        });
    }
    let inventory = served.inventory().clone();
    let result = tokio::select! {
        watched = watch(&mut machines, &inventory) => watched,
        interrupted = interrupted() => interrupted.and_then(|()| bail!("interrupted")),
        part = served.failed() => Err(anyhow::anyhow!("the server stopped: {part}")),
    };
    for running in &machines {
        timeline::print(running.chosen, running.boot.as_ref(), &inventory).await?;
    }
    if result.is_ok() {
        timeline::print_next(args.keep.then(|| served.socket()));
        if args.keep {
            interrupted().await?;
        }
    }
    drop(machines);
    served.shutdown().await;
    result
}

/// One machine of the demonstration under way.
#[derive(Debug)]
struct Running<'a> {
    chosen: &'a Chosen,
    machine: Machine,
    boot: Option<Boot>,
    failure: Option<String>,
}

impl Running<'_> {
    fn is_healthy(&self) -> bool {
        self.boot.as_ref().is_some_and(|boot| boot.outcome == Outcome::Healthy)
    }

    fn is_over(&self) -> bool {
        self.failure.is_some() || self.is_healthy()
    }
}

/// Shows the boots until every one has ended, well or not.
async fn watch(machines: &mut [Running<'_>], inventory: &Store) -> anyhow::Result<()> {
    let deadline = Instant::now() + DEADLINE;
    let mut live = Live::new(machines.iter().map(|running| running.chosen));
    let mut look = interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Skip);
    while !machines.iter().all(Running::is_over) {
        look.tick().await;
        let boots = inventory.boots(64).await.context("cannot read the boots")?;
        for (index, running) in machines.iter_mut().enumerate() {
            if running.is_over() {
                continue;
            }
            let newest = boots.iter().find(|boot| boot.mac == running.chosen.mac);
            if let Some(boot) = newest
                && let Some((boot, events)) = inventory.boot(boot.id).await?
            {
                live.update(index, &boot, &events);
                if boot.outcome == Outcome::Failed {
                    running.failure =
                        Some(events.last().map_or_else(String::new, |event| event.detail.clone()));
                }
                running.boot = Some(boot);
            }
            if running.is_over() {
                live.finish(index, running.failure.as_deref());
            } else if let Some(status) = running.machine.ended() {
                let failure = format!("qemu ended ({status}) {}", running.machine.messages());
                live.finish(index, Some(&failure));
                running.failure = Some(failure);
            } else if Instant::now() >= deadline {
                let failure = format!("not healthy after {} minutes", DEADLINE.as_secs() / 60);
                live.finish(index, Some(&failure));
                running.failure = Some(failure);
            }
        }
    }
    drop(live);
    let failures: Vec<String> = machines
        .iter()
        .filter_map(|running| {
            let failure = running.failure.as_deref()?;
            let console = running.machine.console().tail(40);
            Some(format!("{}: {failure}; its console ended with:\n{console}", running.chosen.name))
        })
        .collect();
    if failures.is_empty() { Ok(()) } else { bail!("{}", failures.join("\n\n")) }
}
