//! One container, from its own process: set it up, start it, wait for it, clean up.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use libcontainer::container::builder::ContainerBuilder;
use libcontainer::error::LibcontainerError;
use libcontainer::syscall::syscall::SyscallType;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::adapt::{AdaptError, Adapted, adapt};
use crate::clock::uptime;
use crate::devices::DevicesError;
use crate::error::chain;
use crate::out_of_memory;
use crate::runtime::{Runtime, RuntimeError};

const GROUPS: &str = "/sys/fs/cgroup";
/// How long what is left of a container may take to be gone.
const DEATH: Duration = Duration::from_secs(5);
const LOOK_AGAIN: Duration = Duration::from_millis(10);
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

/// Runs the container in `bundle` to its end and returns its exit code, or 128 and the signal.
pub(crate) fn run(bundle: &str, name: &str) -> ExitCode {
    match run_to_end(Path::new(bundle), name) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            // Goes to the log and the console like everything that the container prints.
            let line = format!("cannot run: {}\n", chain(&error));
            let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
            ExitCode::from(CANNOT_START)
        }
    }
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

fn run_to_end(bundle: &Path, name: &str) -> Result<u8, ContainerError> {
    crate::report::to_stderr();
    // Process 1 blocks signals; the container must not inherit that.
    SigSet::empty().thread_set_mask().map_err(ContainerError::Signals)?;
    // The container's first process is not our child; its parent ends at once, and then it falls
    // to the nearest process that asks for orphans.
    prctl::set_child_subreaper(true).map_err(ContainerError::Signals)?;
    let runtime = Runtime::read(bundle).map_err(ContainerError::Prepare)?;
    let result = runtime
        .prepare(bundle)
        .map_err(ContainerError::Prepare)
        .and_then(|()| start_and_wait(bundle, name, &runtime));
    runtime.clean(bundle);
    result
}

fn start_and_wait(bundle: &Path, name: &str, runtime: &Runtime) -> Result<u8, ContainerError> {
    let id = id(bundle, name);
    let state = Path::new(STATE);
    let adapted = Path::new(ADAPTED).join(&id);
    // What a run that was cut off has left.
    let _ = fs::remove_dir_all(state.join(&id));
    let _ = fs::remove_file(adapted.join(REASON));
    for path in [state, &adapted] {
        fs::create_dir_all(path)
            .map_err(|source| ContainerError::MakeDirectory { path: path.into(), source })?;
    }
    let Adapted { workload, devices, ignored } =
        adapt(bundle, &id, &adapted).map_err(ContainerError::Adapt)?;
    if !ignored.is_empty() {
        let line = format!("this machine cannot do {}; going on without\n", ignored.join(", "));
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    let create = |error| ContainerError::Create(Box::new(error));
    let mut container = ContainerBuilder::new(id, SyscallType::Linux)
        .with_executor(workload)
        .with_root_path(state)
        .map_err(create)?
        .as_init(&adapted)
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(create)?;
    let pid = container.pid().ok_or(ContainerError::NoProcess)?;
    let pid = Pid::from_raw(pid.as_raw());
    // Only now: what the container library mounts and makes for the container is not limited.
    let limited = devices.map_or(Ok(()), |devices| devices.limit(pid.as_raw()));
    let bound = runtime
        .arrange_interfaces(pid.as_raw())
        .and_then(|()| runtime.bind_namespaces(pid.as_raw()))
        .map_err(ContainerError::Prepare);
    if let Err(error) = limited.map_err(ContainerError::Devices).and(bound) {
        let _ = container.delete(true);
        return Err(error);
    }
    let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGCHLD]
        .into_iter()
        .collect::<SigSet>();
    // From here signals are waited for. Only after the fork, so that the container has them free.
    signals.thread_block().map_err(ContainerError::Signals)?;
    container.start().map_err(|error| ContainerError::Start(Box::new(error)))?;
    let group = group_of(pid.as_raw());
    let code = wait(pid, &signals);
    if let Some(reason) = group.as_deref().and_then(out_of_memory::reason) {
        let _ = fs::write(adapted.join(REASON), reason);
    }
    if let Some(group) = &group {
        // With the machine's processes the container's own may outlive the first.
        let _ = fs::write(group.join("cgroup.kill"), "1");
    }
    let _ = container.delete(true);
    if let Some(group) = &group {
        remove_group(group, DEATH);
    }
    code
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

/// Returns the directory of the control group of a process; nothing for one that is in that of the machine.
pub(crate) fn group_of(pid: i32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let group = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    (!group.is_empty()).then(|| Path::new(GROUPS).join(group))
}

/// Ends everything in a control group and in those below it, and removes them.
pub(crate) fn remove_group(group: &Path, patience: Duration) {
    let _ = fs::write(group.join("cgroup.kill"), "1");
    let start = uptime();
    while remove_directories(group).is_err_and(|error| error.kind() != ErrorKind::NotFound)
        && uptime().saturating_sub(start) < patience
    {
        sleep(LOOK_AGAIN);
    }
}

fn remove_directories(group: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_directories(&entry.path())?;
        }
    }
    fs::remove_dir(group)
}

/// Returns why a container was ended, where its own process could not say so, and forgets it.
pub(crate) fn take_reason(id: &str) -> Option<String> {
    let path = Path::new(ADAPTED).join(id).join(REASON);
    let reason = fs::read_to_string(&path).ok()?;
    let _ = fs::remove_file(path);
    Some(reason)
}

/// Names a container so that one of `onboot` and a service may have the same name.
fn id(bundle: &Path, name: &str) -> String {
    let section = bundle.parent().and_then(Path::file_name).unwrap_or_default();
    format!("{}-{name}", section.to_string_lossy())
}

/// Waits until the container's first process has ended; passes on what asks it to stop.
fn wait(first: Pid, signals: &SigSet) -> Result<u8, ContainerError> {
    loop {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) if pid == first => {
                    return Ok(u8::try_from(code).unwrap_or(u8::MAX));
                }
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == first => {
                    return Ok(u8::try_from(128 + signal as i32).unwrap_or(u8::MAX));
                }
                Ok(WaitStatus::StillAlive) => break,
                Ok(_) => {}
                Err(Errno::EINTR) => {}
                Err(error) => return Err(ContainerError::Wait(error)),
            }
        }
        match signals.wait() {
            Ok(Signal::SIGCHLD) | Err(Errno::EINTR) => {}
            // It had its chance to stop by itself.
            Ok(Signal::SIGUSR1) => {
                let _ = kill(first, Signal::SIGKILL);
            }
            Ok(signal) => {
                let _ = kill(first, signal);
            }
            Err(error) => return Err(ContainerError::Wait(error)),
        }
    }
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
