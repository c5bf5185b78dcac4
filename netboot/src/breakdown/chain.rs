//! Which services made the machine wait.

/// One service coming up: when its turn came and when it was up, in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) from: u64,
    pub(super) to: u64,
}

/// A service that waited for another one starts within this time after it.
const AT_ONCE: u64 = 50;

/// Returns which of the spans form the chain that ended last, the first of them first: each began when the one before
/// it was up.
pub(super) fn last_chain(spans: &[Span]) -> Vec<usize> {
    let mut chain = Vec::new();
    let mut next = spans.iter().enumerate().max_by_key(|(_, span)| span.to);
    while let Some((index, span)) = next {
        chain.push(index);
        next = spans
            .iter()
            .enumerate()
            .filter(|(other, before)| {
                *other != index
                    && before.from < span.from
                    && before.to <= span.from
                    && span.from - before.to <= AT_ONCE
            })
            .max_by_key(|(_, before)| before.to);
    }
    chain.reverse();
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(spans: &[(&str, u64, u64)]) -> Vec<String> {
        let spans: Vec<Span> = spans
            .iter()
            .map(|&(name, from, to)| Span { name: name.to_owned(), from, to })
            .collect();
        last_chain(&spans).into_iter().map(|index| spans[index].name.clone()).collect()
    }

    #[test]
    fn the_chain_goes_back_from_the_service_that_was_up_last() {
        let spans = [("db", 0, 900), ("log", 0, 1_000), ("web", 905, 2_000), ("ssh", 1, 1_500)];
        assert_eq!(chain(&spans), ["db", "web"]);
    }

    #[test]
    fn services_side_by_side_are_no_chain() {
        assert_eq!(chain(&[("a", 0, 1_000), ("b", 2, 1_002), ("c", 1, 1_001)]), ["b"]);
        assert!(chain(&[]).is_empty());
    }

    #[test]
    fn spans_without_length_end() {
        assert_eq!(chain(&[("a", 5, 5), ("b", 5, 5)]), ["b"]);
    }
}
