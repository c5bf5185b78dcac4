//! Puts what a machine reports where it belongs on the clock of the server.
//!
//! The machine counts from the start of its kernel; its own idea of the date may be anything. Each batch of reports
//! says how long the kernel has run when it is sent, so that the time of its arrival less that is when the kernel
//! started, or a little later: the way over the network only ever adds. The earliest of these is the best.

/// Returns when the kernel started, in milliseconds since 1970.
///
/// `known` is what earlier batches gave, and `floor` the last moment at which the loader was still at work: what a
/// machine says of itself cannot put its kernel before that.
pub(super) fn kernel_start(known: Option<i64>, arrived: i64, uptime: u64, floor: i64) -> i64 {
    let uptime = i64::try_from(uptime).unwrap_or(i64::MAX);
    let guess = arrived.saturating_sub(uptime).max(floor).min(arrived);
    known.map_or(guess, |known| known.min(guess))
}

/// Returns when something was that the machine saw so long after its kernel's start. It was before it arrived here.
pub(super) fn place(kernel_start: i64, millis: u64, arrived: i64) -> i64 {
    let millis = i64::try_from(millis).unwrap_or(i64::MAX);
    kernel_start.saturating_add(millis).min(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_batch_with_the_shortest_way_counts() {
        let first = kernel_start(None, 10_000, 4_000, 1_000);
        assert_eq!(first, 6_000);
        let second = kernel_start(Some(first), 12_000, 6_040, 1_000);
        assert_eq!(second, 5_960);
        assert_eq!(kernel_start(Some(second), 20_000, 13_900, 1_000), 5_960, "it was delayed");
    }

    #[test]
    fn a_machine_cannot_put_its_kernel_before_its_loader_or_after_now() {
        assert_eq!(kernel_start(None, 10_000, u64::MAX, 7_000), 7_000);
        assert_eq!(kernel_start(None, 10_000, 0, 7_000), 10_000);
        assert_eq!(kernel_start(None, 10_000, 5, 12_000), 10_000);
    }

    #[test]
    fn nothing_is_placed_after_it_arrived() {
        assert_eq!(place(6_000, 1_500, 9_000), 7_500);
        assert_eq!(place(6_000, u64::MAX, 9_000), 9_000);
    }
}
