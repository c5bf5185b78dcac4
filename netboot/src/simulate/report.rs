//! What many boots come to.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::machine::{Boot, End, Step};
use super::wire::Counts;

/// How long one step took, over all machines, in milliseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Quantiles {
    /// The step.
    pub step: &'static str,
    /// How many machines took it.
    pub count: usize,
    /// Half of them took no longer.
    pub p50: f64,
    /// Nine of ten.
    pub p90: f64,
    /// All but one in a hundred.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
}

/// What became of the machines.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// How many there were.
    pub machines: usize,
    /// Those that booted as far as they were to.
    pub done: usize,
    /// Those whose script has nothing to load.
    pub told: usize,
    /// Those that lost power on their way, as was asked for.
    pub vanished: usize,
    /// Why others could not go on, and how many.
    pub failed: BTreeMap<String, usize>,
    /// From the first to the last, in milliseconds.
    pub took: f64,
    /// Packets of DHCP that were sent.
    pub sent: u64,
    /// Of these, those for want of an answer.
    pub again: u64,
    /// Packets that say nothing that a client understands.
    pub unreadable: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// The steps.
    pub steps: Vec<Quantiles>,
}

impl Report {
    /// Returns how many machines could not go on.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }
}

pub(super) fn sum(boots: &[Boot], took: Duration, counts: Counts) -> Report {
    let ended = |end: &End| boots.iter().filter(|boot| boot.end == *end).count();
    let mut failed = BTreeMap::new();
    for boot in boots {
        if let End::Failed(why) = &boot.end {
            *failed.entry(why.clone()).or_insert(0) += 1;
        }
    }
    let steps = Step::ALL.into_iter().filter_map(|step| {
        let times = boots.iter().flat_map(|boot| &boot.steps);
        quantiles(step, times.filter(|(of, _)| *of == step).map(|(_, took)| *took).collect())
    });
    Report {
        machines: boots.len(),
        done: ended(&End::Done),
        told: ended(&End::Told),
        vanished: ended(&End::Vanished),
        failed,
        took: millis(took),
        sent: counts.sent,
        again: counts.again,
        unreadable: counts.unreadable,
        bytes: boots.iter().map(|boot| boot.bytes).sum(),
        steps: steps.collect(),
    }
}

/// To a hundredth, which is more than a clock is worth here.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 100_000.0).round() / 100.0
}

fn quantiles(step: Step, mut times: Vec<Duration>) -> Option<Quantiles> {
    times.sort();
    let last = times.last()?;
    let count = times.len();
    let at = |percent: usize| times.get((count * percent).div_ceil(100).saturating_sub(1));
    let at = |percent| at(percent).copied().map_or(0.0, millis);
    let (p50, p90, p99) = (at(50), at(90), at(99));
    Some(Quantiles { step: step.as_str(), count, p50, p90, p99, max: millis(*last) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_counted_by_how_they_ended_and_steps_by_how_long_they_took() {
        let mut boots: Vec<Boot> = (1..=100)
            .map(|number| Boot {
                steps: vec![(Step::Offer, Duration::from_millis(number))],
                bytes: 10,
                end: End::Done,
            })
            .collect();
        boots.push(Boot { end: End::Vanished, ..Boot::default() });
        boots.push(Boot { end: End::Failed("no offer".to_owned()), ..Boot::default() });
        let report = sum(&boots, Duration::from_secs(1), Counts::default());
        assert_eq!((report.machines, report.done, report.vanished), (102, 100, 1));
        assert_eq!((report.failures(), report.failed["no offer"], report.bytes), (1, 1, 1000));
        let [offer] = report.steps.as_slice() else { panic!("{:?}", report.steps) };
        assert_eq!((offer.count, offer.p50, offer.p90), (100, 50.0, 90.0));
        assert_eq!((offer.p99, offer.max), (99.0, 100.0));
        assert!(sum(&[], Duration::ZERO, Counts::default()).steps.is_empty());
    }
}
