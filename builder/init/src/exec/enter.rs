//! The last step into a running container: join its namespaces, take its rights and limits, become the program.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;

use libcontainer::capabilities::{drop_privileges, reset_effective};
use libcontainer::oci_spec::runtime::{Process, Spec};
use libcontainer::syscall::Syscall;
use libcontainer::syscall::syscall::create_syscall;
use libcontainer::workload::Executor;
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::unistd::{
    Gid, Uid, chdir, dup2_stderr, dup2_stdin, dup2_stdout, setgroups, setresgid, setresuid, setsid,
};

use super::{CANNOT_START, Fault, join_group};
use crate::adapt::adapt_program;
use crate::error::chain;
use crate::sys;
use crate::workload::Workload;

/// In this order: the mounts after all that is found by path, and the users last, because with them rights are given up.
const NAMESPACES: [(&str, CloneFlags); 6] = [
    ("cgroup", CloneFlags::CLONE_NEWCGROUP),
    ("ipc", CloneFlags::CLONE_NEWIPC),
    ("uts", CloneFlags::CLONE_NEWUTS),
    ("net", CloneFlags::CLONE_NEWNET),
    ("mnt", CloneFlags::CLONE_NEWNS),
    ("user", CloneFlags::CLONE_NEWUSER),
];

/// Becomes a program in the container whose first process this is. Only what went wrong is returned.
pub(crate) fn enter(
    bundle: &str,
    pid: &str,
    group: &str,
    how: &str,
    program: &[String],
) -> ExitCode {
    let Err(fault) = become_program(Path::new(bundle), pid, Path::new(group), how, program);
    let _ = io::stderr().lock().write_all(format!("cannot run: {fault}\n").as_bytes());
    ExitCode::from(CANNOT_START)
}

fn become_program(
    bundle: &Path,
    pid: &str,
    group: &Path,
    how: &str,
    program: &[String],
) -> Result<std::convert::Infallible, Fault> {
    let failed =
        |step: &'static str| move |error: &dyn std::fmt::Display| format!("{step}: {error}");
    let (spec, workload) = adapt_program(bundle, program, std::env::var("TERM").ok())
        .map_err(|error| chain(&error))?;
    let process = spec.process().as_ref().ok_or("the container has no process")?;
    let spaces = namespaces(pid).map_err(|error| failed("find its namespaces")(&error))?;
    join_group(group).map_err(|error| failed("join its control group")(&error))?;
    if let Some(score) = process.oom_score_adj() {
        let _ = fs::write("/proc/self/oom_score_adj", score.to_string());
    }
    // A session of its own: signals from a terminal are for what is in it.
    setsid().map_err(|error| failed("start a session")(&error))?;
    for (space, kind) in spaces {
        setns(space, kind).map_err(|error| failed("join a namespace")(&error))?;
    }
    if how == "tty" {
        take_terminal().map_err(|error| failed("open a terminal in the container")(&error))?;
    }
    take_rights(process)?;
    become_it(&workload, &spec)
}

/// Opens those namespaces of a process that are not those of this one.
fn namespaces(pid: &str) -> io::Result<Vec<(File, CloneFlags)>> {
    let mut spaces = Vec::new();
    for (name, kind) in NAMESPACES {
        let theirs = format!("/proc/{pid}/ns/{name}");
        if fs::read_link(&theirs)? != fs::read_link(format!("/proc/self/ns/{name}"))? {
            spaces.push((File::open(theirs)?, kind));
        }
    }
    Ok(spaces)
}

/// Opens a terminal, hands its other end over the socket that is the standard input, and takes its place.
fn take_terminal() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let (master, peer) = sys::open_terminal()?;
    sys::control_from(&peer)?;
    sys::send_files(&socket, &[master.as_fd()])?;
    dup2_stdin(&peer)?;
    dup2_stdout(&peer)?;
    dup2_stderr(&peer)?;
    Ok(())
}

/// Takes the limits, the user and the capabilities of the container's process.
fn take_rights(process: &Process) -> Result<(), Fault> {
    let failed =
        |step: &'static str| move |error: &dyn std::fmt::Display| format!("{step}: {error}");
    let calls = create_syscall();
    for limit in process.rlimits().iter().flatten() {
        calls.set_rlimit(limit).map_err(|error| failed("set its limits")(&error))?;
    }
    let cwd = process.cwd();
    let cwd = if cwd.as_os_str().is_empty() { Path::new("/") } else { cwd };
    chdir(cwd).map_err(|error| failed("change to its directory")(&error))?;
    take_user(process, calls.as_ref())?;
    if process.no_new_privileges() == Some(true) {
        prctl::set_no_new_privs().map_err(|error| failed("give up new privileges")(&error))?;
    }
    if let Some(privileges) = process.capabilities() {
        drop_privileges(privileges, calls.as_ref())
            .map_err(|error| failed("take its capabilities")(&error))?;
    }
    Ok(())
}

/// Becomes the user, and keeps the capabilities until those of the program are taken.
fn take_user(process: &Process, calls: &dyn Syscall) -> Result<(), Fault> {
    let failed = |error: nix::Error| format!("take its user: {error}");
    let user = process.user();
    let more: Vec<Gid> =
        user.additional_gids().iter().flatten().map(|gid| Gid::from_raw(*gid)).collect();
    // Refused in a user namespace without groups of its own, where there are none to keep either.
    let groups = setgroups(&more);
    if !more.is_empty() {
        groups.map_err(|error| format!("take its groups: {error}"))?;
    }
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    prctl::set_keepcaps(true).map_err(failed)?;
    setresgid(gid, gid, gid).map_err(failed)?;
    setresuid(uid, uid, uid).map_err(failed)?;
    if !uid.is_root() {
        reset_effective(calls).map_err(|error| format!("keep its capabilities: {error}"))?;
    }
    prctl::set_keepcaps(false).map_err(failed)
}

fn become_it(workload: &Workload, spec: &Spec) -> Result<std::convert::Infallible, Fault> {
    match workload.exec(spec) {
        Err(error) => Err(error.to_string()),
        Ok(()) => Err("the program did not start".to_owned()),
    }
}
