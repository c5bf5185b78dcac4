//! One container, from its own process: set it up, start it, wait for it, clean up.

mod group;
mod wait;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use libcontainer::container::Container;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::adapt::{AdaptError, Adapted, adapt};
use crate::devices::{Devices, DevicesError};
use crate::error::chain;
use crate::out_of_memory;
use crate::report::{self, Faults};
use crate::runtime::{Runtime, RuntimeError};
use wait::{Ended, Report, Signals, code_of, wait};

pub(crate) use group::{group_of, remove_group};

/// How long what is left of a container may take to be gone.
const DEATH: Duration = Duration::from_secs(5);
const STATE: &str = "/run/kiln/containers";
/// Configurations as the container library gets them.
const ADAPTED: &str = "/run/kiln/bundles";
/// Beside the configuration: why the container was ended, if that is not how its process ended.
const REASON: &str = "reason";
/// The exit code when the container could not be started, as a shell has it.
const CANNOT_START: u8 = 126;

/// Why a container did not run.
#[derive(Debug, thiserror::Error)]
enum ContainerError {
    #[error("prepare for signals")]
    Signals(#[source] nix::Error),
    #[error("arrange for hearing when the program runs")]
    Report(#[source] std::io::Error),
    #[error("it is to end by {0} before its program runs")]
    Stopped(Signal),
    #[error("make the directory {}", path.display())]
    MakeDirectory { path: PathBuf, source: std::io::Error },
    #[error("prepare what the container needs outside")]
    Prepare(#[source] RuntimeError),
    #[error("understand what the container is to be")]
    Adapt(#[source] AdaptError),
    #[error("limit the devices of the container")]
    Devices(#[source] DevicesError),
    #[error("set the container up")]
    Create(#[source] Box<LibcontainerError>),
    #[error("start the container")]
    Start(#[source] Box<LibcontainerError>),
    #[error("the container has no process")]
    NoProcess,
    #[error("wait for the container")]
    Wait(#[source] nix::Error),
}

/// Runs the container in `bundle` to its end and returns its exit code, or 128 and the signal. Why it could not run is kept for
/// process 1, which tells it together with what it does about that.
pub(crate) fn run(bundle: &str, name: &str) -> ExitCode {
    let bundle = Path::new(bundle);
    let mut faults = Faults::listen().ok();
    let result = run_to_end(bundle, name);
    let first = faults.as_mut().and_then(Faults::first);
    let (code, fault) = match result {
        Ok(Ended { code, ran }) => (code, first.filter(|_| !ran && code != 0)),
        Err(error) => {
            (CANNOT_START, Some(first.unwrap_or_else(|| report::sentence(&chain(&error), ""))))
        }
    };
    if let Some(fault) = fault {
        let directory = Path::new(ADAPTED).join(id(bundle, name));
        let _ = fs::create_dir_all(&directory);
        let _ = fs::write(directory.join(REASON), format!("cannot run: {fault}"));
    }
    ExitCode::from(code)
}

/// Binds a directory of the machine over one of a container that is being set up.
pub(crate) fn bind(source: &str, target: &str) -> ExitCode {
    let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
    match mount(Some(source), target, None::<&str>, flags, None::<&str>) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let line = format!("cannot bind {source} to {target}: {error}\n");
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            ExitCode::FAILURE
        }
    }
}

fn run_to_end(bundle: &Path, name: &str) -> Result<Ended, ContainerError> {
    let report = Report::take().map_err(ContainerError::Report)?;
    let signals = Signals::hold().map_err(ContainerError::Signals)?;
    // The container's first process is not our child; its parent ends at once, and then it falls
    // to the nearest process that asks for orphans.
    prctl::set_child_subreaper(true).map_err(ContainerError::Signals)?;
    let runtime = Runtime::read(bundle).map_err(ContainerError::Prepare)?;
    let mut mounted = 0;
    let result = runtime
        .prepare(bundle, &mut mounted)
        .map_err(ContainerError::Prepare)
        .and_then(|()| run_prepared(bundle, name, &runtime, &signals, report));
    runtime.clean(bundle, mounted);
    result
}

fn run_prepared(
    bundle: &Path,
    name: &str,
    runtime: &Runtime,
    signals: &Signals,
    report: Report,
) -> Result<Ended, ContainerError> {
    let id = id(bundle, name);
    let state = Path::new(STATE);
    let adapted = Path::new(ADAPTED).join(&id);
    // What a run that was cut off has left.
    let _ = take_reason(&id);
    let _ = fs::remove_dir_all(state.join(&id));
    for path in [state, &adapted] {
        fs::create_dir_all(path)
            .map_err(|source| ContainerError::MakeDirectory { path: path.into(), source })?;
    }
    let Adapted { workload, devices, group, ignored } =
        adapt(bundle, &id, &adapted).map_err(ContainerError::Adapt)?;
    if !ignored.is_empty() {
        let line = format!("this machine cannot do {}; going on without\n", ignored.join(", "));
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    // Closed by the kernel when the container's first process becomes its program.
    let (program, becomes) = std::io::pipe().map_err(ContainerError::Report)?;
    let create = |error| ContainerError::Create(Box::new(error));
    let made = ContainerBuilder::new(id, SyscallType::Linux)
        .with_executor(workload)
        .with_root_path(state)
        .map_err(create)?
        .as_init(&adapted)
        .with_systemd(false)
        .with_detach(true)
        .build();
    drop(becomes);
    let group = group::directory(&group);
    let remove = || {
        if let Some(group) = &group {
            remove_group(group, DEATH);
        }
    };
    let mut container = made.map_err(create).inspect_err(|_| remove())?;
    let result = start(&mut container, devices, runtime, signals)
        .and_then(|pid| wait(pid, signals, program.into(), report).map_err(ContainerError::Wait));
    if let Some(reason) = group.as_deref().and_then(out_of_memory::reason) {
        let _ = fs::write(adapted.join(REASON), reason);
    }
    if let Some(group) = &group {
        // With the machine's processes the container's own may outlive the first.
        let _ = fs::write(group.join("cgroup.kill"), "1");
    }
    let _ = container.delete(true);
    remove();
    match result {
        // Before its program ran.
        Err(ContainerError::Stopped(signal)) => Ok(Ended { code: code_of(signal), ran: true }),
        result => result,
    }
}

/// Starts the program of a container that was made, unless it is to end already.
fn start(
    container: &mut Container,
    devices: Option<Devices>,
    runtime: &Runtime,
    signals: &Signals,
) -> Result<Pid, ContainerError> {
    let pid = container.pid().ok_or(ContainerError::NoProcess)?.as_raw();
    // Only now: what the container library mounts and makes for the container is not limited.
    devices.map_or(Ok(()), |devices| devices.limit(pid)).map_err(ContainerError::Devices)?;
    runtime
        .arrange_interfaces(pid)
        .and_then(|()| runtime.bind_namespaces(pid))
        .map_err(ContainerError::Prepare)?;
    if let Some(signal) = signals.end_asked().map_err(ContainerError::Signals)? {
        return Err(ContainerError::Stopped(signal));
    }
    container.start().map_err(|error| ContainerError::Start(Box::new(error)))?;
    Ok(Pid::from_raw(pid))
}

/// Ends and unmounts what is left of a container when the process that kept it was killed.
pub(crate) fn sweep(bundle: &Path, name: &str) {
    if let Some(group) = first_process(&id(bundle, name)).and_then(group_of) {
        remove_group(&group, DEATH);
    }
    if let Ok(runtime) = Runtime::read(bundle) {
        runtime.sweep(bundle);
    }
}

/// Returns the bundle of a service by the name of its container.
pub(crate) fn bundle_of(id: &str) -> Option<String> {
    let name = id.strip_prefix("services-").filter(|name| !name.contains('/') && *name != "..")?;
    let bundle = format!("/containers/services/{name}");
    Path::new(&bundle).exists().then_some(bundle)
}

/// Returns the first process of a running container.
pub(crate) fn first_process(id: &str) -> Option<i32> {
    #[derive(serde::Deserialize)]
    struct State {
        pid: Option<i32>,
    }
    let text = fs::read(Path::new(STATE).join(id).join("state.json")).ok()?;
    let pid = serde_json::from_slice::<State>(&text).ok()?.pid?;
    Path::new(&format!("/proc/{pid}")).exists().then_some(pid)
}

/// Returns why a container was ended, where its own process could not say so, and forgets it.
pub(crate) fn take_reason(id: &str) -> Option<String> {
    let path = Path::new(ADAPTED).join(id).join(REASON);
    let reason = fs::read_to_string(&path).ok()?;
    let _ = fs::remove_file(path);
    // One that found no room says nothing.
    Some(reason).filter(|reason| !reason.is_empty())
}

/// Names a container so that one of `onboot` and a service may have the same name.
pub(crate) fn id(bundle: &Path, name: &str) -> String {
    let section = bundle.parent().and_then(Path::file_name).unwrap_or_default();
    format!("{}-{name}", section.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_of_different_sections_may_have_the_same_name() {
        assert_eq!(id(Path::new("/containers/onshutdown/000-a"), "a"), "onshutdown-a");
        assert_eq!(id(Path::new("/containers/services/a"), "a"), "services-a");
    }
}
