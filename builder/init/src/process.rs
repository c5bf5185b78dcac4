//! The children of process 1: containers, and every orphan of the machine.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::exec::TOOK_TOO_LONG;
use crate::logs;
use crate::output::{Output, Runs};

/// How much longer than its limit a check may take to end what it has started.
const CHECK_SLACK: Duration = Duration::from_secs(4);

/// How a container ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Code(i32),
    Signal(Signal),
    /// By a signal that has a number only.
    RealTime,
}

impl End {
    pub(crate) fn is_success(self) -> bool {
        self == Self::Code(0)
    }
}

impl std::fmt::Display for End {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with code {code}"),
            Self::Signal(signal) => write!(formatter, "was ended by {signal}"),
            Self::RealTime => formatter.write_str("was ended by a real-time signal"),
        }
    }
}

/// Is called once with how a child ended. Must not block.
pub(crate) type Told = Box<dyn FnOnce(End) + Send>;

/// The running containers, each with the place where its end is told.
#[derive(Default)]
pub(crate) struct Children {
    running: Mutex<HashMap<Pid, Told>>,
    stopping: AtomicBool,
    /// Containers that must not run, and why.
    held: OnceLock<(Vec<String>, String)>,
}

impl Children {
    /// Starts the container in `bundle`; its end is sent to `told`.
    pub(crate) fn start(&self, bundle: &str, name: &str, told: Sender<End>) -> io::Result<Pid> {
        self.start_telling(bundle, name, Box::new(|| ()), telling(told))
    }

    /// Starts the container in `bundle`; `runs` hears when its own program does, and its end is given to `told`.
    pub(crate) fn start_telling(
        &self,
        bundle: &str,
        name: &str,
        runs: Runs,
        told: Told,
    ) -> io::Result<Pid> {
        if let Some(why) = self.is_held_back(bundle) {
            return Err(io::Error::other(why));
        }
        let (reader, writer) = io::pipe()?;
        let (report, reporter) = io::pipe()?;
        let mut command = Command::new("/proc/self/exe");
        command
            .args(["container", bundle, name])
            .env_clear()
            .stdin(reporter)
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .current_dir("/");
        // Held from before the start: the child must be known before anyone asks how it ended.
        let mut running = self.lock();
        if self.stopping.load(Ordering::Relaxed) {
            return Err(io::Error::other("the machine is stopping"));
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        running.insert(pid, told);
        drop(running);
        // Closes our copies of the pipes' ends, so that the reader sees the last writer leave.
        drop(command);
        let who = name.to_owned();
        let file = |end: io::PipeReader| File::from(OwnedFd::from(end));
        let output = Output::new(file(reader), file(report), runs);
        std::thread::Builder::new()
            .name(format!("log {name}"))
            .stack_size(64 * 1024)
            .spawn(move || logs::follow(&who, output))?;
        Ok(pid)
    }

    /// From now on these bundles are not started: something is missing that they need. Said once in a boot.
    pub(crate) fn hold_back(&self, bundles: &[String], why: &str) {
        let _ = self.held.set((bundles.to_vec(), why.to_owned()));
    }

    /// Says why a bundle is not started, if it is held back.
    pub(crate) fn is_held_back(&self, bundle: &str) -> Option<String> {
        let (bundles, why) = self.held.get()?;
        bundles.iter().any(|held| held == bundle).then(|| why.clone())
    }

    /// Runs a program of the machine itself to its end, and ends it when it takes too long.
    pub(crate) fn run(&self, command: &mut Command, patience: Duration) -> io::Result<End> {
        let (told, end) = channel();
        let mut running = self.lock();
        if self.stopping.load(Ordering::Relaxed) {
            return Err(io::Error::other("the machine is stopping"));
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        running.insert(pid, telling(told));
        drop(running);
        end.recv_timeout(patience).map_err(|_| {
            let _ = kill(pid, Signal::SIGKILL);
            io::Error::other(format!("it takes longer than {} s", patience.as_secs()))
        })
    }

    /// Runs a program in a running container and says what is wrong when it does not end with 0 in time.
    pub(crate) fn check(
        &self,
        container: &str,
        program: &[String],
        timeout: Duration,
    ) -> Result<(), String> {
        let mut command = Command::new("/proc/self/exe");
        let millis = timeout.as_millis().to_string();
        command.args(["check", container, &millis]).args(program).env_clear().current_dir("/");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let (told, end) = channel();
        let mut running = self.lock();
        let child = command.spawn().map_err(|error| format!("the check cannot run: {error}"))?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        running.insert(pid, telling(told));
        drop(running);
        let too_long = || format!("its check takes longer than {millis} ms");
        // It keeps the time itself, and ends what it has started; this is for when it cannot.
        match end.recv_timeout(timeout + CHECK_SLACK) {
            Ok(end) if end.is_success() => Ok(()),
            Ok(End::Code(code)) if code == i32::from(TOOK_TOO_LONG) => Err(too_long()),
            Ok(end) => Err(format!("its check {end}")),
            Err(_) => {
                let _ = kill(pid, Signal::SIGKILL);
                Err(too_long())
            }
        }
    }

    /// Starts a process that runs a program in a running container for the client at the other end of the socket.
    pub(crate) fn start_exec(
        &self,
        container: &str,
        words: &[&str],
        client: OwnedFd,
    ) -> io::Result<()> {
        let mut command = Command::new("/proc/self/exe");
        command.args(["exec", container]).args(words).env_clear().current_dir("/");
        command.stdin(client).stdout(Stdio::null()).stderr(Stdio::null());
        let mut running = self.lock();
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        running.insert(pid, Box::new(drop));
        Ok(())
    }

    /// Starts a program that is no container; its end is sent to `told`.
    pub(crate) fn adopt(&self, command: &mut Command, told: Sender<End>) -> io::Result<Pid> {
        let mut running = self.lock();
        if self.stopping.load(Ordering::Relaxed) {
            return Err(io::Error::other("the machine is stopping"));
        }
        let child = command.spawn()?;
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        running.insert(pid, telling(told));
        Ok(pid)
    }

    /// Takes the end of every child that has one.
    pub(crate) fn reap(&self) {
        loop {
            // The map must be held when the number becomes free.
            let mut running = self.lock();
            let ended = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => vec![(pid, End::Code(code))],
                Ok(WaitStatus::Signaled(pid, signal, _)) => vec![(pid, End::Signal(signal))],
                // The library has no name for a real-time signal. It has taken the child, and does not say which it was.
                Err(Errno::EINVAL) => {
                    let gone = running.keys().filter(|pid| kill(**pid, None) == Err(Errno::ESRCH));
                    gone.map(|pid| (*pid, End::RealTime)).collect()
                }
                Ok(WaitStatus::StillAlive) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(_) => return,
            };
            for (pid, end) in ended {
                if let Some(told) = running.remove(&pid) {
                    told(end);
                }
            }
        }
    }

    /// From now on nothing is started: what the stop ends must not come back.
    pub(crate) fn refuse_new(&self) {
        let running = self.lock();
        self.stopping.store(true, Ordering::Relaxed);
        drop(running);
    }

    /// Says whether the machine is going down.
    pub(crate) fn are_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Sends a signal to every container.
    pub(crate) fn signal_all(&self, signal: Signal) {
        for pid in self.lock().keys() {
            let _ = kill(*pid, signal);
        }
    }

    /// Returns how many containers run.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Pid, Told>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn telling(told: Sender<End>) -> Told {
    Box::new(move |end| {
        let _ = told.send(end);
    })
}

impl std::fmt::Debug for Children {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Children")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Says whether this test has a process of its own, in which nobody else's children are taken; else runs it in one.
    fn is_alone(name: &str) -> bool {
        const ALONE: &str = "KILN_TEST_ALONE";
        if std::env::var_os(ALONE).is_some() {
            return true;
        }
        let mut command = Command::new(std::env::current_exe().unwrap());
        let words = ["--exact", name, "--nocapture"];
        assert!(command.args(words).env(ALONE, "1").status().unwrap().success());
        false
    }

    #[test]
    fn one_that_a_real_time_signal_ends_is_told_and_does_not_hide_others() {
        let name =
            "process::tests::one_that_a_real_time_signal_ends_is_told_and_does_not_hide_others";
        if !is_alone(name) {
            return;
        }
        let children = Children::default();
        let adopt = |script: &str| {
            let (told, end) = channel();
            children.adopt(Command::new("sh").args(["-c", script]), told).unwrap();
            end
        };
        let stays = adopt("sleep 60");
        let ends = [adopt("kill -40 $$"), adopt("exit 7"), adopt("kill -9 $$")];
        let deadline = crate::clock::uptime() + Duration::from_secs(30);
        while children.count() > 1 && crate::clock::uptime() < deadline {
            children.reap();
            std::thread::sleep(Duration::from_millis(5));
        }
        let ends = ends.map(|end| end.try_recv().ok());
        let expected = [End::RealTime, End::Code(7), End::Signal(Signal::SIGKILL)];
        assert_eq!(ends, expected.map(Some));
        assert!(stays.try_recv().is_err());
        children.signal_all(Signal::SIGKILL);
    }

    #[test]
    fn what_is_held_back_is_not_started_and_says_why() {
        let children = Children::default();
        children.hold_back(&["/containers/services/db".to_owned()], "there is no disk");
        let (told, _end) = channel();
        let error = children.start("/containers/services/db", "db", told).unwrap_err();
        assert_eq!(error.to_string(), "there is no disk");
        assert_eq!(children.is_held_back("/containers/services/web"), None);
    }
}
