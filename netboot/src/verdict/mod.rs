//! What became of a boot, and why: one word, one sentence, and what to do. Found by rules from its timeline, never
//! stored, so that a better rule also explains boots of long ago.

mod loading;
mod running;
mod seen;

use kiln_inventory::{Boot, BootEvent, Order, Outcome};
use serde::{Deserialize, Serialize};

use self::seen::Seen;

/// Why a boot is as it is, for programs.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema,
)]
#[serde(rename_all = "kebab-case", from = "String")]
#[schema(as = VerdictCause)]
pub enum Cause {
    /// It goes on, as far as can be seen.
    UnderWay,
    /// Everything is up.
    Healthy,
    /// The inventory says that the machine does not get what it would boot.
    Refused,
    /// The firmware has not taken the address that it was offered, or that of another server.
    NoAddress,
    /// The firmware has an address and asked for no loader.
    NoLoader,
    /// The firmware asked for a loader that is not there.
    LoaderMissing,
    /// The loader did not arrive whole.
    LoaderBroken,
    /// The firmware does not trust the certificate of the server.
    Untrusted,
    /// The loader was fetched and is not heard of.
    StuckAfterLoader,
    /// The loader has its script and fetched no kernel.
    NoKernel,
    /// The kernel or a segment is not there.
    FileMissing,
    /// The kernel or a segment did not arrive whole.
    TransferBroken,
    /// The loader gave up for another reason.
    LoaderGaveUp,
    /// Everything was fetched, and no system is heard of.
    SilentKernel,
    /// The system asked for an address, and reported nothing.
    NoReports,
    /// Parts of the initrd are missing or damaged.
    NotWhole,
    /// The system has no address on a network card.
    NoNetwork,
    /// There is no state partition.
    NoState,
    /// An `onboot` container failed.
    OnbootFailed,
    /// A service ended, and is not started again, or will be.
    ServiceFailed,
    /// A service ends over and over.
    ServiceRestarts,
    /// The check of a service is not well.
    ServiceUnhealthy,
    /// The system says that something else failed.
    SystemFailed,
    /// The system runs and is not heard of any more.
    Stuck,
    /// The kernel said why it stopped.
    Crashed,
    /// It started anew without an order and without a word.
    PowerLost,
    /// It was told to start anew, to switch off, or to change its version.
    Ordered,
    /// It began anew while it was loading.
    Replaced,
    /// The server started anew while it was loading.
    ServerRestarted,
    /// Something that this Kiln has no word for.
    #[default]
    Other,
}

/// What became of a boot.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Verdict {
    /// For programs.
    pub cause: Cause,
    /// For people, in a sentence.
    pub reason: String,
    /// What to do about it, where something is to be done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub advice: String,
}

/// What the rules look at.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// The boot.
    pub boot: &'a Boot,
    /// Its timeline.
    pub events: &'a [BootEvent],
    /// The next boot of the machine, where there is one.
    pub next: Option<&'a Boot>,
    /// What the machine was told to do, at least in this boot.
    pub orders: &'a [Order],
    /// How many segments its version has, where that is known.
    pub segments: Option<usize>,
    /// What its kernel said last, where that was heard.
    pub console: &'a str,
    /// The time, in milliseconds since 1970.
    pub now: i64,
}

/// How long the firmware or the loader may be silent.
const LOADING: i64 = 60_000;
/// How long a kernel may take until its system reports.
const KERNEL: i64 = 120_000;
/// How long a system may take over one thing.
const SYSTEM: i64 = 300_000;
/// Who begins anew sooner after the last that was heard did not wait for anything.
const AT_ONCE: i64 = 5_000;

impl Verdict {
    /// Judges a boot.
    pub fn of(story: &Story<'_>) -> Self {
        let seen = Seen::of(story);
        match story.boot.outcome {
            Outcome::Healthy => running::healthy(story, &seen),
            Outcome::Failed => running::failed(story, &seen),
            Outcome::Booting | Outcome::Abandoned if seen.reports => {
                running::unfinished(story, &seen)
            }
            Outcome::Booting | Outcome::Abandoned => loading::unfinished(story, &seen),
        }
    }

    /// Returns whether the boot counts as under way and nothing comes any more.
    pub fn is_stuck(&self, outcome: Outcome) -> bool {
        outcome == Outcome::Booting && self.cause != Cause::UnderWay
    }

    fn new(cause: Cause, reason: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { cause, reason: reason.into(), advice: advice.into() }
    }
}

impl Cause {
    const ALL: [Self; 30] = [
        Self::UnderWay,
        Self::Healthy,
        Self::Refused,
        Self::NoAddress,
        Self::NoLoader,
        Self::LoaderMissing,
        Self::LoaderBroken,
        Self::Untrusted,
        Self::StuckAfterLoader,
        Self::NoKernel,
        Self::FileMissing,
        Self::TransferBroken,
        Self::LoaderGaveUp,
        Self::SilentKernel,
        Self::NoReports,
        Self::NotWhole,
        Self::NoNetwork,
        Self::NoState,
        Self::OnbootFailed,
        Self::ServiceFailed,
        Self::ServiceRestarts,
        Self::ServiceUnhealthy,
        Self::SystemFailed,
        Self::Stuck,
        Self::Crashed,
        Self::PowerLost,
        Self::Ordered,
        Self::Replaced,
        Self::ServerRestarted,
        Self::Other,
    ];

    /// Returns the word that listings show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::UnderWay => "under-way",
            Self::Healthy => "healthy",
            Self::Refused => "refused",
            Self::NoAddress => "no-address",
            Self::NoLoader => "no-loader",
            Self::LoaderMissing => "loader-missing",
            Self::LoaderBroken => "loader-broken",
            Self::Untrusted => "untrusted",
            Self::StuckAfterLoader => "stuck-after-loader",
            Self::NoKernel => "no-kernel",
            Self::FileMissing => "file-missing",
            Self::TransferBroken => "transfer-broken",
            Self::LoaderGaveUp => "loader-gave-up",
            Self::SilentKernel => "silent-kernel",
            Self::NoReports => "no-reports",
            Self::NotWhole => "not-whole",
            Self::NoNetwork => "no-network",
            Self::NoState => "no-state",
            Self::OnbootFailed => "onboot-failed",
            Self::ServiceFailed => "service-failed",
            Self::ServiceRestarts => "service-restarts",
            Self::ServiceUnhealthy => "service-unhealthy",
            Self::SystemFailed => "system-failed",
            Self::Stuck => "stuck",
            Self::Crashed => "crashed",
            Self::PowerLost => "power-lost",
            Self::Ordered => "ordered",
            Self::Replaced => "replaced",
            Self::ServerRestarted => "server-restarted",
            Self::Other => "other",
        }
    }
}

impl From<String> for Cause {
    fn from(word: String) -> Self {
        Self::ALL.into_iter().find(|cause| cause.as_str() == word).unwrap_or(Self::Other)
    }
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// Writes how long something took as people say it.
fn lasting(millis: i64) -> String {
    let seconds = millis.max(0) / 1000;
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests;
