//! What the phases of boots take, by architecture: the steps of `kiln boot show`, without the names of files and of
//! containers, which have no bound.

use std::time::Duration;

use kiln_types::Arch;

use super::Histogram;
use crate::breakdown::Breakdown;

/// The words for the phases of a boot, in the order of the counters. Whatever is none of them counts as the last.
const PHASES: [&str; 14] = [
    "firmware", "loader", "fetch", "kexec", "handover", "kernel", "init", "modules", "link",
    "network", "volumes", "onboot", "service", "other",
];
const BOUNDS: [f64; 12] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0, 160.0];

/// How long each phase takes, of boots that became healthy.
#[derive(Debug)]
pub struct Phases([[Histogram<{ BOUNDS.len() }>; PHASES.len()]; Arch::ALL.len()]);

impl Phases {
    pub(super) const fn new() -> Self {
        Self([const { [const { Histogram::new(BOUNDS) }; PHASES.len()] }; Arch::ALL.len()])
    }

    /// Counts the phases of one boot: what each adds to the length of the whole.
    pub fn observe(&self, arch: Arch, breakdown: &Breakdown) {
        let mut shares = [0_u64; PHASES.len()];
        for step in breakdown.steps.iter().filter(|step| step.share > 0) {
            let word = step.name.split(' ').next().unwrap_or_default();
            let at = PHASES.iter().position(|phase| *phase == word).unwrap_or(PHASES.len() - 1);
            if let Some(share) = shares.get_mut(at) {
                *share += step.share;
            }
        }
        let at = Arch::ALL.iter().position(|it| *it == arch);
        let Some(histograms) = at.and_then(|at| self.0.get(at)) else { return };
        for (share, histogram) in shares.iter().zip(histograms).filter(|(share, _)| **share > 0) {
            histogram.observe(Duration::from_millis(*share));
        }
    }

    /// Returns each with its labels.
    pub(super) fn each(
        &self,
    ) -> impl Iterator<Item = ([(&'static str, &'static str); 2], &Histogram<{ BOUNDS.len() }>)>
    {
        Arch::ALL.iter().zip(&self.0).flat_map(|(arch, histograms)| {
            PHASES
                .iter()
                .zip(histograms)
                .map(|(phase, histogram)| ([("phase", *phase), ("arch", arch.as_str())], histogram))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::breakdown::Step;

    #[test]
    fn steps_of_one_kind_are_one_phase_and_names_of_files_and_services_are_no_labels() {
        let step = |name: &str, share| Step {
            name: name.to_owned(),
            from: 0,
            to: share,
            share,
            detail: String::new(),
            bytes: None,
            rate: None,
            usual: None,
        };
        let steps = vec![
            step("firmware", 2_000),
            step("fetch kernel", 300),
            step("fetch base", 700),
            step("service web", 0),
            step("service db", 1_500),
            step("silence", 10),
        ];
        let phases = Phases::new();
        phases.observe(Arch::Arm64, &Breakdown { steps, ..Breakdown::default() });
        let counted: Vec<_> = phases
            .each()
            .filter(|(_, histogram)| histogram.read().1 > 0)
            .map(|([(_, phase), (_, arch)], histogram)| (phase, arch, histogram.read().2))
            .collect();
        assert_eq!(
            counted,
            [
                ("firmware", "arm64", 2.0),
                ("fetch", "arm64", 1.0),
                ("service", "arm64", 1.5),
                ("other", "arm64", 0.01),
            ]
        );
    }
}
