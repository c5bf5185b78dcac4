//! Secrets of boots.

use std::fmt::Write as _;

/// Returns 32 random bytes as hexadecimal digits.
pub(crate) fn secret() -> String {
    let mut bytes = [0_u8; 32];
    // It fails only when the kernel has no randomness to give, where it waits instead.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        tracing::error!("no randomness; secrets cannot be made");
        std::process::abort();
    }
    bytes.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Compares without telling by its time where the two differ.
pub(crate) fn same(a: &str, b: &str) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(a.as_bytes(), b.as_bytes()).is_ok()
}
