//! Lines on the console.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::fd::AsFd;

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
    // Nothing can be done about a console that does not take it.
    let _ = std::io::stderr().lock().write_all(format!("{who}: {clean}\n").as_bytes());
}

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
