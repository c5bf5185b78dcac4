//! Every metric there is, on one page.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::atomic::Ordering;

use tokio::time::Instant;

use super::Observed;
use super::by_image::BOOTS;
use super::count::{
    ASKED, ASKED6, CLASSES, COUNTS, Counter, REPLIES, REPLIES6, RESULTS, RESULTS6, Route, SENT,
};
use super::process::Process;
use super::text::Page;
use crate::bake::Status;
use crate::boots::now_ms;
use crate::dhcp::v6;
use crate::settings::{Subnet6Settings, SubnetSettings};

impl Observed {
    /// Writes the page.
    pub(super) async fn page(&self) -> String {
        let mut page = Page::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.gauge("build_info", "The version of the server.").sample(&version, 1_u64);
        let health = self.health().await;
        page.gauge("ready", "Whether the server can do all its work (/readyz).")
            .sample(&[], health.is_ready());
        page.gauge("check_ok", "Each thing that has to be so for the server to be ready.");
        for check in &health.0 {
            page.sample(&[("check", check.name)], check.fault.is_none());
        }
        self.dhcp(&mut page);
        self.dhcp6(&mut page);
        self.pools(&mut page);
        self.tftp(&mut page);
        self.http(&mut page);
        self.boots(&mut page);
        self.images(&mut page);
        let has_fault = |name| health.0.iter().any(|it| it.name == name && it.fault.is_some());
        self.fleet(&mut page, !has_fault("store")).await;
        process(&mut page);
        page.finish()
    }

    fn dhcp(&self, page: &mut Page) {
        page.counter(
            "dhcp_packets_total",
            "DHCP packets: those that came, by what they were answered with, and those that left.",
        );
        packets(page, "in", &ASKED, &RESULTS, &COUNTS.dhcp);
        packets(page, "out", &REPLIES, &SENT, &COUNTS.dhcp_replies);
        page.counter("dhcp_dropped_total", "DHCP packets that were not looked at.")
            .sample(&[("reason", "malformed")], COUNTS.dhcp_malformed.get())
            .sample(&[("reason", "flood")], COUNTS.dhcp_flood.get());
        let help = "From a DISCOVER to its OFFER, the look whether the address is free among it.";
        page.histogram("dhcp_offer_seconds", help, &COUNTS.offer);
        page.gauge(
            "rogue_dhcp_servers",
            "Other DHCP servers that clients chose in the last hour where this one gives addresses.",
        )
        .sample(&[], COUNTS.rivals.count(Instant::now()));
        let used = self.used();
        page.gauge("dhcp_leases", "Leases that run, by subnet.");
        for subnet in &self.subnets {
            let count = used.iter().filter(|address| subnet.contains(**address)).count();
            page.sample(&[("subnet", &name(subnet))], count);
        }
    }

    fn dhcp6(&self, page: &mut Page) {
        page.counter(
            "dhcp6_packets_total",
            "DHCPv6 packets: those that came, by what they were answered with, and those that left.",
        );
        packets(page, "in", &ASKED6, &RESULTS6, &COUNTS.dhcp6);
        packets(page, "out", &REPLIES6, &SENT, &COUNTS.dhcp6_replies);
        page.counter("dhcp6_dropped_total", "DHCPv6 packets that were not looked at.")
            .sample(&[("reason", "malformed")], COUNTS.dhcp6_malformed.get())
            .sample(&[("reason", "flood")], COUNTS.dhcp6_flood.get());
        let used = self.leases6.used();
        page.gauge("dhcp6_leases", "Leases of IPv6 that run, by subnet.");
        for subnet in &self.subnets6 {
            let count = used.iter().filter(|address| subnet.contains(**address)).count();
            page.sample(&[("subnet", &name6(subnet))], count);
        }
    }

    fn pools(&self, page: &mut Page) {
        let (used, used6) = (self.used(), self.leases6.used());
        page.gauge(
            "pool_addresses",
            "Addresses of the pools, by subnet and whether they are leased.",
        );
        for subnet in &self.subnets {
            let size: usize = subnet.pool.iter().map(size).sum();
            let in_pool = |address: &&Ipv4Addr| subnet.pool.iter().any(|it| it.contains(*address));
            let leased = used.iter().filter(in_pool).count();
            let name = name(subnet);
            page.sample(&[("subnet", &name), ("state", "leased")], leased);
            page.sample(&[("subnet", &name), ("state", "free")], size.saturating_sub(leased));
        }
        for subnet in self.subnets6.iter().filter(|subnet| !subnet.pool.is_empty()) {
            let in_pool = |address: &&Ipv6Addr| subnet.pool.iter().any(|it| it.contains(*address));
            let leased = used6.iter().filter(in_pool).count();
            let free = v6::pool_size(&subnet.pool).saturating_sub(leased as u128);
            let name = name6(subnet);
            page.sample(&[("subnet", &name), ("state", "leased")], leased);
            page.sample(&[("subnet", &name), ("state", "free")], free as f64);
        }
    }

    /// Returns the addresses of IPv4 whose leases run.
    fn used(&self) -> Vec<Ipv4Addr> {
        let now = now_ms() / 1000;
        let leases = self.leases.leases().into_iter();
        leases.filter(|lease| lease.expires > now).map(|lease| lease.address).collect()
    }

    fn tftp(&self, page: &mut Page) {
        let counts: Vec<_> = self.tftp.iter().map(|stats| stats.counts()).collect();
        let sum = |of: fn(&crate::tftp::Counts) -> u64| counts.iter().map(of).sum::<u64>();
        page.counter("tftp_requests_total", "Requests by TFTP.")
            .sample(&[("result", "taken")], sum(|it| it.requests))
            .sample(&[("result", "malformed")], sum(|it| it.malformed))
            .sample(&[("result", "not-found")], sum(|it| it.not_found))
            .sample(&[("result", "refused")], sum(|it| it.refused));
        page.counter("tftp_transfers_total", "Transfers by TFTP and how they ended.")
            .sample(&[("result", "done")], sum(|it| it.done))
            .sample(&[("result", "probe")], sum(|it| it.probes))
            .sample(&[("result", "broken")], sum(|it| it.broken));
        page.gauge("tftp_transfers", "Transfers by TFTP under way.")
            .sample(&[], sum(|it| it.active));
        page.counter("tftp_bytes_total", "Bytes by TFTP that clients have acknowledged.")
            .sample(&[], sum(|it| it.bytes));
        page.counter("tftp_retransmits_total", "Blocks by TFTP that were sent more than once.")
            .sample(&[], sum(|it| it.resent));
    }

    fn http(&self, page: &mut Page) {
        page.counter("http_requests_total", "Answers of the boot plane by route and class.");
        for ((_, route), classes) in Route::ALL.iter().zip(&COUNTS.http) {
            for (class, counter) in CLASSES.iter().zip(classes) {
                page.sample(&[("route", *route), ("class", *class)], counter.get());
            }
        }
        page.counter("http_bytes_total", "Bytes of answers of the boot plane by what they are.");
        for ((_, route), counter) in Route::ALL.iter().zip(&COUNTS.http_bytes) {
            page.sample(&[("kind", *route)], counter.get());
        }
        page.gauge("http_in_flight", "Answers of the boot plane on their way.")
            .sample(&[], COUNTS.http_now.load(Ordering::Relaxed));
        page.gauge("http_queue", "Requests for large files that wait for their turn.")
            .sample(&[], self.transfers.waiting());
    }

    fn boots(&self, page: &mut Page) {
        page.counter("boots_total", "Boots by image and result; `started` counts all that began.");
        for (image, counts) in COUNTS.boots.read(self.view.snapshot().images.keys()) {
            for (result, count) in BOOTS.iter().zip(counts) {
                page.sample(&[("image", &image), ("result", *result)], count);
            }
        }
        let help = "From the first packet of a boot until everything is up.";
        page.histogram("boot_healthy_seconds", help, &COUNTS.healthy);
        let help = "What the phases of boots took that became healthy.";
        page.histograms("boot_phase_seconds", help);
        for (labels, histogram) in COUNTS.phases.each() {
            page.buckets(&labels, histogram);
        }
        page.histogram("store_write_seconds", "Writes of timelines.", &COUNTS.store);
        page.counter(
            "store_write_failures_total",
            "Writes of timelines that failed, and are tried again.",
        )
        .sample(&[], COUNTS.store_failures.get());
        page.gauge(
            "events_waiting",
            "Events of boots that wait to be taken in, and to be written.",
        )
        .sample(&[("where", "queue")], self.boots.waiting())
        .sample(&[("where", "store")], COUNTS.backlog.load(Ordering::Relaxed));
        page.counter("events_lost_total", "Events of boots that there was no room for.")
            .sample(&[], COUNTS.lost.get());
        page.counter(
            "secrets_refused_total",
            "Requests with a secret of a boot that is wrong, used up, or another's.",
        )
        .sample(&[], COUNTS.refused.get());
    }

    fn images(&self, page: &mut Page) {
        let mut builds: HashMap<&str, u64> = HashMap::new();
        for state in self.baker.states().iter().flat_map(|image| image.arches.values()) {
            *builds.entry(word(state.status)).or_default() += 1;
        }
        page.gauge("builds", "Images that the server builds, one for each architecture, by state.");
        for state in ["idle", "waiting", "building", "built", "failed"] {
            page.sample(&[("state", state)], builds.get(state).copied().unwrap_or(0));
        }
        page.gauge(
            "versions_refused",
            "Versions that are not served, as no trusted key has signed them.",
        )
        .sample(&[], self.view.refused().len());
        page.counter(
            "image_cache_hits_total",
            "Components of images that builds of the server took from what was made before.",
        )
        .sample(&[], COUNTS.reused.get());
        page.counter("image_cache_misses_total", "Those that they had to make.")
            .sample(&[], COUNTS.made.get());
        page.gauge("image_cache_bytes", "Bytes of the files of the versions that are served.")
            .sample(&[], self.view.served_bytes());
    }
}

/// Adds the packets of one direction.
fn packets<const RESULTS: usize>(
    page: &mut Page,
    direction: &str,
    kinds: &[&str],
    results: &[&str; RESULTS],
    counts: &[[Counter; RESULTS]],
) {
    for (kind, counters) in kinds.iter().zip(counts) {
        for (result, counter) in results.iter().zip(counters) {
            let labels = [("direction", direction), ("type", *kind), ("result", *result)];
            page.sample(&labels, counter.get());
        }
    }
}

fn process(page: &mut Page) {
    let process = Process::read();
    if let Some(bytes) = process.resident {
        page.gauge("process_resident_memory_bytes", "Memory of the server.").sample(&[], bytes);
    }
    if let Some(fds) = process.fds {
        page.gauge("process_open_fds", "Open files and sockets.").sample(&[], fds);
    }
    if let Some(most) = process.most_fds {
        page.gauge("process_max_fds", "How many there may be.").sample(&[], most);
    }
    if let Some(threads) = process.threads {
        page.gauge("process_threads", "Threads.").sample(&[], threads);
    }
}

const fn word(status: Status) -> &'static str {
    match status {
        Status::Idle => "idle",
        Status::Waiting => "waiting",
        Status::Building => "building",
        Status::Built => "built",
        Status::Failed => "failed",
    }
}

fn name(subnet: &SubnetSettings) -> String {
    format!("{}/{}", subnet.network, subnet.prefix)
}

fn name6(subnet: &Subnet6Settings) -> String {
    format!("{}/{}", subnet.network, subnet.prefix)
}

fn size(range: &std::ops::RangeInclusive<Ipv4Addr>) -> usize {
    let (first, last) = (range.start().to_bits(), range.end().to_bits());
    usize::try_from(last.saturating_sub(first)).unwrap_or(usize::MAX).saturating_add(1)
}
