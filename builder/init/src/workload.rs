//! The last step of a container's start: find its program, install the seccomp filter, become it.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use libcontainer::capabilities::drop_privileges;
use libcontainer::oci_spec::runtime::{LinuxCapabilities, Spec};
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::{Executor, ExecutorError, ExecutorValidationError};
use nix::sys::signal::SigSet;
use nix::unistd::{execv, execve};

use crate::seccomp::Filter;
use crate::sys;

/// Where programs are looked for when the container's environment does not say so.
pub(crate) const SEARCH_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Starts the program of one container.
#[derive(Clone, Debug)]
pub(crate) struct Workload {
    filter: Option<Filter>,
    /// The program's own privileges, when the filter needs more than these.
    privileges: Option<LinuxCapabilities>,
    /// Whether the program gets the environment of its specification, and not that of this process, where the container
    /// library has put it.
    own_environment: bool,
}

impl Workload {
    pub(crate) fn new(filter: Option<Filter>, privileges: Option<LinuxCapabilities>) -> Self {
        Self { filter, privileges, own_environment: false }
    }

    pub(crate) fn with_environment(self) -> Self {
        Self { own_environment: true, ..self }
    }

    #[cfg(test)]
    pub(crate) fn drops_privileges(&self) -> bool {
        self.privileges.is_some()
    }
}

impl Executor for Workload {
    fn exec(&self, spec: &Spec) -> Result<(), ExecutorError> {
        let failed = |step: &str, error: &dyn std::fmt::Display| {
            ExecutorError::Other(format!("cannot {step}: {error}"))
        };
        let program = program(spec).map_err(ExecutorError::Other)?;
        let text = |text: &[u8]| CString::new(text).map_err(|_| ExecutorError::InvalidArg);
        let path = text(program.as_os_str().as_encoded_bytes())?;
        let texts = |texts: &[String]| {
            texts.iter().map(|arg| text(arg.as_bytes())).collect::<Result<Vec<_>, _>>()
        };
        let args = texts(args(spec))?;
        let environment = texts(environment(spec))?;
        sys::let_pipes_end_programs();
        // The process that keeps the container has its signals wait for it, and we have inherited that.
        SigSet::empty().thread_set_mask().map_err(|error| failed("free signals", &error))?;
        if let Some(filter) = &self.filter {
            filter.install().map_err(|error| failed("install the seccomp filter", &error))?;
        }
        if let Some(privileges) = &self.privileges {
            // A profile that forbids this would leave the program with more than it may have.
            drop_privileges(privileges, create_syscall().as_ref())
                .map_err(|error| failed("give up privileges behind the seccomp filter", &error))?;
        }
        let Err(error) = if self.own_environment {
            execve(&path, &args, &environment)
        } else {
            execv(&path, &args)
        };
        Err(failed(&format!("start {}", program.display()), &error))
    }

    fn validate(&self, spec: &Spec) -> Result<(), ExecutorValidationError> {
        program(spec).map(|_| ()).map_err(ExecutorValidationError::ArgValidationError)
    }
}

fn args(spec: &Spec) -> &[String] {
    let process = spec.process().as_ref();
    process.and_then(|process| process.args().as_deref()).unwrap_or_default()
}

fn environment(spec: &Spec) -> &[String] {
    let process = spec.process().as_ref();
    process.and_then(|process| process.env().as_deref()).unwrap_or_default()
}

/// Finds the program in the file system that is the container's by now.
fn program(spec: &Spec) -> Result<PathBuf, String> {
    let name = args(spec).first().ok_or("the container has no command")?;
    let path = environment(spec).iter().find_map(|entry| entry.strip_prefix("PATH="));
    find(name, path.unwrap_or(SEARCH_PATH))
}

/// As a shell does: a name with a slash is a path, others are looked for.
fn find(name: &str, search: &str) -> Result<PathBuf, String> {
    let runs = |path: &Path| {
        fs::metadata(path)
            .is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let path = PathBuf::from(name);
        if runs(&path) {
            return Ok(path);
        }
        let there = fs::symlink_metadata(&path).is_ok();
        return Err(if there {
            format!("{name} is not a program, or leads to none")
        } else {
            format!("there is no {name} in the container")
        });
    }
    let places = search.split(':').map(|directory| Path::new(directory).join(name));
    places
        .into_iter()
        .find(|path| runs(path))
        .ok_or_else(|| format!("there is no program {name} in {search}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_as_a_shell_finds_them() {
        assert_eq!(find("/bin/sh", "").unwrap(), Path::new("/bin/sh"));
        let found = find("sh", "/nonexistent:/bin:/usr/bin").unwrap();
        assert_eq!(found, Path::new("/bin/sh"));
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named() {
        for (name, text) in [
            ("/nonexistent", "there is no /nonexistent in the container"),
            ("/etc/passwd", "/etc/passwd is not a program, or leads to none"),
            ("no-such", "there is no program no-such in /bin"),
        ] {
            assert_eq!(find(name, "/bin").unwrap_err(), text);
        }
    }
}
