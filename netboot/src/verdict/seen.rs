//! What a timeline has of each stage.

use kiln_inventory::{BootEvent, Phase};

use super::{Story, lasting};

/// What happened, in the order in which it can.
#[derive(Debug, Default)]
pub(super) struct Seen<'a> {
    /// How often the firmware or a loader in the card asked for an address.
    pub(super) discovers: usize,
    /// Whether an address was offered.
    pub(super) offered: bool,
    /// Whether the firmware took an address of ours.
    pub(super) has_address: bool,
    /// Whether it took that of another server.
    pub(super) other_server: bool,
    /// Whether iPXE asked for an address.
    pub(super) ipxe: bool,
    /// The last thing that was asked for and is not there, unless it was had later.
    pub(super) absent: Option<&'a str>,
    /// The last transfer that broke off, unless it was made up for.
    pub(super) broken: Option<&'a str>,
    /// The loader that arrived.
    pub(super) loader: Option<&'a str>,
    pub(super) script: bool,
    pub(super) kernel: bool,
    /// Names of the segments that arrived.
    pub(super) segments: Vec<&'a str>,
    /// Bytes of kernel and segments.
    pub(super) bytes: u64,
    /// Whether the system asked for an address.
    pub(super) system: bool,
    /// Whether the system has reported.
    pub(super) reports: bool,
    /// What the system said of a network card without an address, while nothing better is known.
    pub(super) no_network: Option<&'a str>,
    /// The last thing that the system waits for.
    pub(super) waiting: Option<&'a str>,
    /// The failures, the first one first.
    pub(super) failures: Vec<&'a BootEvent>,
    /// The last event but failures, in words.
    pub(super) last: Option<&'a BootEvent>,
    /// When something was heard for the last time.
    pub(super) heard: i64,
}

impl<'a> Seen<'a> {
    pub(super) fn of(story: &Story<'a>) -> Self {
        let mut seen = Self { heard: story.boot.started, ..Self::default() };
        for event in story.events {
            seen.take(event);
        }
        seen
    }

    fn take(&mut self, event: &'a BootEvent) {
        let detail = event.detail.as_str();
        self.heard = self.heard.max(event.at);
        if event.phase != Phase::Failed {
            self.last = Some(event);
        }
        match event.phase {
            Phase::Absent => self.absent = Some(detail),
            Phase::Broken => self.broken = Some(detail),
            Phase::Dhcp if detail.starts_with("system") => self.system = true,
            Phase::Dhcp => {
                self.ipxe |= detail.starts_with("ipxe");
                self.discovers += usize::from(detail.contains(" DISCOVER"));
                self.offered |= detail.contains(", OFFER");
                self.other_server |= detail.ends_with("chose another server");
                self.has_address |= [", ACK", ", BOOTREPLY", " gets "]
                    .into_iter()
                    .any(|words| detail.contains(words));
            }
            Phase::Loader => {
                self.loader = Some(detail);
                self.made_up_for();
                // One program with everything in it.
                if detail == "uki" {
                    (self.kernel, self.script) = (true, true);
                    self.segments.push(detail);
                    self.bytes += event.bytes.unwrap_or(0);
                }
            }
            Phase::Script | Phase::Kexec => {
                self.script = true;
                self.made_up_for();
            }
            Phase::Kernel => {
                self.kernel = true;
                self.bytes += event.bytes.unwrap_or(0);
                self.made_up_for();
            }
            Phase::Segment => {
                if !self.segments.contains(&detail) {
                    self.segments.push(detail);
                }
                self.bytes += event.bytes.unwrap_or(0);
                self.made_up_for();
            }
            Phase::Failed => {
                self.reports |= event.millis.is_some();
                self.failures.push(event);
            }
            Phase::Network => {
                self.reports = true;
                let lacks = detail.starts_with("no ") || detail.starts_with("going on without");
                self.no_network = lacks.then_some(detail);
            }
            Phase::Waiting => {
                self.reports = true;
                self.waiting = Some(detail);
            }
            Phase::Service => {
                self.reports = true;
                // It was this one that was waited for.
                let came = |waits: &&str| waits.split(':').next() != Some(detail);
                self.waiting = self.waiting.filter(came);
            }
            _ => self.reports = true,
        }
    }

    /// What arrives after a failure shows that it was tried again, and how that went.
    fn made_up_for(&mut self) {
        (self.absent, self.broken) = (None, None);
    }

    /// Returns whether the loader has everything that the kernel starts with.
    pub(super) fn has_all(&self, story: &Story<'_>) -> bool {
        let in_one = self.segments.iter().any(|name| ["uki", "initrd"].contains(name));
        // The machine's own comes with those of the version.
        let wanted = story.segments.map_or(2, |segments| segments + 1);
        self.kernel && (in_one || self.segments.len() >= wanted)
    }

    /// Says what was heard last.
    pub(super) fn last_words(&self) -> String {
        self.last.map_or_else(
            || "nothing".to_owned(),
            |event| format!("{} {}", event.phase, event.detail).trim_end().to_owned(),
        )
    }

    /// Returns how long nothing was heard until the end of the boot, or until now.
    pub(super) fn silence(&self, story: &Story<'_>) -> i64 {
        story.boot.ended.unwrap_or(story.now).saturating_sub(self.heard).max(0)
    }

    /// Says how long nothing was heard.
    pub(super) fn silent(&self, story: &Story<'_>) -> String {
        lasting(self.silence(story))
    }
}
