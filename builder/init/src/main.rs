//! The first process of a machine that Kiln boots.
//!
//! One static binary plays two parts:
//!
//! ```text
//! kernel ─▶ /init (process 1)                      boot: file systems, modules, network, onboot, services
//!              ├─▶ /init container BUNDLE NAME      one per container: sets it up, waits, cleans up
//!              └─▶ …
//! ```
//!
//! Process 1 has several threads, and setting up a container forks; so each container is set up by
//! a fresh copy of this binary that has one thread only.

mod boot;
mod clock;
mod config;
mod console;
mod container;
mod error;
mod logs;
mod modules;
mod mounts;
mod network;
mod phone;
mod power;
mod process;
mod restart;
mod root;
mod runtime;
mod services;
mod sys;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    if std::process::id() == 1 {
        run_as_first_process();
    }
    match (args.next().as_deref(), args.next(), args.next()) {
        (Some("container"), Some(bundle), Some(name)) => container::run(&bundle, &name),
        _ => {
            console::say("this is the first process of a machine; a person has no use for it");
            ExitCode::from(64)
        }
    }
}

/// Boots the machine and keeps it until it is switched off. The kernel panics when process 1 ends,
/// so whatever happens here, it never returns.
fn run_as_first_process() -> ! {
    let failure = match catch_unwind(AssertUnwindSafe(boot::run)) {
        Ok(Ok(never)) => match never {},
        Ok(Err(failure)) => error::chain(&failure),
        Err(_) => "an unexpected fault, told above".to_owned(),
    };
    console::say(&format!("cannot go on: {failure}"));
    power::give_up()
}
