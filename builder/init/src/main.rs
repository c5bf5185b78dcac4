//! The first process of a machine that Kiln boots.
//!
//! One static binary plays two parts:
//!
//! ```text
//! kernel ─▶ /init (process 1)                      boot: file systems, modules, network, volumes, onboot, services
//!              ├─▶ /init container BUNDLE NAME      one per container: sets it up, waits, cleans up
//!              │     └─▶ /init bind SOURCE TARGET  while it is set up: shows it the machine's devices
//!              ├─▶ /init check ID PROGRAM…      asks a running container how it is
//!              └─▶ …
//! ```
//!
//! Process 1 has several threads, and setting up a container forks; so each container is set up by
//! a fresh copy of this binary that has one thread only.

mod adapt;
mod boot;
mod clock;
mod config;
mod console;
mod container;
mod devices;
mod error;
mod facts;
mod health;
#[cfg_attr(not(test), expect(dead_code, reason = "streaming is for what orders fetch"))]
mod http;
mod kmsg;
mod logs;
mod modules;
mod mounts;
mod network;
mod parts;
mod phone;
mod power;
mod process;
mod report;
mod restart;
mod ring;
mod root;
mod runtime;
mod seccomp;
mod services;
mod sys;
mod volumes;
mod workload;

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if std::process::id() == 1 {
        run_as_first_process();
    }
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("container"), Some(bundle), Some(name)) => container::run(&bundle, &name),
        (Some("check"), Some(id), Some(program)) => container::check(&id, program, args),
        (Some("bind"), Some(source), Some(target)) => container::bind(&source, &target),
        _ => {
            console::say("this is the first process of a machine; a person has no use for it");
            ExitCode::from(64)
        }
    }
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
