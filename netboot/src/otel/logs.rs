//! The log as OTLP: a layer that puts each event into a queue, and a thread that sends what is there in batches.

use std::fmt;
use std::sync::mpsc as blocking;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::InstrumentationScope;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::LogExporter;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{
    LogBatch, LogExporter as _, LogProcessor, SdkLogRecord, SdkLogger, SdkLoggerProvider,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::Context;
use tracing_subscriber::registry::LookupSpan;

use super::{Exporter, Lost};

/// Lines that may wait, and those that are sent at a time.
const QUEUE: usize = 4096;
const MOST: usize = 512;
/// How long the first line of a batch waits for others.
const LINGER: Duration = Duration::from_secs(1);
/// How long the end of the program waits for the last lines.
const AT_LAST: Duration = Duration::from_secs(2);

/// Where the end of the program asks for what still waits.
static QUEUES: Mutex<Vec<mpsc::Sender<Item>>> = Mutex::new(Vec::new());

#[derive(Debug)]
enum Item {
    Line(Box<(SdkLogRecord, InstrumentationScope)>),
    Flush(blocking::SyncSender<()>),
}

/// Gives events of the log to the queue, but for those of the export itself, which would have no end.
pub(crate) struct Logs {
    bridge: OpenTelemetryTracingBridge<SdkLoggerProvider, SdkLogger>,
}

impl fmt::Debug for Logs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Logs").finish_non_exhaustive()
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Logs {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if !is_of_export(event.metadata().target()) {
            self.bridge.on_event(event, context);
        }
    }
}

/// Returns whether the export itself may say something under this name.
pub(super) fn is_of_export(target: &str) -> bool {
    const OWN: [&str; 7] =
        ["kiln::otel", "opentelemetry", "hyper", "rustls", "tokio", "mio", "want"];
    OWN.iter().any(|own| target.starts_with(own))
}

/// Starts the thread that sends the log to a collector, and returns what gives the log to it.
///
/// # Errors
///
/// Says what is wrong with the settings of the exporter.
pub(crate) fn layer(collector: &str) -> anyhow::Result<Logs> {
    let exporter = super::log_exporter(collector)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (queue, lines) = mpsc::channel(QUEUE);
    let lost = Lost::new("lines of the log");
    let counted = lost.clone();
    std::thread::Builder::new()
        .name("otlp".to_owned())
        .spawn(move || runtime.block_on(run(lines, exporter, counted)))?;
    QUEUES.lock().unwrap_or_else(PoisonError::into_inner).push(queue.clone());
    let processor = Processor { queue, lost };
    let provider = SdkLoggerProvider::builder().with_log_processor(processor).build();
    Ok(Logs { bridge: OpenTelemetryTracingBridge::new(&provider) })
}

/// Waits a moment until the last lines are sent, at the end of the program.
pub(crate) fn flush() {
    let queues = std::mem::take(&mut *QUEUES.lock().unwrap_or_else(PoisonError::into_inner));
    for queue in queues {
        let (done, sent) = blocking::sync_channel(1);
        if queue.try_send(Item::Flush(done)).is_ok() {
            // A collector that is away does not keep the program from ending.
            let _ = sent.recv_timeout(AT_LAST);
        }
    }
}

#[derive(Debug)]
pub(super) struct Processor {
    queue: mpsc::Sender<Item>,
    lost: Lost,
}

impl LogProcessor for Processor {
    fn emit(&self, record: &mut SdkLogRecord, scope: &InstrumentationScope) {
        let line = Box::new((record.clone(), scope.clone()));
        if self.queue.try_send(Item::Line(line)).is_err() {
            self.lost.add(1);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

async fn run(mut queue: mpsc::Receiver<Item>, exporter: Exporter<LogExporter>, lost: Lost) {
    let Exporter { to, client } = exporter;
    while let Some(first) = queue.recv().await {
        let (mut lines, mut asked) = (Vec::new(), None);
        let until = Instant::now() + LINGER;
        let mut next = Some(first);
        while let Some(item) = next {
            match item {
                Item::Line(line) => lines.push(line),
                Item::Flush(done) => asked = Some(done),
            }
            let full = lines.len() >= MOST || asked.is_some();
            next = match full {
                true => None,
                false => tokio::time::timeout_at(until, queue.recv()).await.ok().flatten(),
            };
        }
        let batch: Vec<_> = lines.iter().map(|line| (&line.0, &line.1)).collect();
        let why = match super::attempt(&client, || to.export(LogBatch::new(&batch))).await {
            Ok(()) => "there were more than could wait".to_owned(),
            Err(error) => {
                lost.add(batch.len());
                error
            }
        };
        lost.tell(&why, Instant::now());
        if let Some(done) = asked {
            // Who asked may have gone on.
            let _ = done.try_send(());
        }
    }
}
