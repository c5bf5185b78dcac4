//! What the process that keeps a container hears while the container is made and while it runs.

use std::fs;
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// The signals that are for this process, and not yet taken.
#[derive(Debug)]
pub(super) struct Signals(SignalFd);

impl Signals {
    /// From here on signals wait until they are asked for: one that came in the middle of a start would end this process, and what
    /// was made for the container until then would stay.
    pub(super) fn hold() -> nix::Result<Self> {
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGCHLD]
            .into_iter()
            .collect::<SigSet>();
        // Process 1 blocks all signals for its threads, and we inherit that.
        signals.thread_set_mask()?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK).map(Self)
    }

    /// Returns the next one, if there is one.
    fn next(&self) -> nix::Result<Option<Signal>> {
        let number = self.0.read_signal()?.and_then(|info| i32::try_from(info.ssi_signo).ok());
        number.map(Signal::try_from).transpose()
    }

    /// Returns the signal by which this container was asked to end, if it was.
    pub(super) fn end_asked(&self) -> nix::Result<Option<Signal>> {
        while let Some(signal) = self.next()? {
            if signal != Signal::SIGCHLD {
                return Ok(Some(signal));
            }
        }
        Ok(None)
    }
}

/// Where process 1 hears that the container's own program runs.
#[derive(Debug)]
pub(super) struct Report(Option<fs::File>);

impl Report {
    /// Takes over the standard input, which is the way to process 1.
    pub(super) fn take() -> std::io::Result<Self> {
        let way = std::io::stdin().as_fd().try_clone_to_owned()?;
        nix::unistd::dup2_stdin(fs::File::open("/dev/null")?)?;
        Ok(Self(Some(way.into())))
    }

    fn program_runs(&mut self) {
        if let Some(mut way) = self.0.take() {
            // Who does not listen does not want to know.
            let _ = way.write_all(b"r");
        }
    }
}

/// The exit code that stands for a signal without a name: that of the first of them.
const REAL_TIME: u8 = 128 + 34;

/// How a container ended, and whether its own program ever ran.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: u8,
    pub(super) ran: bool,
}

/// Waits until the container's first process has ended; passes on what asks it to stop. `program` is a pipe whose other
/// end the kernel closes when the first process becomes the container's program, or ends.
pub(super) fn wait(
    first: Pid,
    signals: &Signals,
    program: OwnedFd,
    mut report: Report,
) -> nix::Result<Ended> {
    let mut program = Some(program);
    let mut ran = false;
    loop {
        if let Some(code) = reap(first)? {
            return Ok(Ended { code, ran });
        }
        let mut polled = vec![PollFd::new(signals.0.as_fd(), PollFlags::POLLIN)];
        polled.extend(program.iter().map(|pipe| PollFd::new(pipe.as_fd(), PollFlags::POLLIN)));
        match poll(&mut polled, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
        let is_closed = |pipe: &PollFd<'_>| pipe.revents().is_some_and(|events| !events.is_empty());
        if polled.get(1).is_some_and(is_closed) {
            program = None;
            // One that has ended has no program any more, even if nobody has taken its end yet.
            if fs::read_link(format!("/proc/{first}/exe")).is_ok() {
                ran = true;
                report.program_runs();
            }
        }
        while let Some(signal) = signals.next()? {
            let passed = match signal {
                Signal::SIGCHLD => continue,
                // It had its chance to stop by itself, or is not yet the one that could.
                Signal::SIGUSR1 => Signal::SIGKILL,
                _ if program.is_some() => Signal::SIGKILL,
                signal => signal,
            };
            let _ = kill(first, passed);
        }
    }
}

/// Takes the ends of all children. Returns how the first process ended, if it did.
fn reap(first: Pid) -> nix::Result<Option<u8>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == first => {
                return Ok(Some(u8::try_from(code).unwrap_or(u8::MAX)));
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == first => {
                return Ok(Some(code_of(signal)));
            }
            Ok(WaitStatus::StillAlive) => return Ok(None),
            // The library has no name for a real-time signal. It has taken a child, and does not say which it was.
            Err(Errno::EINVAL) if kill(first, None) == Err(Errno::ESRCH) => {
                return Ok(Some(REAL_TIME));
            }
            Ok(_) | Err(Errno::EINTR | Errno::EINVAL) => {}
            Err(error) => return Err(error),
        }
    }
}

/// The exit code that stands for a signal, as a shell has it.
pub(super) fn code_of(signal: Signal) -> u8 {
    u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
}
