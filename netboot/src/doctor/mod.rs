//! Finds what is wrong with this host or its network before machines do.
//!
//! Each file is one subject: it reads what the host says, and a pure function judges it. Nothing is changed, and nothing is
//! sent unless [`Asked::dhcp`] names an interface.

mod clock;
mod dhcp;
mod dhcp6;
mod files;
mod firewall;
mod images;
mod interface;
mod ports;

use std::fmt;

use serde::Serialize;

use crate::settings::Settings;

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// As it should be.
    Good,
    /// It cannot be told, or may do harm.
    Doubtful,
    /// Machines will not boot.
    Wrong,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Doubtful => "doubtful",
            Self::Wrong => "wrong",
        })
    }
}

/// What one check has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which check.
    pub check: &'static str,
    /// What it looked at: an interface, a port, a folder.
    pub subject: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What there is.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn good(check: &'static str, subject: impl Into<String>, found: impl Into<String>) -> Self {
        let (subject, found) = (subject.into(), found.into());
        Self { check, subject, verdict: Verdict::Good, found, remedy: None }
    }

    fn doubtful(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        let remedy = Some(remedy.into());
        Self { verdict: Verdict::Doubtful, remedy, ..Self::good(check, subject, found) }
    }

    fn wrong(
        check: &'static str,
        subject: impl Into<String>,
        found: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { verdict: Verdict::Wrong, ..Self::doubtful(check, subject, found, remedy) }
    }
}

/// What to look at beyond this host.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// Interfaces on which to ask for other DHCP servers.
    pub dhcp: Vec<String>,
}

/// Looks at everything.
pub async fn examine(settings: &Settings, asked: &Asked) -> Vec<Finding> {
    let mut findings = interface::examine(settings);
    findings.extend(ports::examine(settings));
    findings.extend(firewall::examine(settings));
    findings.extend(files::examine(settings));
    findings.extend(images::examine(settings).await);
    findings.extend(clock::examine());
    for interface in &asked.dhcp {
        // Side by side, since each only waits.
        let (four, six) =
            tokio::join!(dhcp::examine(settings, interface), dhcp6::examine(settings, interface));
        findings.extend(four.into_iter().chain(six));
    }
    findings
}
