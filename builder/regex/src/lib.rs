//! `regex` as the container library, `oci-spec` and `oci-client` use it: for short texts and a handful of patterns, none of
//! which needs Unicode tables or automata, which are a tenth of kiln-init.

pub use regex_lite::{CaptureMatches, Captures, Error, Match, Regex, RegexBuilder};

#[cfg(test)]
mod tests {
    use super::*;

    /// Those of `oci-spec` and libcontainer.
    #[test]
    fn the_patterns_of_our_dependencies_mean_the_same() {
        let affinity = Regex::new(r"^(\d+(-\d+)?)(,\d+(-\d+)?)*$").unwrap();
        assert!(affinity.is_match("0-3,7") && !affinity.is_match("0-,7") && !affinity.is_match(""));
        let cache = Regex::new(
            r"^(?:L3|L3DATA|L3CODE):(?:\s|;)*(?:\w+\s*=\s*[[:xdigit:]]+)?(?:(?:\s*;+\s*)+\w+\s*=\s*[[:xdigit:]]+)*(?:\s|;)*$",
        );
        assert!(cache.unwrap().is_match("L3:0=ff;1=0f"));
        let pair = Regex::new(r"(\w+)\s*=\s*0*([[:xdigit:]]+)").unwrap();
        let pairs: Vec<_> =
            pair.captures_iter("0=00ff;1=f").map(|found| found[2].to_owned()).collect();
        assert_eq!(pairs, ["ff", "f"]);
        let large = RegexBuilder::new("(a{100}){100}").size_limit(10 << 20).build();
        assert!(large.unwrap().is_match(&"a".repeat(10_000)));
    }
}
