//! Limits of one process: rlimits.

use std::fmt;
use std::str::FromStr;

use super::text::{as_text, short};

/// What can be limited (`getrlimit(2)`), without `RLIMIT_`.
const NAMES: [&str; 16] = [
    "AS",
    "CORE",
    "CPU",
    "DATA",
    "FSIZE",
    "LOCKS",
    "MEMLOCK",
    "MSGQUEUE",
    "NICE",
    "NOFILE",
    "NPROC",
    "RSS",
    "RTPRIO",
    "RTTIME",
    "SIGPENDING",
    "STACK",
];

/// A limit of the container's processes, written `name,soft,hard`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rlimit {
    /// Its name with `RLIMIT_`.
    pub kind: String,
    /// What a process gets; `u64::MAX` stands for no limit.
    pub soft: u64,
    /// How far a process can raise it.
    pub hard: u64,
}

impl FromStr for Rlimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').map(str::trim).collect();
        let [name, soft, hard] = parts.as_slice() else {
            return Err(format!("rlimit `{}` is not `name,soft,hard`", short(text)));
        };
        let upper = name.to_ascii_uppercase();
        let kind = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
        if !NAMES.contains(&kind) {
            return Err(format!(
                "unknown rlimit `{}`; known are {}",
                short(name),
                NAMES.join(", ").to_ascii_lowercase()
            ));
        }
        let number = |text: &str| {
            if text.eq_ignore_ascii_case("unlimited") {
                return Ok(u64::MAX);
            }
            text.parse().map_err(|_| {
                format!("`{}` in an rlimit is not a number or `unlimited`", short(text))
            })
        };
        let (soft, hard) = (number(soft)?, number(hard)?);
        if soft > hard {
            return Err(format!(
                "rlimit `{}` has a soft limit above its hard limit; write `name,soft,hard`",
                short(text)
            ));
        }
        Ok(Self { kind: format!("RLIMIT_{kind}"), soft, hard })
    }
}

impl fmt::Display for Rlimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.kind)?;
        for number in [self.soft, self.hard] {
            if number == u64::MAX {
                f.write_str(",unlimited")?;
            } else {
                write!(f, ",{number}")?;
            }
        }
        Ok(())
    }
}

as_text!(Rlimit);
