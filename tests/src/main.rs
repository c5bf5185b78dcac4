//! The tests that need a whole computer: real firmware boots, real networks, the program itself.
//!
//! Run by `./dev test`; see README.md beside this folder.

mod cases;
mod matrix;
mod rig;
mod tftp_client;

use std::process::ExitCode;

use libtest_mimic::Arguments;

/// Emulated machines that run at the same time unless `--test-threads` says otherwise.
const MACHINES: usize = 2;

fn main() -> ExitCode {
    // `./dev bench` measures TFTP servers with the client of these cases.
    if let Ok(task) = std::env::var(tftp_client::VARIABLE) {
        return match tftp_client::run(&task) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(MACHINES);
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true" || value == "1");
    let trials =
        cases::all().into_iter().map(|case| case.into_trial(in_ci, arguments.list)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    matrix::print();
    conclusion.exit_code()
}
