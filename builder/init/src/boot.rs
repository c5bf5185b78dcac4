//! The boot, from the kernel's hand to a healthy machine, and then its keeping.

use std::convert::Infallible;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::cmdline::CommandLine;
use crate::config::{self, Image, Machine};
use crate::console::{self, say};
use crate::error::{BootError, chain};
use crate::http::Server;
use crate::modules::Loader;
use crate::phone::{Phase, Phone};
use crate::power::{self, Then};
use crate::process::Children;
use crate::{
    clock, control, facts, input, netconsole, network, orders, parts, root, screen, services,
    state, tune, volumes, watchdog,
};

/// How long the kernel hurries for services that do not come up.
const HURRY: Duration = Duration::from_secs(60);
/// How long disks may take to appear once they have a driver.
const SETTLE: Duration = Duration::from_secs(2);

/// Boots and keeps the machine until it is asked to stop.
pub(crate) fn run() -> Result<Infallible, BootError> {
    let start = clock::uptime();
    root::enter()?;
    console::attach();
    console::attach_others();
    // Ctrl-Alt-Del becomes a signal to us instead of an immediate reset.
    let _ = set_cad_enabled(false);
    tune::hurry(true);
    tune::set_limits();
    let line = CommandLine::read();
    let children = Arc::new(Children::default());
    watch_signals(&children)?;

    let mut faults = Vec::new();
    let image: Option<Image> =
        told(config::read(config::IMAGE), &mut faults).unwrap_or_else(|| Some(Image::guess()));
    let lack = parts::missing(image.as_ref());
    let image = image.unwrap_or_default();
    let machine: Option<Machine> = told(config::read(config::MACHINE), &mut faults).flatten();
    greet(&image, machine.as_ref());
    if let Some(then) = line.when_hopeless {
        power::when_hopeless(then);
    }
    for word in &line.unknown {
        say(&format!("{word} on the kernel's command line means nothing here"));
    }
    set_hostname(machine.as_ref(), &line);
    let server = machine.as_ref().and_then(Server::of);
    if let Some(server) = &server {
        say(&format!("the server is {server}"));
    }
    let phone = Phone::start(server.as_ref(), machine.as_ref())?;
    phone.tell_of(start, Phase::Init, image.image.as_str());
    for fault in faults {
        phone.tell(Phase::Failed, fault);
    }
    if let Some(lack) = lack {
        stop_before_it_starts(&lack, machine.as_ref(), &phone)?;
    }

    let start = clock::uptime();
    let mut loader = Loader::open();
    loader.load_soon(&netconsole::without(&image.modules, &line));
    loader.load_soon(&line.modules);
    if image.diskless {
        loader.put_off_disks();
    }
    let count = loader.load_for_hardware();
    say(&format!("{count} modules for this hardware"));
    phone.tell_since(start, Phase::Modules, count.to_string());
    watchdog::start(image.watchdog);
    input::start()?;
    root::settle();
    tune::set_sysctls();
    tune::stir(machine.as_ref().map(|machine| machine.token.as_str()));
    clock::set_if_unset();

    network::bring_up(image.network.as_ref(), machine.as_ref(), &mut loader, &phone)?;
    netconsole::start(&line, &mut loader);
    if !image.diskless {
        facts::tell(server.as_ref(), machine.as_ref());
    }
    orders::start(server.as_ref(), machine.as_ref(), &children)?;

    let start = clock::uptime();
    let state = state::set_up(&image, machine.as_ref(), &mut loader, &children, &phone);
    let rest = image.diskless.then_some(loader);
    volumes::set_up();
    phone.tell_since(start, Phase::Volumes, "");
    if let Some(then) = services::run_onboot(&image.onboot, &children, &phone) {
        power::after_failure(&children, then);
    }
    control::start(&children)?;
    let healthy = services::start(&image.services, &children, &phone)?;
    if line.has_screen {
        let version = machine.as_ref().and_then(|machine| machine.version.as_deref());
        screen::start(&image.image, version.unwrap_or_default())?;
    }
    let first = healthy.recv_timeout(HURRY);
    if let Some(loader) = rest {
        look_for_disks(loader, server.clone(), machine.clone())?;
    }
    tune::hurry(false);
    let all_up = match first {
        Err(RecvTimeoutError::Timeout) => healthy.recv().is_ok(),
        other => other.is_ok(),
    };
    if all_up && state.is_as_wanted() {
        phone.tell(Phase::Healthy, "");
        say("healthy");
        state.record(&image, machine.as_ref(), &phone);
    } else if all_up {
        say("not healthy: there is no state");
    }
    loop {
        std::thread::park();
    }
}

/// Loads the drivers of disks that nobody here needs: whoever looks at the machine is to see what it has.
fn look_for_disks(
    mut loader: Loader,
    server: Option<Server>,
    machine: Option<Machine>,
) -> Result<(), BootError> {
    let look = move || {
        let mut count = loader.load_the_rest();
        if count > 0 {
            // Some buses find what is on them only after a while.
            std::thread::sleep(SETTLE);
            count += loader.load_for_hardware();
            say(&format!("{count} modules for disks"));
        }
        facts::tell(server.as_ref(), machine.as_ref());
    };
    let thread = std::thread::Builder::new().name("disks".to_owned()).stack_size(256 * 1024);
    thread.spawn(look).map(drop).map_err(|source| BootError::StartThread("disks", source))
}

/// A file that cannot be read is told, and the boot goes on without.
fn told<T>(result: Result<T, BootError>, faults: &mut Vec<String>) -> Option<T> {
    result
        .inspect_err(|error| {
            let text = chain(error);
            say(&text);
            faults.push(text);
        })
        .ok()
}

/// Half a system must not run: says what is missing, to the server as well where that can be reached, and stops.
fn stop_before_it_starts(
    lack: &str,
    machine: Option<&Machine>,
    phone: &Phone,
) -> Result<Infallible, BootError> {
    say(lack);
    phone.tell(Phase::Failed, lack);
    if machine.is_some() {
        let mut loader = Loader::open();
        loader.load_for_hardware();
        network::bring_up(None, machine, &mut loader, phone)?;
    }
    power::give_up()
}

fn greet(image: &Image, machine: Option<&Machine>) {
    let name = if image.image.is_empty() { "an image without a name" } else { &image.image };
    let version = machine.and_then(|machine| machine.version.as_deref()).unwrap_or_default();
    // Enough of a digest for a person to tell versions apart.
    let short: String = version.chars().take("sha256:".len() + 12).collect();
    say(format!("{name} {short}").trim_end());
    if machine.is_none() {
        say("no server told this machine who it is");
    }
}

fn set_hostname(machine: Option<&Machine>, line: &CommandLine) {
    let told = line.hostname.clone();
    let told = told.or_else(|| machine.and_then(|machine| machine.hostname.clone()));
    let of_image = || std::fs::read_to_string("/etc/hostname").ok();
    let name = told.or_else(of_image).unwrap_or_else(|| "kiln".to_owned());
    if let Err(error) = nix::unistd::sethostname(name.trim()) {
        say(&format!("cannot take the name {:?}: {error}", name.trim()));
    }
}

/// Waits for signals, but not for longer than the watchdog does, and passes on those that ask for a stop.
fn hear(arrived: &SignalFd) {
    let round = watchdog::round();
    let patience = PollTimeout::try_from(round).unwrap_or(PollTimeout::MAX);
    if poll(&mut [PollFd::new(arrived.as_fd(), PollFlags::POLLIN)], patience).is_err() {
        // Nothing to do about it but not to hurry.
        std::thread::sleep(round);
    }
    while let Ok(Some(info)) = arrived.read_signal() {
        let number = i32::try_from(info.ssi_signo).unwrap_or_default();
        match Signal::try_from(number) {
            Ok(Signal::SIGTERM | Signal::SIGPWR | Signal::SIGUSR2) => power::ask(Then::PowerOff),
            Ok(Signal::SIGINT) => power::ask(Then::Reboot),
            Ok(_) | Err(_) => {}
        }
    }
}

/// From here on, signals of process 1 are waited for by one thread.
fn watch_signals(children: &Arc<Children>) -> Result<(), BootError> {
    let signals: SigSet = [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGPWR,
        Signal::SIGUSR2,
        Signal::SIGHUP,
        Signal::SIGPIPE,
    ]
    .into_iter()
    .collect();
    // Threads started later have them blocked as well.
    signals.thread_block().map_err(BootError::Signals)?;
    let arrived = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(BootError::Signals)?;
    let stops = power::listen();
    let reaped = Arc::clone(children);
    std::thread::Builder::new()
        .name("signals".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            loop {
                hear(&arrived);
                reaped.reap();
                // Who hangs with one of these in hand makes the machine useless, and the watchdog bites.
                let _ = services::running().map(|services| services.table().get(""));
                watchdog::feed();
            }
        })
        .map_err(|source| BootError::StartThread("signals", source))?;
    let stopped = Arc::clone(children);
    std::thread::Builder::new()
        .name("stop".to_owned())
        .stack_size(128 * 1024)
        .spawn(move || {
            if let Ok(then) = stops.recv() {
                power::stop(&stopped, then)
            }
        })
        .map_err(|source| BootError::StartThread("stop", source))?;
    Ok(())
}
