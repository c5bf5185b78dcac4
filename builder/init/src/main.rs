//! The first process of a machine that Kiln boots.
//!
//! One static binary plays two parts:
//!
//! ```text
//! kernel ─▶ /init (process 1)                      boot: file systems, modules, network, volumes, onboot, services
//!              ├─▶ /init container BUNDLE NAME      one per container: sets it up, waits, cleans up
//!              │     └─▶ /init bind SOURCE TARGET  while it is set up: shows it the machine's devices
//!              ├─▶ /init check ID MILLIS PROGRAM…   asks a running container how it is
//!              ├─▶ /init exec ID HOW PROGRAM…   runs a program there for a person
//!              │     └─▶ /init enter …             joins the container and becomes the program, for both
//!              └─▶ …
//! kiln-init ps, logs, …                           a person asks process 1, see `control`
//! ```
//!
//! Process 1 has several threads, and setting up a container forks; so each container is set up by
//! a fresh copy of this binary that has one thread only.

mod adapt;
mod boot;
mod clock;
mod cmdline;
mod config;
mod console;
mod container;
mod control;
mod devices;
mod error;
mod exec;
mod facts;
mod health;
mod hex;
mod http;
mod input;
mod kexec;
mod kmsg;
mod logs;
mod modules;
mod mounts;
mod netconsole;
mod network;
mod orders;
mod out_of_memory;
mod output;
mod parts;
mod phone;
mod power;
mod process;
mod report;
mod restart;
mod ring;
mod root;
mod runtime;
mod screen;
mod seccomp;
mod services;
mod state;
mod sys;
mod tls;
mod tune;
mod unmount;
mod volumes;
mod watchdog;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let all: Vec<String> =
        std::env::args_os().map(|word| word.to_string_lossy().into_owned()).collect();
    let (own, words) = all.split_first().map_or(("", &[][..]), |(own, rest)| (own.as_str(), rest));
    if std::process::id() == 1 && is_machine(own) {
        run_as_first_process();
    }
    let texts: Vec<&str> = words.iter().map(String::as_str).collect();
    match texts.as_slice() {
        ["container", bundle, name] => container::run(bundle, name),
        ["check", id, millis, _, ..] => exec::check(id, millis, &words[3..]),
        ["exec", id, how, _, ..] if is_handed_over(id, how) => exec::serve(id, how, &words[3..]),
        ["enter", bundle, pid, group, how, _, ..] => {
            exec::enter(bundle, pid, group, how, &words[5..])
        }
        ["bind", source, target] => container::bind(source, target),
        [word, ..] if control::is_command(word) => control::run(words),
        _ if own.ends_with("kiln-init") => control::run(words),
        _ => {
            console::say("this is the first process of a machine; see `/init help`");
            ExitCode::from(64)
        }
    }
}

/// Says whether this process is the first of a machine, and not that of a container in which a person asks: there it has
/// another name, or the socket is there, which process 1 makes itself.
fn is_machine(own: &str) -> bool {
    !own.ends_with("kiln-init") && !std::path::Path::new(control::SOCKET).exists()
}

/// Tells what process 1 starts from what a person types.
fn is_handed_over(id: &str, how: &str) -> bool {
    id.starts_with("services-") && (how == "pipe" || how.starts_with("tty:"))
}

/// Boots the machine and keeps it until it is switched off. The kernel panics when process 1 ends,
/// so whatever happens here, it never returns.
fn run_as_first_process() -> ! {
    hold_on_panic();
    let Err(failure) = boot::run();
    console::say(&format!("cannot go on: {}", error::chain(&failure)));
    power::give_up()
}

/// A fault in one thread must not take process 1, and with it the machine, down: the thread stays
/// where it is, and without the main thread the machine is switched off in order.
fn hold_on_panic() {
    std::panic::set_hook(Box::new(|fault| {
        console::say(&format!("an unexpected fault: {fault}"));
        if nix::unistd::gettid() == nix::unistd::getpid() {
            power::give_up()
        }
        loop {
            std::thread::park();
        }
    }));
}
