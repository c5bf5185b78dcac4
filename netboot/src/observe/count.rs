//! What the server counts while it works: one atomic addition each.
//!
//! There is one set for the process, as there is one server in it. What another part knows anyway, such as leases or
//! transfers by TFTP, is not counted here again but asked for when somebody looks.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use super::by_image::ByImage;
use super::phases::Phases;
use super::rivals::Rivals;
use crate::dhcp::{self, v6};

/// The counters of this process.
pub static COUNTS: Counts = Counts::new();

/// A number that only grows.
#[derive(Debug)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds to it.
    pub fn add(&self, by: u64) {
        self.0.fetch_add(by, Ordering::Relaxed);
    }

    /// Returns it.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How long things took, by bounds in seconds.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    bounds: [f64; N],
    /// How many took at most as long as the bound, and longer than the one before.
    counts: [Counter; N],
    more: Counter,
    micros: Counter,
}

impl<const N: usize> Histogram<N> {
    pub(super) const fn new(bounds: [f64; N]) -> Self {
        let counts = [const { Counter::new() }; N];
        Self { bounds, counts, more: Counter::new(), micros: Counter::new() }
    }

    /// Counts one.
    pub fn observe(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        let at = self.bounds.iter().position(|bound| seconds <= *bound);
        at.and_then(|at| self.counts.get(at)).unwrap_or(&self.more).add(1);
        self.micros.add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// Returns bounds with how many took no longer, how many there are, and their sum in seconds.
    pub fn read(&self) -> (Vec<(f64, u64)>, u64, f64) {
        let mut count = 0;
        let mut buckets = Vec::with_capacity(N);
        for (bound, counter) in self.bounds.iter().zip(&self.counts) {
            count += counter.get();
            buckets.push((*bound, count));
        }
        (buckets, count + self.more.get(), self.micros.get() as f64 / 1e6)
    }
}

/// What a path of the boot plane is about. Paths themselves have no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Loaders.
    Loader,
    /// Kernels and segments.
    Blob,
    /// Boot scripts.
    Script,
    /// Segments of machines.
    Machine,
    /// Reports of systems.
    PhoneHome,
    /// Orders, facts and logs.
    Agent,
    /// NoCloud, Ignition and the like.
    Metadata,
    /// Files that are made for one machine, and what there is not.
    Other,
}

impl Route {
    /// Each with the word of its label.
    pub const ALL: [(Self, &'static str); 8] = [
        (Self::Loader, "loader"),
        (Self::Blob, "blob"),
        (Self::Script, "script"),
        (Self::Machine, "machine"),
        (Self::PhoneHome, "phone-home"),
        (Self::Agent, "agent"),
        (Self::Metadata, "metadata"),
        (Self::Other, "other"),
    ];

    /// Returns what a path is about.
    pub fn of(path: &str) -> Self {
        match path.trim_start_matches('/').split('/').next() {
            Some("loader" | "grub") => Self::Loader,
            Some("blob") => Self::Blob,
            Some("script") => Self::Script,
            Some("machine") => Self::Machine,
            Some("phone-home" | "failed") => Self::PhoneHome,
            Some("agent") => Self::Agent,
            Some("nocloud" | "ignition" | "metadata") => Self::Metadata,
            _ => Self::Other,
        }
    }
}

/// The words for what DHCP clients ask, in the order of the counters.
pub const ASKED: [&str; 6] = ["discover", "request", "decline", "release", "inform", "bootp"];
/// The words for what they get.
pub const RESULTS: [&str; 6] = ["offer", "ack", "nak", "bootreply", "silent", "other-server"];
/// The words for what clients of DHCPv6 ask, in the order of the counters.
pub const ASKED6: [&str; 8] =
    ["solicit", "request", "confirm", "renew", "rebind", "release", "decline", "inform"];
/// The words for what they get.
pub const RESULTS6: [&str; 4] = ["advertise", "reply", "silent", "other-server"];
/// The classes of answers over HTTP.
pub const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];
/// The words for replies of DHCP.
pub const REPLIES: [&str; 4] = ["offer", "ack", "nak", "bootreply"];
/// Those of DHCPv6.
pub const REPLIES6: [&str; 2] = ["advertise", "reply"];
/// The words for what became of a reply.
pub const SENT: [&str; 2] = ["sent", "failed"];

/// Everything that is counted.
#[derive(Debug)]
pub struct Counts {
    /// DHCP packets by what was asked and what came of it.
    pub dhcp: [[Counter; RESULTS.len()]; ASKED.len()],
    /// Replies by kind, and whether they could be sent.
    pub dhcp_replies: [[Counter; SENT.len()]; REPLIES.len()],
    /// Packets that make no sense.
    pub dhcp_malformed: Counter,
    /// Packets of clients that send too many.
    pub dhcp_flood: Counter,
    /// The same of DHCPv6.
    pub dhcp6: [[Counter; RESULTS6.len()]; ASKED6.len()],
    /// The same of replies of DHCPv6.
    pub dhcp6_replies: [[Counter; SENT.len()]; REPLIES6.len()],
    /// Packets of DHCPv6 that make no sense.
    pub dhcp6_malformed: Counter,
    /// Packets of senders of DHCPv6 that send too many.
    pub dhcp6_flood: Counter,
    /// From a DISCOVER to its OFFER, the look whether the address is free among it.
    pub offer: Histogram<10>,
    /// Answers over HTTP by route and class.
    pub http: [[Counter; CLASSES.len()]; Route::ALL.len()],
    /// Bytes of their bodies.
    pub http_bytes: [Counter; Route::ALL.len()],
    /// Answers on their way.
    pub http_now: AtomicI64,
    /// Other DHCP servers.
    pub rivals: Rivals,
    /// Boots.
    pub boots: ByImage,
    /// From the first packet to healthy.
    pub healthy: Histogram<12>,
    /// What the phases of those take.
    pub phases: Phases,
    /// Components of images that builds of the server took from what was made before.
    pub reused: Counter,
    /// Those that they made.
    pub made: Counter,
    /// Writes of timelines.
    pub store: Histogram<10>,
    /// Those that failed.
    pub store_failures: Counter,
    /// Events that wait to be written.
    pub backlog: AtomicI64,
    /// Events that were lost.
    pub lost: Counter,
    /// Requests with a wrong secret of a boot.
    pub refused: Counter,
}

impl Counts {
    const fn new() -> Self {
        const QUICK: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.5];
        Self {
            dhcp: [const { [const { Counter::new() }; RESULTS.len()] }; ASKED.len()],
            dhcp_replies: [const { [const { Counter::new() }; SENT.len()] }; REPLIES.len()],
            dhcp_malformed: Counter::new(),
            dhcp_flood: Counter::new(),
            dhcp6: [const { [const { Counter::new() }; RESULTS6.len()] }; ASKED6.len()],
            dhcp6_replies: [const { [const { Counter::new() }; SENT.len()] }; REPLIES6.len()],
            dhcp6_malformed: Counter::new(),
            dhcp6_flood: Counter::new(),
            offer: Histogram::new(QUICK),
            http: [const { [const { Counter::new() }; CLASSES.len()] }; Route::ALL.len()],
            http_bytes: [const { Counter::new() }; Route::ALL.len()],
            http_now: AtomicI64::new(0),
            rivals: Rivals::new(),
            boots: ByImage::new(),
            healthy: Histogram::new([
                5.0, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0,
            ]),
            phases: Phases::new(),
            reused: Counter::new(),
            made: Counter::new(),
            store: Histogram::new(QUICK),
            store_failures: Counter::new(),
            backlog: AtomicI64::new(0),
            lost: Counter::new(),
            refused: Counter::new(),
        }
    }

    /// Counts a DHCP packet.
    pub fn packet(&self, event: &dhcp::DhcpEvent) {
        let asked = match event.asked {
            dhcp::Kind::Discover => 0,
            dhcp::Kind::Request => 1,
            dhcp::Kind::Decline => 2,
            dhcp::Kind::Release => 3,
            dhcp::Kind::Inform => 4,
            dhcp::Kind::Bootp => 5,
        };
        let result = match event.kind {
            Some(dhcp::ReplyKind::Offer) => 0,
            Some(dhcp::ReplyKind::Ack) => 1,
            Some(dhcp::ReplyKind::Nak) => 2,
            Some(dhcp::ReplyKind::Bootp) => 3,
            None if event.note == dhcp::Note::OtherServer => 5,
            None => 4,
        };
        if let Some(counter) = self.dhcp.get(asked).and_then(|results| results.get(result)) {
            counter.add(1);
        }
    }

    /// Counts a reply of DHCP, and whether it could be sent.
    pub fn reply(&self, kind: dhcp::ReplyKind, sent: bool) {
        let at = match kind {
            dhcp::ReplyKind::Offer => 0,
            dhcp::ReplyKind::Ack => 1,
            dhcp::ReplyKind::Nak => 2,
            dhcp::ReplyKind::Bootp => 3,
        };
        if let Some([done, failed]) = self.dhcp_replies.get(at) {
            if sent { done } else { failed }.add(1);
        }
    }

    /// Counts a reply of DHCPv6.
    pub fn reply6(&self, kind: v6::ReplyKind, sent: bool) {
        let at = match kind {
            v6::ReplyKind::Advertise => 0,
            v6::ReplyKind::Reply => 1,
        };
        if let Some([done, failed]) = self.dhcp6_replies.get(at) {
            if sent { done } else { failed }.add(1);
        }
    }

    /// Counts a packet of DHCPv6.
    pub fn packet6(&self, what: v6::Counted) {
        let (asked, reply, note) = match what {
            v6::Counted::Answered { asked, reply, note } => (asked, reply, note),
            v6::Counted::Malformed => return self.dhcp6_malformed.add(1),
            v6::Counted::Flood => return self.dhcp6_flood.add(1),
        };
        let asked = match asked {
            v6::Kind::Solicit => 0,
            v6::Kind::Request => 1,
            v6::Kind::Confirm => 2,
            v6::Kind::Renew => 3,
            v6::Kind::Rebind => 4,
            v6::Kind::Release => 5,
            v6::Kind::Decline => 6,
            v6::Kind::Inform => 7,
        };
        let result = match reply {
            Some(v6::ReplyKind::Advertise) => 0,
            Some(v6::ReplyKind::Reply) => 1,
            None if note == v6::Note::OtherServer => 3,
            None => 2,
        };
        if let Some(counter) = self.dhcp6.get(asked).and_then(|results| results.get(result)) {
            counter.add(1);
        }
    }

    /// Counts an answer over HTTP.
    pub fn answer(&self, route: Route, status: u16) {
        let class = match status {
            ..300 => 0,
            300..400 => 1,
            400..500 => 2,
            500.. => 3,
        };
        if let Some(counter) = self.http.get(route as usize).and_then(|classes| classes.get(class))
        {
            counter.add(1);
        }
    }

    /// Counts what was sent of the body of an answer.
    pub fn sent(&self, route: Route, bytes: u64) {
        if let Some(counter) = self.http_bytes.get(route as usize) {
            counter.add(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_counts_what_took_no_longer_than_each_bound() {
        let histogram = Histogram::new([0.001, 0.1, 1.0]);
        for micros in [500, 1_000, 1_001, 50_000, 2_000_000] {
            histogram.observe(Duration::from_micros(micros));
        }
        let (buckets, count, sum) = histogram.read();
        assert_eq!(buckets, [(0.001, 2), (0.1, 4), (1.0, 4)]);
        assert_eq!(count, 5);
        assert!((sum - 2.052_501).abs() < 1e-9, "{sum}");
    }

    #[test]
    fn a_path_of_any_kind_is_one_of_a_few_routes() {
        for (path, route) in [
            ("/blob/abc/vmlinuz", Route::Blob),
            ("//blob", Route::Blob),
            ("/failed/3", Route::PhoneHome),
            ("/52-54-00-77-00-01/kernel", Route::Other),
            ("", Route::Other),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
        for (at, (route, _)) in Route::ALL.iter().enumerate() {
            assert_eq!(*route as usize, at);
        }
    }
}
