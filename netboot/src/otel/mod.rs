//! OpenTelemetry: every boot that has ended becomes a trace, and the log of the server goes to a collector too.
//!
//! ```text
//!  tracker ──(bounded, never waits)──▶ boots: some seconds later the boot is read ──▶ spans ──┐
//!                                                                                             ├──▶ client ──▶ collector
//!  log ──────(bounded, never waits)──▶ logs: a thread of its own, in batches ─────────────────┘
//! ```
//!
//! Nothing here may hold up a boot: what has no place, or does not arrive after some attempts, is counted and let go.

mod boots;
mod client;
mod logs;
mod spans;

use std::env;
use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{
    ExporterBuildError, LogExporter, Protocol, RetryPolicy, SpanExporter, WithExportConfig as _,
    WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::LogExporter as _;
use opentelemetry_sdk::trace::SpanExporter as _;
use tokio::time::Instant;

use self::client::Client;

pub(crate) use self::boots::{Ended, Follower};
pub(crate) use self::logs::{flush, layer};

/// Pauses between the attempts to export something.
const PAUSES: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(4)];
/// How often it is told at most that something was lost.
const TELL_AGAIN: Duration = Duration::from_secs(60);

/// What exports to a collector, and what knows why it could not.
#[derive(Debug)]
struct Exporter<E> {
    to: E,
    client: Client,
}

/// Returns what exports spans to the collector at a URL. The library reads `OTEL_EXPORTER_OTLP_HEADERS`.
fn span_exporter(collector: &str) -> Result<Exporter<SpanExporter>, ExporterBuildError> {
    let client = Client::default();
    let builder = SpanExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_retry_policy(RetryPolicy::disabled())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{collector}/v1/traces"));
    let mut to = builder.build()?;
    to.set_resource(&resource());
    Ok(Exporter { to, client })
}

/// The same for the log.
fn log_exporter(collector: &str) -> Result<Exporter<LogExporter>, ExporterBuildError> {
    let client = Client::default();
    let builder = LogExporter::builder()
        .with_http()
        .with_http_client(client.clone())
        .with_retry_policy(RetryPolicy::disabled())
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{collector}/v1/logs"));
    let mut to = builder.build()?;
    to.set_resource(&resource());
    Ok(Exporter { to, client })
}

/// Says who exports. `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` are read by the library and win.
fn resource() -> Resource {
    let named = env::var_os("OTEL_SERVICE_NAME").is_some()
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|text| text.contains("service.name="));
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let mut builder = Resource::builder();
    if !named {
        builder = builder.with_service_name("kiln");
    }
    builder
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attributes(host.map(|name| KeyValue::new("host.name", name)))
        .build()
}

/// Tries to export something, some times.
///
/// # Errors
///
/// Says what went wrong the last time.
async fn attempt<F: Future<Output = OTelSdkResult>>(
    client: &Client,
    mut export: impl FnMut() -> F,
) -> Result<(), String> {
    for pause in PAUSES {
        if export().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
    }
    export().await.map_err(|error| client.why(&error))
}

/// Counts what was not exported, and says so now and then. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Lost(Arc<Count>);

#[derive(Debug)]
struct Count {
    what: &'static str,
    lost: AtomicU64,
    told: Mutex<(u64, Option<Instant>)>,
}

impl Lost {
    fn new(what: &'static str) -> Self {
        Self(Arc::new(Count { what, lost: AtomicU64::new(0), told: Mutex::default() }))
    }

    fn add(&self, lost: usize) {
        self.0.lost.fetch_add(u64::try_from(lost).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }

    /// Warns where something was lost since the last time and that is long enough ago. Returns whether it did.
    fn tell(&self, why: &str, now: Instant) -> bool {
        let lost = self.count();
        let mut told = self.0.told.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, last) = *told;
        if lost == before || last.is_some_and(|last| now.duration_since(last) < TELL_AGAIN) {
            return false;
        }
        *told = (lost, Some(now));
        drop(told);
        let what = self.0.what;
        tracing::warn!(
            count = lost - before,
            of = what,
            error = why,
            "not exported to the collector"
        );
        true
    }
}

#[cfg(test)]
mod tests;
