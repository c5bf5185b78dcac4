use std::cmp::Ordering;
use std::fmt;

/// A Debian package version: `[epoch:]upstream[-revision]`, ordered as deb-version(7) says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Version(String);

impl Version {
    /// Wraps the text of a version. Every text has a place in the order.
    pub fn new(text: &str) -> Self {
        Self(text.trim().to_owned())
    }

    /// Returns the version as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parts(&self) -> (&str, &str, &str) {
        let (epoch, rest) = self.0.split_once(':').unwrap_or(("0", &self.0));
        let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
        (epoch, upstream, revision)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Ord for Version {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (self.parts(), other.parts());
        compare(a.0, b.0).then_with(|| compare(a.1, b.1)).then_with(|| compare(a.2, b.2)).then_with(
            // Only so that the order agrees with equality: `1.0` and `1.00` are the same version to Debian.
            || self.0.cmp(&other.0),
        )
    }
}

impl PartialOrd for Version {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A bound on a version, as in `libc6 (>= 2.36)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// How the versions must compare.
    pub op: Op,
    /// What to compare with.
    pub version: Version,
}

/// How a package's version must compare with that of a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// `<<`
    Earlier,
    /// `<=`, and the old `<`
    AtMost,
    /// `=`
    Equal,
    /// `>=`, and the old `>`
    AtLeast,
    /// `>>`
    Later,
}

impl Op {
    /// Reads an operator at the beginning of a text and returns what follows it.
    pub(crate) fn split(text: &str) -> Option<(Self, &str)> {
        const OPS: [(&str, Op); 7] = [
            ("<<", Op::Earlier),
            (">>", Op::Later),
            ("<=", Op::AtMost),
            (">=", Op::AtLeast),
            ("=", Op::Equal),
            ("<", Op::AtMost),
            (">", Op::AtLeast),
        ];
        OPS.iter().find_map(|(sign, op)| text.strip_prefix(sign).map(|rest| (*op, rest)))
    }
}

impl Bound {
    /// Returns whether a version is within the bound.
    pub fn allows(&self, version: &Version) -> bool {
        let (a, b) = (version.parts(), self.version.parts());
        let order =
            compare(a.0, b.0).then_with(|| compare(a.1, b.1)).then_with(|| compare(a.2, b.2));
        match self.op {
            Op::Earlier => order.is_lt(),
            Op::AtMost => order.is_le(),
            Op::Equal => order.is_eq(),
            Op::AtLeast => order.is_ge(),
            Op::Later => order.is_gt(),
        }
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.op {
            Op::Earlier => "<<",
            Op::AtMost => "<=",
            Op::Equal => "=",
            Op::AtLeast => ">=",
            Op::Later => ">>",
        };
        write!(f, "{sign} {}", self.version)
    }
}

/// Compares two upstream versions or revisions: runs of other characters and runs of digits, in turn.
fn compare(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let (a_text, a_rest) = split(a, |c| !c.is_ascii_digit());
        let (b_text, b_rest) = split(b, |c| !c.is_ascii_digit());
        let (a_number, a_next) = split(a_rest, |c| c.is_ascii_digit());
        let (b_number, b_next) = split(b_rest, |c| c.is_ascii_digit());
        let order = texts(a_text, b_text).then_with(|| numbers(a_number, b_number));
        if order.is_ne() {
            return order;
        }
        (a, b) = (a_next, b_next);
    }
    Ordering::Equal
}

fn split(text: &str, inside: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !inside(c)).unwrap_or(text.len()))
}

/// `~` comes before the end, the end before letters, letters before everything else.
fn texts(a: &str, b: &str) -> Ordering {
    const END: u32 = 1;
    let weight = |c: char| match c {
        '~' => 0,
        c if c.is_ascii_alphabetic() => 2 + u32::from(c),
        c => 0x100 + u32::from(c),
    };
    let ends = |text: &str| text.chars().map(weight).chain([END]).collect::<Vec<_>>();
    ends(a).cmp(&ends(b))
}

/// Numbers of any length, without parsing them.
fn numbers(a: &str, b: &str) -> Ordering {
    let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
    a.len().cmp(&b.len()).then_with(|| a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_dpkg_orders_them() {
        let rising = [
            "0~~a",
            "0~",
            "0",
            "0+b1",
            "1.0~rc1-1",
            "1.0-1",
            "1.0-1+b1",
            "1.0-1.1",
            "1.0-2",
            "1.0a-1",
            "1.0+dfsg-1",
            "1.0.1-1",
            "1.2-1",
            "1.10-1",
            "2-1~bpo1",
            "2-1",
            "99999999999999999999999999",
            "1:0",
            "1:1.0",
            "10:0",
        ];
        for (i, a) in rising.iter().enumerate() {
            for (j, b) in rising.iter().enumerate() {
                assert_eq!(Version::new(a).cmp(&Version::new(b)), i.cmp(&j), "{a} and {b}");
            }
        }
    }

    #[test]
    fn bounds_allow_what_they_say() {
        for (op, allowed) in
            [("<<", "100"), ("<=", "110"), ("=", "010"), (">=", "011"), (">>", "001"), ("<", "110")]
        {
            let (op, _) = Op::split(op).unwrap();
            let bound = Bound { op, version: Version::new("2.0") };
            let got: String = ["1", "2.00", "3"]
                .map(|v| if bound.allows(&Version::new(v)) { '1' } else { '0' })
                .iter()
                .collect();
            assert_eq!(got, allowed, "{bound}");
        }
    }

    #[test]
    fn fuzzed_versions_have_one_order() {
        kiln_fuzz::check(
            "deb-version",
            &[b"1:2.0~rc1-3+b1 0~~a", b"2 10", b"1.0-1 1.0"],
            |bytes| {
                let text = String::from_utf8_lossy(bytes);
                let (a, b) = text.split_once(' ').unwrap_or((&text, ""));
                let (a, b) = (Version::new(a), Version::new(b));
                assert_eq!(a.cmp(&b), b.cmp(&a).reverse());
                assert_eq!(a.cmp(&a), Ordering::Equal);
            },
        );
    }
}
