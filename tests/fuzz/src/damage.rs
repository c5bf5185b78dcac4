//! What happens to samples on the way, or on purpose: drawn by bolero, so that a failure is made as small as it gets and
//! can be had again.

use bolero::TypeGenerator;

/// The longest that damaged bytes get; a sample may be longer.
const LONGEST: usize = 64 << 10;
/// Bytes that mean something in many formats.
const TELLING: [u8; 16] = *b"\0\x01\x7f\x80\xfe\xff\n\"[]{}:/%9";
/// Numbers at which others begin to be wrong.
const WORDS: [&[u8]; 12] = [
    b"-1",
    b"4294967296",
    b"18446744073709551616",
    b"0777777777777",
    b"../",
    b"\xff\xff",
    b"\xff\xff\xff\xff",
    b"\x80\0\0\0",
    b"\0\0\0\x80",
    b"\xc3\x28",
    b"\xe2\x80\xae",
    b"\x1b[2J",
];

/// A sample, and what is done to it.
#[derive(Clone, Debug, TypeGenerator)]
pub(crate) struct Damage {
    sample: u16,
    count: u8,
    edits: [Edit; 6],
}

#[derive(Clone, Copy, Debug, TypeGenerator)]
struct Edit {
    kind: u8,
    at: u32,
    with: u32,
}

impl Damage {
    /// Returns what becomes of one of the samples.
    pub(crate) fn done_to(&self, samples: &[&[u8]]) -> Vec<u8> {
        let chosen = usize::from(self.sample).checked_rem(samples.len());
        let chosen = chosen.and_then(|chosen| samples.get(chosen).copied());
        let mut bytes = chosen.unwrap_or_default().to_vec();
        let most = bytes.len().max(LONGEST);
        let count = 1 + usize::from(self.count) % self.edits.len();
        for edit in self.edits.iter().take(count) {
            edit.apply(&mut bytes, samples);
            bytes.truncate(most);
        }
        bytes
    }
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>, samples: &[&[u8]]) {
        let whole = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
        let [small, other, ..] = self.with.to_le_bytes();
        let at = whole(self.at).checked_rem(bytes.len() + 1).unwrap_or_default();
        let end = at.saturating_add(usize::from(small) % 40 + 1).min(bytes.len());
        let pick = |count: usize| usize::from(other).checked_rem(count).unwrap_or_default();
        match (self.kind % 10, bytes.get_mut(at)) {
            (0, Some(byte)) => *byte = small,
            (1, Some(byte)) => *byte ^= 1 << (small % 8),
            (2, Some(byte)) => *byte = TELLING.get(pick(TELLING.len())).copied().unwrap_or(0),
            (3, _) => bytes.truncate(at),
            (4, _) => drop(bytes.drain(at..end)),
            (5, _) => {
                let part = bytes.get(at..end).unwrap_or_default();
                let part = part.repeat(1 + usize::from(other) % 64);
                bytes.splice(at..at, part);
            }
            (6, _) => {
                let word = WORDS.get(pick(WORDS.len())).copied().unwrap_or_default();
                bytes.splice(at..at, word.iter().copied());
            }
            (7, _) => {
                let word = WORDS.get(pick(WORDS.len())).copied().unwrap_or_default();
                let end = at.saturating_add(word.len()).min(bytes.len());
                bytes.splice(at..end, word.iter().copied());
            }
            (8, _) => {
                let sample = samples.get(pick(samples.len())).copied().unwrap_or_default();
                let from = usize::from(small).checked_rem(sample.len().max(1)).unwrap_or(0);
                let part = sample.iter().skip(from).take(80).copied().collect::<Vec<_>>();
                bytes.splice(at..at, part);
            }
            _ => {
                let drawn = (0..=small % 16).map(|n| small.wrapping_mul(n) ^ other);
                bytes.splice(at..at, drawn.collect::<Vec<_>>());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::panic::AssertUnwindSafe;

    use super::*;

    #[test]
    fn a_target_gets_its_samples() {
        let (whole, other) = (Cell::new(0), Cell::new(0));
        let count = AssertUnwindSafe((&whole, &other));
        crate::check("counted", &[b"a sample", b"one more"], move |bytes| {
            let AssertUnwindSafe((whole, other)) = &count;
            let seen = if [&b"a sample"[..], b"one more"].contains(&bytes) { whole } else { other };
            seen.set(seen.get() + 1);
        });
        assert!(whole.get() >= 2, "{whole:?} {other:?}");
    }

    #[test]
    fn without_samples_there_is_damage_to_nothing() {
        let edit = Edit { kind: 9, at: 7, with: 0x0102 };
        assert!(!Damage { sample: 3, count: 0, edits: [edit; 6] }.done_to(&[]).is_empty());
    }

    #[test]
    fn what_is_repeated_again_and_again_stays_short() {
        let edit = Edit { kind: 5, at: 0, with: 0xffff };
        let long = [b'x'; 4000];
        let damaged = Damage { sample: 0, count: 5, edits: [edit; 6] }.done_to(&[&long]);
        assert!(damaged.len() <= LONGEST);
    }
}
