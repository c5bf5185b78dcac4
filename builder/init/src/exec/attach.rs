//! The client's side: hands its streams over and waits for the end of the program.

use std::io::{self, BufRead, BufReader, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;

use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::control::{is_ok, lost, request};
use crate::sys;

/// Runs a program in the container of a service, with the standard streams of this process.
pub(crate) fn attach(service: &str, program: &[String]) -> Result<ExitCode, String> {
    let terminal = io::stdin().is_terminal() && io::stdout().is_terminal();
    let how = match terminal {
        true => format!("tty:{}", std::env::var("TERM").unwrap_or_default()),
        false => "pipe".to_owned(),
    };
    let mut words = vec!["exec".to_owned(), service.to_owned(), how];
    words.extend(program.iter().cloned());
    let stream = request(&words)?;
    let mut answers = BufReader::new(stream.try_clone().map_err(|error| lost(&error))?);
    is_ok(&line(&mut answers)?)?;
    let raw = terminal.then(Raw::enter);
    let streams = (io::stdin(), io::stdout(), io::stderr());
    sys::send_files(&stream, &[streams.0.as_fd(), streams.1.as_fd(), streams.2.as_fd()])
        .map_err(|error| lost(&error))?;
    let last = line(&mut answers);
    drop(raw);
    let last = last?;
    match last.trim_end().strip_prefix("exit ").and_then(|code| code.parse::<u8>().ok()) {
        Some(code) => Ok(ExitCode::from(code)),
        None => Err(is_ok(&last).err().unwrap_or_else(|| "process 1 does not answer".to_owned())),
    }
}

fn line(answers: &mut impl BufRead) -> Result<String, String> {
    let mut line = String::new();
    match answers.read_line(&mut line) {
        Ok(0) => Err("the connection to process 1 broke: was the service ended?".to_owned()),
        Ok(_) => Ok(line),
        Err(error) => Err(lost(&error)),
    }
}

/// As long as this is held, each key goes to the program as it is.
struct Raw(Option<Termios>);

impl Raw {
    fn enter() -> Self {
        let before = tcgetattr(io::stdin()).ok();
        if let Some(before) = &before {
            let mut raw = before.clone();
            cfmakeraw(&mut raw);
            let _ = tcsetattr(io::stdin(), SetArg::TCSANOW, &raw);
        }
        Self(before)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = tcsetattr(io::stdin(), SetArg::TCSADRAIN, before);
        }
    }
}
