//! The command line that asks process 1.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;

use super::SOCKET;
use crate::exec;

const FAILED: u8 = 1;
const USAGE: u8 = 2;
/// How many lines `logs` shows unless told.
const LINES: usize = 100;
const COMMANDS: &[&str] =
    &["ps", "logs", "start", "stop", "restart", "exec", "help", "--help", "-h"];

const HELP: &str = "\
kiln-init: the services of this machine

Usage: kiln-init COMMAND        (as root)

  ps                      all services: state, process, time since the start, restarts, memory, health
  logs NAME [-n N] [-f]   the last N lines (100) that a service or a container of onboot wrote, with their times;
                          -f goes on with those that come. The name kiln-init is process 1 itself.
  start NAME              start a service that does not run, and wait until it is up
  stop NAME               stop a service; it stays so until it is started
  restart NAME            stop a service and start it at once
  exec NAME PROGRAM ...   run a program in the container of a running service, with its rights and its limits, and with
                          a terminal when the standard input is one; ends with the program's exit code
  help                    this text

It asks process 1 over /run/kiln/control. A container from which it is to be used needs that and the program:

  binds: [/bin/kiln-init:/usr/bin/kiln-init:ro, /run/kiln:/run/kiln]

States: waiting (for those in `after`), starting, up, pausing (before the next start), stopping, stopped, done, failed.
Exit codes: 0 done, 1 refused or failed, 2 not understood; with exec, that of the program, or 126 if it cannot run.
";

/// What is to be asked.
#[derive(Debug, PartialEq, Eq)]
enum Wish {
    Help,
    Ask(Vec<String>),
    Exec { service: String, program: Vec<String> },
}

/// Says whether this is a word for this command line, and not one of the kernel for its first process.
pub(crate) fn is_command(word: &str) -> bool {
    COMMANDS.contains(&word)
}

/// Does what the command line says.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    match understand(arguments) {
        Ok(Wish::Help) => show(HELP),
        Ok(Wish::Ask(words)) => match ask(&words) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&error, FAILED),
        },
        Ok(Wish::Exec { service, program }) => {
            exec::attach(&service, &program).unwrap_or_else(|error| complain(&error, FAILED))
        }
        Err(error) => complain(&format!("{error}; see `kiln-init help`"), USAGE),
    }
}

fn understand(arguments: &[String]) -> Result<Wish, String> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let own = |words: &[&str]| Wish::Ask(words.iter().map(|word| (*word).to_owned()).collect());
    match words.as_slice() {
        [] | ["help" | "--help" | "-h", ..] | [_, "--help" | "-h"] => Ok(Wish::Help),
        ["ps"] => Ok(own(&["ps"])),
        ["logs", options @ ..] => logs(options),
        ["start" | "stop" | "restart", name] if !name.starts_with('-') => Ok(own(&words)),
        [verb @ ("start" | "stop" | "restart"), ..] => {
            Err(format!("`{verb}` needs the name of one service"))
        }
        ["exec", service, rest @ ..] if !service.starts_with('-') => {
            let program = if rest.first() == Some(&"--") { &rest[1..] } else { rest };
            if program.is_empty() {
                return Err("`exec` needs a program to run".to_owned());
            }
            let program = program.iter().map(|word| (*word).to_owned()).collect();
            Ok(Wish::Exec { service: (*service).to_owned(), program })
        }
        ["exec", ..] => Err("`exec` needs the name of a service and a program".to_owned()),
        ["ps", ..] => Err("`ps` takes nothing more".to_owned()),
        [other, ..] => Err(format!("there is no command `{other}`")),
    }
}

fn logs(options: &[&str]) -> Result<Wish, String> {
    let (mut name, mut lines, mut follow) = (None, LINES, false);
    let mut options = options.iter();
    while let Some(&option) = options.next() {
        match option {
            "-f" | "--follow" => follow = true,
            "-n" | "--lines" => {
                let number = options.next().ok_or("`-n` needs a number of lines")?;
                lines = number.parse().map_err(|_| format!("`{number}` is not a number"))?;
            }
            option if option.starts_with('-') => {
                return Err(format!("`logs` has no option `{option}`"));
            }
            word if name.is_none() => name = Some(word),
            word => return Err(format!("`logs` shows one log at a time, not also `{word}`")),
        }
    }
    let name = name.ok_or("`logs` needs the name of a service")?;
    let mut words = vec!["logs".to_owned(), name.to_owned(), lines.to_string()];
    if follow {
        words.push("follow".to_owned());
    }
    Ok(Wish::Ask(words))
}

/// Connects and sends a request.
pub(crate) fn request(words: &[String]) -> Result<UnixStream, String> {
    let mut stream = UnixStream::connect(SOCKET).map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => "; in a container, it needs the bind /run/kiln:/run/kiln",
            io::ErrorKind::PermissionDenied => "; only root may ask",
            _ => "",
        };
        format!("cannot reach process 1 over {SOCKET}: {error}{hint}")
    })?;
    let mut line = serde_json::to_vec(words).map_err(|error| error.to_string())?;
    line.push(b'\n');
    stream.write_all(&line).map_err(|error| lost(&error))?;
    Ok(stream)
}

/// Takes the first line of an answer apart.
pub(crate) fn is_ok(line: &str) -> Result<(), String> {
    match line.trim_end().strip_prefix("error: ") {
        Some(error) => Err(error.to_owned()),
        None if line == "ok\n" => Ok(()),
        None => Err("process 1 does not answer".to_owned()),
    }
}

pub(crate) fn lost(error: &io::Error) -> String {
    format!("the connection to process 1 broke: {error}")
}

fn ask(words: &[String]) -> Result<(), String> {
    let mut answer = BufReader::new(request(words)?);
    let mut first = String::new();
    answer.read_line(&mut first).map_err(|error| lost(&error))?;
    is_ok(&first)?;
    match io::copy(&mut answer, &mut io::stdout().lock()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(lost(&error)),
        _ => Ok(()),
    }
}

fn show(text: &str) -> ExitCode {
    let _ = io::stdout().lock().write_all(text.as_bytes());
    ExitCode::SUCCESS
}

fn complain(error: &str, code: u8) -> ExitCode {
    let _ = io::stderr().lock().write_all(format!("kiln-init: {error}\n").as_bytes());
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish(line: &str) -> Result<Wish, String> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        understand(&words)
    }

    fn asks(line: &str) -> String {
        match wish(line) {
            Ok(Wish::Ask(words)) => words.join(" "),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn commands_become_requests() {
        assert_eq!(asks("ps"), "ps");
        assert_eq!(asks("logs web"), "logs web 100");
        assert_eq!(asks("logs -n 5 -f web"), "logs web 5 follow");
        assert_eq!(asks("restart web"), "restart web");
        let program = ["ls", "-l", "--help"].map(str::to_owned).to_vec();
        for line in ["exec web ls -l --help", "exec web -- ls -l --help"] {
            let exec = Wish::Exec { service: "web".to_owned(), program: program.clone() };
            assert_eq!(wish(line), Ok(exec));
        }
        for line in ["", "help", "--help", "logs --help"] {
            assert_eq!(wish(line), Ok(Wish::Help), "{line}");
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (line, text) in [
            ("pss", "there is no command `pss`"),
            ("ps -a", "`ps` takes nothing more"),
            ("stop", "`stop` needs the name of one service"),
            ("stop a b", "`stop` needs the name of one service"),
            ("logs", "`logs` needs the name of a service"),
            ("logs a b", "`logs` shows one log at a time, not also `b`"),
            ("logs a -n x", "`x` is not a number"),
            ("logs a -n", "`-n` needs a number of lines"),
            ("logs a -x", "`logs` has no option `-x`"),
            ("exec", "`exec` needs the name of a service and a program"),
            ("exec web --", "`exec` needs a program to run"),
        ] {
            assert_eq!(wish(line), Err(text.to_owned()), "{line}");
        }
    }

    #[test]
    fn the_first_line_of_an_answer_says_whether_it_is_one() {
        assert_eq!(is_ok("ok\n"), Ok(()));
        assert_eq!(is_ok("error: no\n"), Err("no".to_owned()));
        assert!(is_ok("").is_err() && is_ok("okay\n").is_err());
    }
}
