//! Programs in running containers: those that a person wants there, and those that check how a service is.
//!
//! ```text
//! kiln-init exec ──socket──▶ process 1 ──socket──▶ /init exec ID …   makes a control group, joins the process namespace
//!       └── its standard streams, over the socket ──▶ └─▶ /init enter …   joins the rest and becomes the program
//! ```
//!
//! Process 1 only passes the socket on. What comes over it from then on is for a process of its own, whose loss is none.

mod attach;
mod enter;

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};

use crate::clock::uptime;
use crate::container;
use crate::sys;

pub(crate) use attach::attach;
pub(crate) use enter::enter;

const CANNOT_START: u8 = 126;
/// How long the client may take to hand over its streams.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often it is looked whether a program has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How long what is left of a program may take to be gone.
const DEATH: Duration = Duration::from_secs(2);

/// What cannot be done, and why.
type Fault = String;

/// A place for one program in a running container.
struct Place {
    bundle: String,
    pid: i32,
    /// Ended, with all that is in it, when this is dropped.
    group: PathBuf,
}

impl Place {
    fn make(id: &str) -> Result<Self, Fault> {
        let bundle = container::bundle_of(id).ok_or("no service has this name")?;
        let pid = container::first_process(id).ok_or("it does not run")?;
        let group = container::group_of(pid).ok_or("its control group is gone")?;
        let group = group.join(format!("exec-{}", std::process::id()));
        fs::create_dir(&group).map_err(|error| format!("cannot make a control group: {error}"))?;
        let place = Self { bundle, pid, group };
        let theirs = format!("/proc/{pid}/ns/pid");
        if fs::read_link(&theirs).ok() != fs::read_link("/proc/self/ns/pid").ok() {
            let namespace = File::open(&theirs).map_err(|error| format!("it is gone: {error}"))?;
            // From here on that is where children of this process are.
            setns(namespace, CloneFlags::CLONE_NEWPID)
                .map_err(|error| format!("cannot join its processes: {error}"))?;
        }
        Ok(place)
    }

    /// Starts the process that becomes the program.
    fn command(&self, how: &str, program: &[String]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command.args(["enter", &self.bundle, &self.pid.to_string()]).arg(&self.group).arg(how);
        command.args(program).env_clear().current_dir("/");
        command
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        container::remove_group(&self.group, DEATH);
    }
}

/// Runs a program in a container for process 1, which wants to know whether it ends with 0 in time.
pub(crate) fn check(id: &str, millis: &str, program: &[String]) -> ExitCode {
    let timeout = Duration::from_millis(millis.parse().unwrap_or(1000));
    let run = || -> Result<u8, Fault> {
        let start = uptime();
        let place = Place::make(id)?;
        let mut command = place.command("pipe", program);
        let mut child = spawn(command.stdin(Stdio::null()))?;
        while uptime().saturating_sub(start) < timeout {
            if let Some(status) = ended(&mut child)? {
                return Ok(code(status));
            }
            sleep(LOOK_AGAIN);
        }
        drop(place);
        let _ = child.wait();
        Ok(TOOK_TOO_LONG)
    };
    run().map_or_else(|_| ExitCode::from(CANNOT_START), ExitCode::from)
}

/// The exit code of a check that took too long, as the program `timeout` has it.
pub(crate) const TOOK_TOO_LONG: u8 = 124;

/// Runs a program in a container for the client at the other end of the socket that is the standard input.
pub(crate) fn serve(id: &str, how: &str, program: &[String]) -> ExitCode {
    let Ok(socket) = io::stdin().as_fd().try_clone_to_owned() else { return ExitCode::FAILURE };
    let client = UnixStream::from(socket);
    let last = match run_for(&client, id, how, program) {
        Ok(code) => format!("exit {code}\n"),
        Err(fault) => format!("error: {fault}\n"),
    };
    let _ = (&client).write_all(last.as_bytes());
    ExitCode::SUCCESS
}

fn run_for(client: &UnixStream, id: &str, how: &str, program: &[String]) -> Result<u8, Fault> {
    let broken = |error: io::Error| format!("the client is gone: {error}");
    let place = Place::make(id)?;
    client.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    (&*client).write_all(b"ok\n").map_err(broken)?;
    let [input, output, errors] = sys::receive_files(client, 3)
        .ok()
        .and_then(|files| <[OwnedFd; 3]>::try_from(files).ok())
        .ok_or("the client does not hand over its streams")?;
    let mut command = place.command(how, program);
    if how == "pipe" {
        let child = spawn(command.stdin(input).stdout(output).stderr(errors))?;
        // Closes our copies: who reads what the program writes waits for the last one.
        drop(command);
        return wait(client, child);
    }
    drop(errors);
    let term = how.strip_prefix("tty:").filter(|term| !term.is_empty()).unwrap_or("linux");
    let (ours, theirs) = UnixStream::pair().map_err(broken)?;
    let mut command = place.command("tty", program);
    command.env("TERM", term).stdin(OwnedFd::from(theirs));
    let child = spawn(
        command
            .stdout(output.try_clone().map_err(broken)?)
            .stderr(output.try_clone().map_err(broken)?),
    )?;
    drop(command);
    ours.set_read_timeout(Some(PATIENCE)).map_err(broken)?;
    let Ok(terminal) = sys::receive_files(&ours, 1) else {
        // It has said itself why, on the client's output.
        return wait(client, child);
    };
    let Some(terminal) = terminal.into_iter().next() else { return wait(client, child) };
    relay(client, File::from(input), File::from(output), File::from(terminal), child)
}

/// Carries what is typed and what is shown, until the program ends or the client is gone.
fn relay(
    client: &UnixStream,
    mut input: File,
    mut output: File,
    mut terminal: File,
    mut child: Child,
) -> Result<u8, Fault> {
    let mut size = None;
    let mut buffer = [0; 4096];
    let mut typing = true;
    loop {
        let now = sys::terminal_size(&input);
        if let Some(now) = now.filter(|now| size != Some(*now)) {
            sys::resize_terminal(&terminal, now);
            size = Some(now);
        }
        let keys = if typing { PollFlags::POLLIN } else { PollFlags::empty() };
        let mut polled = [
            PollFd::new(terminal.as_fd(), PollFlags::POLLIN),
            PollFd::new(client.as_fd(), PollFlags::empty()),
            PollFd::new(input.as_fd(), keys),
        ];
        let _ = poll(&mut polled, PollTimeout::from(200_u16));
        let [shown, gone, typed] =
            [0, 1, 2].map(|n| polled[n].revents().unwrap_or(PollFlags::empty()));
        if !gone.is_empty() {
            return Err("the client is gone".to_owned());
        }
        if !shown.is_empty() {
            // An error is how a terminal says that nobody is left at its other end.
            let read = terminal.read(&mut buffer).unwrap_or(0);
            if read > 0 {
                let _ = output.write_all(&buffer[..read]);
                continue;
            }
        }
        if let Some(status) = ended(&mut child)? {
            return Ok(code(status));
        }
        if !shown.is_empty() {
            sleep(LOOK_AGAIN);
        }
        if typing && !typed.is_empty() {
            match input.read(&mut buffer) {
                Ok(read) if read > 0 => write_slowly(&mut terminal, &buffer[..read]),
                _ => typing = false,
            }
        }
    }
}

/// A terminal whose program does not read takes no more after a while; what is typed then is lost.
fn write_slowly(terminal: &mut File, mut bytes: &[u8]) {
    for _ in 0..50 {
        match terminal.write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(LOOK_AGAIN),
            Err(_) => return,
        }
        if bytes.is_empty() {
            return;
        }
    }
}

/// Waits for the end of a program as long as the client is there.
fn wait(client: &UnixStream, mut child: Child) -> Result<u8, Fault> {
    loop {
        if let Some(status) = ended(&mut child)? {
            return Ok(code(status));
        }
        let mut polled = [PollFd::new(client.as_fd(), PollFlags::empty())];
        let _ = poll(&mut polled, PollTimeout::from(20_u16));
        if polled[0].revents().is_some_and(|events| !events.is_empty()) {
            return Err("the client is gone".to_owned());
        }
    }
}

fn spawn(command: &mut Command) -> Result<Child, Fault> {
    command.spawn().map_err(|error| format!("cannot start a process: {error}"))
}

fn ended(child: &mut Child) -> Result<Option<ExitStatus>, Fault> {
    child.try_wait().map_err(|error| format!("cannot wait for the program: {error}"))
}

/// The exit code, or 128 and the signal, as a shell has it.
fn code(status: ExitStatus) -> u8 {
    let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX)
}

/// Writes one process into a control group.
fn join_group(group: &Path) -> io::Result<()> {
    fs::write(group.join("cgroup.procs"), "0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_has_the_code_that_a_shell_would_give_it() {
        for (status, expected) in [(0, 0), (7 << 8, 7), (9, 137), (15, 143)] {
            assert_eq!(code(ExitStatus::from_raw(status)), expected);
        }
    }

    #[test]
    fn a_container_that_does_not_run_is_refused() {
        assert!(Place::make("services-no-such").is_err());
        assert!(Place::make("../x").is_err());
    }
}
