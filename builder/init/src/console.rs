//! Lines on the console.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::OnceLock;

use nix::libc;

use crate::logs;

/// Writes one line in the name of the init, in one piece, so that lines of several threads do not mix.
pub(crate) fn say(message: &str) {
    let clean = clean(message);
    write_line("kiln-init", &clean);
    logs::keep("kiln-init", &clean);
}

/// Takes out control characters: those of a container's output must not reach the terminal of a person.
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\t' { '·' } else { c }).collect()
}

/// Writes one line under the name of a container.
pub(crate) fn write_line(who: &str, clean: &str) {
    if cfg!(test) {
        return;
    }
    let line = format!("{who}: {clean}\n");
    // Nothing can be done about a console that does not take it.
    let mut stderr = std::io::stderr().lock();
    let _ = stderr.write_all(line.as_bytes());
    for mut console in OTHERS.get().into_iter().flatten() {
        let _ = console.write_all(line.as_bytes());
    }
}

/// The consoles of the kernel's command line besides the one that is /dev/console, which is the last of them.
static OTHERS: OnceLock<Vec<File>> = OnceLock::new();

/// Makes /dev/console the standard streams. The kernel has done so only if the device was there
/// before /dev was mounted.
pub(crate) fn attach() {
    if let Ok(console) = OpenOptions::new().read(true).write(true).open("/dev/console") {
        let fd = console.as_fd();
        let _ = nix::unistd::dup2_stdin(fd);
        let _ = nix::unistd::dup2_stdout(fd);
        let _ = nix::unistd::dup2_stderr(fd);
    }
}

/// Opens the other consoles of the kernel as well. They are written to without waiting: one that nobody reads from, such
/// as a serial line with nothing at its end, must not hold anything up.
pub(crate) fn attach_others() {
    let all = std::fs::read_to_string("/proc/consoles").unwrap_or_default();
    let open = |name: &str| {
        OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
            .open(Path::new("/dev").join(name))
            .ok()
    };
    let _ = OTHERS.set(others(&all).filter_map(open).collect());
}

/// Reads `/proc/consoles`: name, what can be done with it, and flags, of which `C` is /dev/console and `E` is in use.
fn others(all: &str) -> impl Iterator<Item = &str> {
    all.lines().filter_map(|line| {
        let (name, rest) = line.split_once(' ')?;
        let flags = rest.split_once('(')?.1.split_once(')')?.0;
        (flags.contains('E') && !flags.contains('C') && !name.contains('/')).then_some(name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consoles_in_use_are_found_but_for_the_one_that_is_dev_console() {
        let all = "ttyS0                -W- (EC p a)    4:64\ntty0                 -WU (E     )    4:1\n\
                   ttyS1                -W- (   p  )    4:65\nnonsense\n";
        assert_eq!(others(all).collect::<Vec<_>>(), ["tty0"]);
    }
}
