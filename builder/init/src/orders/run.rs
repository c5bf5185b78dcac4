//! Runs one program to its end, for someone who wants to see what it prints.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};

use super::{LARGEST_ANSWER, Outcome};
use crate::process::Children;

/// How long a program may run.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long what it started may keep its output open after its end.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Runs a program, in the container of a service or beside all containers.
pub(super) fn run(children: &Children, service: Option<&str>, program: &[String]) -> Outcome {
    let Some((first, arguments)) = program.split_first() else {
        return Outcome::Failed("there is no program to run".to_owned());
    };
    let mut command = match service {
        None => Command::new(first),
        Some(service) => {
            let mut command = Command::new("/proc/self/exe");
            let millis = PATIENCE.as_millis().to_string();
            command.args(["check", &format!("services-{service}"), &millis, first]);
            command
        }
    };
    command.args(arguments).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/").stdin(Stdio::null());
    match finish(children, command) {
        Ok((text, None)) => Outcome::Done(text),
        Ok((text, Some(why))) => Outcome::Failed(format!("{text}the program {why}\n")),
        Err(error) => Outcome::Failed(format!("{first} cannot run: {error}")),
    }
}

/// Returns what the program printed, and how it ended unless that was well.
fn finish(children: &Children, mut command: Command) -> io::Result<(String, Option<String>)> {
    let (reader, writer) = io::pipe()?;
    command.stdout(writer.try_clone()?).stderr(writer);
    let (told, end) = channel();
    let pid = children.adopt(&mut command, told)?;
    // Closes our copies of the pipe's end, so that the reader sees the last writer leave.
    drop(command);
    let (sender, printed) = channel();
    std::thread::Builder::new().name("run".to_owned()).stack_size(64 * 1024).spawn(move || {
        let mut file = File::from(OwnedFd::from(reader));
        let mut kept = Vec::new();
        let _ = file.by_ref().take(LARGEST_ANSWER as u64).read_to_end(&mut kept);
        let _ = sender.send(kept);
        // A program that prints more must not wait for a reader.
        let _ = io::copy(&mut file, &mut io::sink());
    })?;
    let why = match end.recv_timeout(PATIENCE) {
        Ok(end) if end.is_success() => None,
        Ok(end) => Some(end.to_string()),
        Err(RecvTimeoutError::Disconnected) => Some("was lost".to_owned()),
        Err(RecvTimeoutError::Timeout) => {
            let _ = kill(pid, Signal::SIGKILL);
            Some(format!("took longer than {} s and was ended", PATIENCE.as_secs()))
        }
    };
    let text = printed.recv_timeout(LAST_WORDS).unwrap_or_default();
    Ok((String::from_utf8_lossy(&text).into_owned(), why))
}
