//! Follows boots to their end, and exports each then.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use kiln_inventory::{Boot, BootId, Outcome};
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Exporter, Lost, spans};
use crate::api::BootDetail;

/// Boots that may wait: in the queue, and for their time.
const QUEUE: usize = 1024;
/// Boots in one request.
const MOST: usize = 32;
/// How often is looked whose time has come.
const LOOK: Duration = Duration::from_secs(1);
/// How long the end of the server waits for the last boots.
const AT_LAST: Duration = Duration::from_secs(3);

/// Who is told that a boot has ended. Never waits.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    queue: mpsc::Sender<(BootId, Outcome)>,
    lost: Lost,
}

impl Ended {
    pub(crate) fn tell(&self, boot: &Boot) {
        if self.queue.try_send((boot.id, boot.outcome)).is_err() {
            self.lost.add(1);
        }
    }
}

/// How long after its end a boot is exported.
#[derive(Clone, Copy, Debug)]
pub(super) struct Grace {
    /// Its last events reach the disk in that time.
    pub(super) ended: Duration,
    /// One that failed may come up after all.
    pub(super) failed: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self { ended: Duration::from_secs(5), failed: Duration::from_secs(60) }
    }
}

/// The task that exports boots.
#[derive(Debug)]
pub(crate) struct Follower {
    ended: mpsc::Receiver<(BootId, Outcome)>,
    due: HashMap<BootId, Instant>,
    exporter: Exporter<SpanExporter>,
    grace: Grace,
    pub(super) lost: Lost,
}

impl Follower {
    /// Makes it for the collector at a URL, with the way to it.
    ///
    /// # Errors
    ///
    /// Says what is wrong with the settings of the exporter.
    pub(crate) fn new(collector: &str) -> anyhow::Result<(Ended, Self)> {
        Self::with(collector, Grace::default())
    }

    pub(super) fn with(collector: &str, grace: Grace) -> anyhow::Result<(Ended, Self)> {
        let exporter = super::span_exporter(collector)?;
        let (queue, ended) = mpsc::channel(QUEUE);
        let lost = Lost::new("boots");
        let follower = Self { ended, due: HashMap::new(), exporter, grace, lost: lost.clone() };
        Ok((Ended { queue, lost }, follower))
    }

    /// Exports boots until told to stop; `read` looks one up. Boots in `before` have ended already.
    pub(crate) async fn run<F>(
        mut self,
        before: Vec<Boot>,
        read: impl Fn(BootId) -> F,
        stop: CancellationToken,
    ) where
        F: Future<Output = Option<BootDetail>>,
    {
        for boot in before {
            self.waits(boot.id, boot.outcome);
        }
        loop {
            let due = !self.due.is_empty();
            tokio::select! {
                () = stop.cancelled() => break,
                ended = self.ended.recv() => match ended {
                    Some((boot, outcome)) => self.waits(boot, outcome),
                    None => break,
                },
                () = tokio::time::sleep(LOOK.min(self.grace.ended)), if due => {}
            }
            let now = Instant::now();
            let ready = |due: &Instant| *due <= now;
            if self.due.values().any(ready) {
                tokio::select! {
                    () = self.export(now, &read) => {}
                    () = stop.cancelled() => break,
                }
            }
        }
        while let Ok((boot, outcome)) = self.ended.try_recv() {
            self.waits(boot, outcome);
        }
        let longest = Instant::now() + self.grace.failed + self.grace.ended;
        // A collector that is away does not keep the server from ending.
        let _ = tokio::time::timeout(AT_LAST, self.export(longest, &read)).await;
    }

    fn waits(&mut self, boot: BootId, outcome: Outcome) {
        if self.due.len() >= QUEUE && !self.due.contains_key(&boot) {
            self.lost.add(1);
            return;
        }
        let grace = match outcome {
            Outcome::Failed => self.grace.failed,
            _ => self.grace.ended,
        };
        self.due.insert(boot, Instant::now() + grace);
    }

    /// Exports what has waited until then.
    async fn export<F>(&mut self, until: Instant, read: impl Fn(BootId) -> F)
    where
        F: Future<Output = Option<BootDetail>>,
    {
        let ready = self.due.iter().filter(|(_, due)| **due <= until);
        let mut ready: Vec<BootId> = ready.map(|(boot, _)| *boot).collect();
        ready.sort_unstable();
        for boots in ready.chunks(MOST) {
            let mut batch = Vec::new();
            let mut count = 0;
            for boot in boots {
                match read(*boot).await {
                    // Kept no longer, or its end was not written.
                    None => self.lost.add(1),
                    Some(detail) => {
                        count += 1;
                        batch.extend(spans::spans(&detail));
                    }
                }
            }
            let mut why = "they cannot be read, or were more than could wait".to_owned();
            if !batch.is_empty() {
                let Exporter { to, client } = &self.exporter;
                if let Err(error) = super::attempt(client, || to.export(batch.clone())).await {
                    self.lost.add(count);
                    why = error;
                }
            }
            // Not before: who is told to stop in the middle exports them again at last.
            for boot in boots {
                self.due.remove(boot);
            }
            self.lost.tell(&why, Instant::now());
        }
    }
}
