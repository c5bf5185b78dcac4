//! What signals do to a process.

use nix::sys::signal::{SigHandler, Signal, signal};

/// Lets a closed pipe end who writes to it, as programs expect: Rust's runtime has it ignored, which would be inherited.
pub(crate) fn let_pipes_end_programs() {
    // SAFETY: no handler is installed, only the default put back.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigDfl) };
}
