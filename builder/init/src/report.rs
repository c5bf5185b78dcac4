//! What the container library has to say when something goes wrong, as one sentence.
//!
//! Its errors often name only the step that failed; the cause is the first of what it logs, mostly in another process: the one
//! that becomes the container's. So what is logged goes through a pipe that all processes of one container have.

use std::fmt::{Debug, Write as _};
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::os::fd::OwnedFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// More than any error needs; the pipe holds several of them.
const LONGEST: usize = 1024;

/// What the library puts before the causes that say more.
const STEP: &str = "failed to initialize container process: ";

/// Hears the first error of the container library in this process and those that it forks.
#[derive(Debug)]
pub(crate) struct Faults(File);

impl Faults {
    /// From here on what the library logs is kept for us.
    pub(crate) fn listen() -> io::Result<Self> {
        let (reader, writer) = io::pipe()?;
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        for end in [&reader, &writer] {
            // Nobody waits: neither who writes more than the pipe holds, nor who asks whether there is something.
            fcntl(end, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        let _ = tracing::subscriber::set_global_default(Errors(writer.into()));
        Ok(Self(reader.into()))
    }

    /// Returns the first error that was logged, if there was one.
    pub(crate) fn first(&mut self) -> Option<String> {
        let mut text = vec![0; 4 * LONGEST];
        let length = self.0.read(&mut text).ok()?;
        let text = String::from_utf8_lossy(text.get(..length)?).into_owned();
        text.lines().next().map(|line| sentence(line, ""))
    }
}

/// Makes one sentence of a step and its error, with what helps.
pub(crate) fn sentence(what: &str, cause: &str) -> String {
    let text = if cause.is_empty() { what.to_owned() } else { format!("{what}: {cause}") };
    match help(&text) {
        Some(help) => format!("{text}; see {help}"),
        None => text,
    }
}

/// Says which key of the specification a failed step has to do with.
fn help(text: &str) -> Option<&'static str> {
    const KEYS: [(&str, &str); 17] = [
        ("in the container", "its `command`"),
        ("no program", "its `command`"),
        ("not a program", "its `command`"),
        ("cannot start", "its `command`"),
        ("hook", "its `hooks`"),
        ("network interface", "`runtime.interfaces`"),
        ("namespace", "its namespaces (`net`, `pid`, `ipc`, `uts`, `userns`) and `runtime.bindNS`"),
        ("sysctl", "its `sysctl`"),
        ("cwd", "its `cwd`"),
        ("chdir", "its `cwd`"),
        ("gid", "its `uid` and `gid`"),
        ("cgroup", "its `resources` and `cgroupsPath`"),
        ("capabilit", "its `capabilities`"),
        ("seccomp", "its `seccomp`"),
        ("mount", "its `binds`, `mounts` and `tmpfs`"),
        // The source of a mount is looked for.
        ("canonicalize", "its `binds`, `mounts` and `tmpfs`"),
        ("rootfs", "its `binds`, `mounts` and `tmpfs`"),
    ];
    let text = text.to_lowercase();
    KEYS.iter().find(|(word, _)| text.contains(word)).map(|(_, key)| *key)
}

struct Errors(File);

impl Subscriber for Errors {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::ERROR
    }

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.text();
        while text.len() > LONGEST {
            text.pop();
        }
        text.push('\n');
        let _ = (&self.0).write_all(text.as_bytes());
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    /// What the error itself says in words is all that counts; otherwise the step and what is known of it.
    fn text(&self) -> String {
        let text =
            words(&self.fields).unwrap_or_else(|| format!("{}{}", self.message, self.fields));
        text.trim_start_matches(STEP).replace(char::is_control, " ")
    }
}

/// Finds the sentence in an error that is written as Rust does for programmers: `Other("there is no /x")`.
fn words(debugged: &str) -> Option<String> {
    let (_, rest) = debugged.split_once('"')?;
    let (inner, _) = rest.rsplit_once('"')?;
    // Of several texts none is the sentence.
    (!inner.contains("\", ") && inner.contains(' ')).then(|| inner.replace("\\\"", "\""))
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_library_becomes_a_sentence() {
        for (message, fields, expected) in [
            (
                "failed to execute payload",
                " err=Other(\"there is no /x in the container\")",
                "there is no /x in the container; see its `command`",
            ),
            (
                "failed to prepare rootfs",
                " err=Mount { source: ENOENT, path: \"/a\" }",
                "failed to prepare rootfs err=Mount { source: ENOENT, path: \"/a\" }; see its `binds`, `mounts` and `tmpfs`",
            ),
            (
                "failed to initialize container process: there is no program x in /bin",
                "",
                "there is no program x in /bin; see its `command`",
            ),
            ("two\nlines", "", "two lines"),
        ] {
            let line = Line { message: message.to_owned(), fields: fields.to_owned() };
            let text = sentence(&line.text(), "");
            assert!(text.starts_with(expected.split("; see").next().unwrap()), "{text}");
            assert_eq!(text.contains("; see"), expected.contains("; see"), "{text}");
        }
    }

    #[test]
    fn what_fails_is_told_with_the_key_that_it_has_to_do_with() {
        let text =
            sentence("prepare what the container needs outside", "mount overlay on /x: EINVAL");
        assert!(text.ends_with("EINVAL; see its `binds`, `mounts` and `tmpfs`"), "{text}");
        assert_eq!(sentence("something", "else"), "something: else");
    }
}
