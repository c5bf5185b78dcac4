//! The last lines of each container, in memory: a bound for each and one for all.

use std::collections::{BTreeMap, VecDeque};

/// The most that the lines of one container take.
const LARGEST_RING: usize = 256 << 10;
/// The most that the lines of all containers take.
const ALL_RINGS: usize = 4 << 20;
/// What a line takes beside its text.
const OVERHEAD: usize = 48;

/// One line and when it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// Since the kernel started.
    pub(crate) millis: u64,
    pub(crate) text: Box<str>,
}

#[derive(Debug, Default)]
struct Ring {
    lines: VecDeque<Line>,
    bytes: usize,
    /// How many lines there ever were: the number of the next one.
    next: u64,
}

impl Ring {
    fn drop_oldest(&mut self) -> usize {
        let freed = self.lines.pop_front().map_or(0, |line| line.text.len() + OVERHEAD);
        self.bytes = self.bytes.saturating_sub(freed);
        if self.lines.len() < self.lines.capacity() / 4 {
            self.lines.shrink_to(self.lines.len() * 2);
        }
        freed
    }
}

/// The last lines of every container.
#[derive(Debug, Default)]
pub(crate) struct Rings {
    rings: BTreeMap<String, Ring>,
    bytes: usize,
}

impl Rings {
    pub(crate) const fn new() -> Self {
        Self { rings: BTreeMap::new(), bytes: 0 }
    }

    /// Keeps one line; old ones make room for it.
    pub(crate) fn push(&mut self, name: &str, millis: u64, text: &str) {
        if !self.rings.contains_key(name) {
            self.rings.insert(name.to_owned(), Ring::default());
        }
        let Some(ring) = self.rings.get_mut(name) else { return };
        let cost = text.len() + OVERHEAD;
        ring.lines.push_back(Line { millis, text: text.into() });
        ring.next += 1;
        ring.bytes += cost;
        self.bytes += cost;
        while ring.bytes > LARGEST_RING && ring.lines.len() > 1 {
            self.bytes -= ring.drop_oldest();
        }
        while self.bytes > ALL_RINGS {
            // Who has written most gives way.
            let largest = self.rings.values_mut().max_by_key(|ring| ring.bytes);
            match largest.map_or(0, Ring::drop_oldest) {
                0 => return,
                freed => self.bytes -= freed,
            }
        }
    }

    /// Returns the last lines, the oldest first, and the number of the line that comes next; nothing for a name that
    /// never wrote.
    pub(crate) fn last(&self, name: &str, lines: usize) -> Option<(Vec<Line>, u64)> {
        let ring = self.rings.get(name)?;
        let skip = ring.lines.len().saturating_sub(lines);
        Some((ring.lines.iter().skip(skip).cloned().collect(), ring.next))
    }

    /// Returns the lines from this number on, as far as they are still there.
    pub(crate) fn since(&self, name: &str, number: u64) -> (Vec<Line>, u64) {
        let Some(ring) = self.rings.get(name) else { return (Vec::new(), number) };
        let new = usize::try_from(ring.next.saturating_sub(number)).unwrap_or(usize::MAX);
        self.last(name, new).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| &*line.text).collect()
    }

    #[test]
    fn the_last_lines_come_with_their_times_and_the_oldest_first() {
        let mut rings = Rings::new();
        for (millis, text) in [(1, "a"), (2, "b"), (3, "c")] {
            rings.push("web", millis, text);
        }
        let (lines, next) = rings.last("web", 2).unwrap();
        assert_eq!((texts(&lines), next), (vec!["b", "c"], 3));
        assert_eq!(lines[0].millis, 2);
        assert_eq!(texts(&rings.last("web", 99).unwrap().0), ["a", "b", "c"]);
        assert_eq!(rings.last("web", 0).unwrap().0, []);
        assert!(rings.last("other", 9).is_none());
    }

    #[test]
    fn who_follows_gets_what_is_new_and_what_is_left_of_it() {
        let mut rings = Rings::new();
        assert_eq!(rings.since("web", 0), (Vec::new(), 0));
        rings.push("web", 0, "a");
        rings.push("web", 0, "b");
        let (lines, next) = rings.since("web", 1);
        assert_eq!((texts(&lines), next), (vec!["b"], 2));
        assert_eq!(rings.since("web", next), (Vec::new(), 2));
        for _ in 0..200 {
            rings.push("web", 0, &"x".repeat(4096));
        }
        let (lines, next) = rings.since("web", 2);
        assert!(lines.len() < 70 && next == 202, "{} {next}", lines.len());
    }

    #[test]
    fn neither_one_ring_nor_all_together_grow_beyond_their_bounds() {
        let mut rings = Rings::new();
        for n in 0..40_000 {
            rings.push("loud", n, "");
        }
        assert!(rings.rings["loud"].bytes <= LARGEST_RING);
        assert!(rings.rings["loud"].lines.capacity() <= 2 * LARGEST_RING / OVERHEAD);
        for ring in 0..64 {
            for _ in 0..100 {
                rings.push(&format!("ring {ring}"), 0, &"y".repeat(4096));
            }
        }
        assert!(rings.bytes <= ALL_RINGS);
        assert_eq!(rings.bytes, rings.rings.values().map(|ring| ring.bytes).sum::<usize>());
        // The quiet ones keep all that they have when others are loud.
        rings.push("quiet", 0, "here");
        for _ in 0..2000 {
            rings.push("loud", 0, &"z".repeat(4096));
        }
        assert_eq!(texts(&rings.last("quiet", 1).unwrap().0), ["here"]);
    }
}
