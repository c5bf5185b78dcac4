//! What servers and systems tell of boots, and what they are told.

use std::net::IpAddr;

use kiln_inventory::{BootId, Phase};
use kiln_types::{Arch, Digest, ImageRef, Mac};
use serde::Deserialize;

/// One line that a booted system reports about itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "ReportText")]
pub struct Report {
    /// How far it is.
    pub phase: Phase,
    /// More about it.
    pub detail: String,
    /// Milliseconds since its kernel started.
    pub millis: Option<u64>,
    /// Milliseconds that it lasted, until then.
    pub took: Option<u64>,
}

/// A report as it comes: a newer kiln-init may have words that this server does not know, and they go into the detail.
#[derive(Deserialize)]
struct ReportText {
    phase: String,
    #[serde(default)]
    detail: String,
    #[serde(default)]
    millis: Option<u64>,
    #[serde(default)]
    took: Option<u64>,
}

impl From<ReportText> for Report {
    fn from(text: ReportText) -> Self {
        let ReportText { phase: word, mut detail, millis, took } = text;
        let phase = Phase::from(word.clone());
        if phase == Phase::Other {
            detail = format!("{word} {detail}").trim_end().to_owned();
        }
        Self { phase, detail, millis, took }
    }
}

/// What a booted system reports at one time.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// How long its kernel had run when it sent them, in milliseconds.
    pub uptime: Option<u64>,
    /// The lines.
    pub reports: Vec<Report>,
}

/// One file that was asked for, and what became of it.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Which part of the boot it is; [`Phase::Broken`] and [`Phase::Absent`] for what did not arrive.
    pub phase: Phase,
    /// Its name; after that and a colon, why it did not arrive.
    pub detail: String,
    /// What was sent of it.
    pub bytes: u64,
    /// How long it took.
    pub millis: u64,
    /// Blocks of TFTP that were sent more than once.
    pub resent: u64,
}

impl Transfer {
    /// Something that was asked for and cannot be had.
    pub fn absent(name: &str, why: &str) -> Self {
        let detail = format!("{name}: {why}");
        Self { phase: Phase::Absent, detail, bytes: 0, millis: 0, resent: 0 }
    }

    /// A file of so many bytes of which these were sent.
    pub fn of(phase: Phase, name: String, bytes: u64, total: u64, millis: u64) -> Self {
        if bytes == total {
            return Self { phase, detail: name, bytes, millis, resent: 0 };
        }
        let detail = format!("{name}: broke off after {bytes} of {total} bytes");
        Self { phase: Phase::Broken, detail, bytes, millis, resent: 0 }
    }
}

/// One packet of DHCP and its answer, in the words of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// What the machine sent.
    pub asked: &'static str,
    /// What it was answered with.
    pub answer: Option<&'static str>,
    /// Why.
    pub note: &'static str,
}

/// What the machine's own segment tells the system that boots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The boot.
    pub boot: BootId,
    /// Who asked.
    pub peer: IpAddr,
    /// Whether this server gave him his address in this boot.
    pub given: bool,
    /// What it proves itself with when it reports.
    pub token: String,
    /// Name of the machine.
    pub hostname: String,
    /// Interface it boots from.
    pub mac: Mac,
    /// Version it runs.
    pub version: Digest,
    /// Address of that interface while it boots.
    pub address: Option<IpAddr>,
    /// When the boot began, in milliseconds since 1970.
    pub started: i64,
}

/// What a running system is told to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NextPlan {
    /// The image it was chosen by.
    pub image: ImageRef,
    /// Digest of its manifest.
    pub version: Digest,
    /// Architecture it was built for.
    pub arch: Arch,
}

/// Why a request that names a boot is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootsError {
    /// No such boot is under way.
    #[error("no such boot is under way")]
    Unknown,
    /// The secret is wrong, used up, or comes from another address.
    #[error("the secret of this boot is wrong, used up, or comes from another address")]
    Forbidden,
    /// It told more than a boot may.
    #[error("this boot has told enough")]
    TooOften,
    /// The inventory cannot be written.
    #[error("the server cannot keep this now; try again later")]
    NotKept,
    /// The server stops.
    #[error("the server stops")]
    Stopping,
}
