use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use kiln_inventory::{Boot, BootEvent, BootId, Firmware, MachineId, Outcome, Phase};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue as WireKeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode as SpanStatus};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;

use super::boots::Grace;
use super::*;
use crate::api::BootDetail;
use crate::breakdown::Breakdown;
use crate::verdict::{Story, Verdict};

const START: i64 = 1_700_000_000_000;

/// Plays the collector: what arrives at which path.
struct Collector {
    url: String,
    heard: mpsc::UnboundedReceiver<(String, Bytes)>,
    away: Arc<AtomicBool>,
}

type Heard = (mpsc::UnboundedSender<(String, Bytes)>, Arc<AtomicBool>);

async fn collect(State((heard, away)): State<Heard>, uri: Uri, body: Bytes) -> StatusCode {
    if away.load(Ordering::Relaxed) {
        return StatusCode::SERVICE_UNAVAILABLE;
    }
    heard.send((uri.path().to_owned(), body)).unwrap();
    StatusCode::OK
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (sender, heard) = mpsc::unbounded_channel();
        let away = Arc::new(AtomicBool::new(false));
        let router = Router::new().fallback(collect).with_state((sender, away.clone()));
        tokio::spawn(axum::serve(listener, router).into_future());
        Self { url, heard, away }
    }

    async fn hear(&mut self, path: &str) -> Bytes {
        let heard = tokio::time::timeout(Duration::from_secs(60), self.heard.recv()).await;
        let (at, body) = heard.unwrap().unwrap();
        assert_eq!(at, path);
        body
    }

    async fn spans(&mut self) -> Vec<Span> {
        let request = ExportTraceServiceRequest::decode(self.hear("/v1/traces").await).unwrap();
        let resource = request.resource_spans[0].resource.as_ref().unwrap();
        assert_eq!(text(&resource.attributes, "service.name").as_deref(), Some("kiln"));
        assert!(text(&resource.attributes, "service.version").is_some());
        let scopes = request.resource_spans.into_iter().flat_map(|it| it.scope_spans);
        scopes.flat_map(|it| it.spans).collect()
    }

    async fn lines(&mut self) -> Vec<LogRecord> {
        let request = ExportLogsServiceRequest::decode(self.hear("/v1/logs").await).unwrap();
        let scopes = request.resource_logs.into_iter().flat_map(|it| it.scope_logs);
        scopes.flat_map(|it| it.log_records).collect()
    }
}

fn said(value: Option<&AnyValue>) -> Option<String> {
    match value?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        Value::IntValue(number) => Some(number.to_string()),
        _ => None,
    }
}

fn text(attributes: &[WireKeyValue], key: &str) -> Option<String> {
    said(attributes.iter().find(|it| it.key == key)?.value.as_ref())
}

/// A boot that fetched its loader and its kernel; the machine failed or came up.
fn detail(id: i64, outcome: Outcome) -> BootDetail {
    let boot = Boot {
        id: BootId(id),
        machine: MachineId(7),
        machine_name: "n1".to_owned(),
        mac: "52:54:00:00:00:01".parse().unwrap(),
        firmware: Some(Firmware::UefiX64Http),
        image: Some("web".parse().unwrap()),
        version: None,
        arch: None,
        address: Some("10.0.0.9".parse().unwrap()),
        started: START,
        outcome,
        ended: Some(START + 9_000),
        kernel_start: (outcome == Outcome::Healthy).then_some(START + 4_000),
    };
    let seen = |at, phase, name: &str| BootEvent {
        bytes: Some(1 << 20),
        millis: Some(500),
        ..BootEvent::new(START + at, phase, name)
    };
    let mut events = vec![
        BootEvent::new(START, Phase::Dhcp, "firmware"),
        seen(2_000, Phase::Loader, "ipxe.efi"),
        seen(3_000, Phase::Kernel, "kernel"),
    ];
    events.push(match outcome {
        Outcome::Healthy => {
            BootEvent { millis: Some(5_000), ..BootEvent::new(START + 9_000, Phase::Healthy, "") }
        }
        _ => BootEvent::new(START + 9_000, Phase::Failed, "no initrd"),
    });
    let breakdown = Breakdown::of(&boot, &events);
    let verdict = Verdict::of(&Story {
        boot: &boot,
        events: &events,
        next: None,
        orders: &[],
        segments: None,
        console: "",
        now: START + 20_000,
    });
    BootDetail { boot, events, breakdown, verdict, heard: Vec::new() }
}

const SOON: Grace = Grace { ended: Duration::from_millis(20), failed: Duration::from_millis(20) };

fn follow(
    url: &str,
    grace: Grace,
    outcome: Outcome,
) -> (Ended, Lost, CancellationToken, tokio::task::JoinHandle<()>) {
    let (ended, follower) = Follower::with(url, grace).unwrap();
    let (lost, stop) = (follower.lost.clone(), CancellationToken::new());
    // What has the number 0 is kept no longer.
    let read = move |id: BootId| async move { (id.0 > 0).then(|| detail(id.0, outcome)) };
    let task = tokio::spawn(follower.run(Vec::new(), read, stop.clone()));
    (ended, lost, stop, task)
}

#[tokio::test]
async fn a_boot_becomes_a_trace_with_a_span_for_each_step() {
    let mut collector = Collector::start().await;
    let (ended, lost, stop, task) = follow(&collector.url, SOON, Outcome::Healthy);
    let told = detail(5, Outcome::Healthy);
    ended.tell(&told.boot);
    let spans = collector.spans().await;
    assert_eq!(spans.len(), 1 + told.breakdown.steps.len());
    let root = &spans[0];
    let is = |key: &str| text(&root.attributes, key);
    assert_eq!((root.name.as_str(), root.parent_span_id.len()), ("boot", 0));
    assert_eq!(is("kiln.machine").as_deref(), Some("n1"));
    assert_eq!(is("kiln.boot.id").as_deref(), Some("5"));
    assert_eq!(is("kiln.image").as_deref(), Some("web"));
    assert_eq!(is("kiln.boot.outcome").as_deref(), Some("healthy"));
    assert_eq!(is("kiln.machine.firmware").as_deref(), Some("uefi-x64-http"));
    assert_eq!(is("kiln.boot.reason"), Some(told.verdict.reason));
    assert_eq!(root.status.as_ref().unwrap().code(), SpanStatus::Ok);
    let nano = |millis: u64| (u64::try_from(START).unwrap() + millis) * 1_000_000;
    assert_eq!(root.start_time_unix_nano, nano(0));
    assert_eq!(root.end_time_unix_nano, nano(9_000));
    for (span, step) in spans[1..].iter().zip(&told.breakdown.steps) {
        assert_eq!(span.name, step.name);
        assert_eq!(span.trace_id, root.trace_id);
        assert_eq!(span.parent_span_id, root.span_id);
        assert_eq!(span.start_time_unix_nano, nano(step.from));
        assert_eq!(span.end_time_unix_nano, nano(step.to));
    }
    let fetch = spans.iter().find(|span| span.name == "fetch kernel").unwrap();
    assert_eq!(text(&fetch.attributes, "kiln.step.bytes").as_deref(), Some("1048576"));
    let mut numbers: Vec<&[u8]> = spans.iter().map(|span| span.span_id.as_slice()).collect();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), spans.len());
    // Told again, it is the same trace.
    ended.tell(&told.boot);
    let again = collector.spans().await;
    assert_eq!((&again[0].trace_id, &again[0].span_id), (&root.trace_id, &root.span_id));
    stop.cancel();
    task.await.unwrap();
    assert_eq!(lost.count(), 0);
}

#[tokio::test]
async fn a_boot_that_failed_waits_and_is_exported_at_the_latest_when_the_server_ends() {
    let mut collector = Collector::start().await;
    let grace = Grace { failed: Duration::from_secs(3600), ..SOON };
    let (ended, _, stop, task) = follow(&collector.url, grace, Outcome::Failed);
    ended.tell(&detail(1, Outcome::Failed).boot);
    // The one after it does not wait.
    ended.tell(&detail(2, Outcome::Abandoned).boot);
    let first = collector.spans().await;
    assert_eq!(text(&first[0].attributes, "kiln.boot.id").as_deref(), Some("2"));
    stop.cancel();
    task.await.unwrap();
    let last = collector.spans().await;
    let root = &last[0];
    assert_eq!(text(&root.attributes, "kiln.boot.id").as_deref(), Some("1"));
    assert_eq!(text(&root.attributes, "kiln.boot.outcome").as_deref(), Some("failed"));
    let status = root.status.as_ref().unwrap();
    assert_eq!(status.code(), SpanStatus::Error);
    assert_eq!(Some(&status.message), text(&root.attributes, "kiln.boot.reason").as_ref());
}

#[tokio::test]
async fn what_cannot_be_exported_is_counted_and_holds_up_nobody() {
    let collector = Collector::start().await;
    collector.away.store(true, Ordering::Relaxed);
    let (ended, lost, stop, task) = follow(&collector.url, SOON, Outcome::Healthy);
    let mut boot = detail(0, Outcome::Healthy).boot;
    let began = Instant::now();
    for id in 0..5_000 {
        boot.id = BootId(id);
        ended.tell(&boot);
    }
    // Nothing of it waited for the collector.
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(lost.count() >= 5_000 - 2 * 1024 - 32, "{}", lost.count());
    stop.cancel();
    // The end of the server does not wait for all attempts either.
    tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_what_was_tried_again() {
    let mut collector = Collector::start().await;
    collector.away.store(true, Ordering::Relaxed);
    let (ended, lost, stop, task) = follow(&collector.url, SOON, Outcome::Healthy);
    ended.tell(&detail(3, Outcome::Healthy).boot);
    tokio::time::sleep(Duration::from_millis(300)).await;
    collector.away.store(false, Ordering::Relaxed);
    let spans = collector.spans().await;
    assert_eq!(text(&spans[0].attributes, "kiln.boot.id").as_deref(), Some("3"));
    stop.cancel();
    task.await.unwrap();
    assert_eq!(lost.count(), 0);
}

#[tokio::test]
async fn the_log_arrives_with_its_fields_and_without_what_the_export_says() {
    let mut collector = Collector::start().await;
    let log = tracing_subscriber::registry().with(layer(&collector.url).unwrap());
    tracing::subscriber::with_default(log, || {
        tracing::info!(target: "kiln::boots", boot = 5, machine = "n1", took_ms = 9_000, "healthy");
        tracing::warn!("not exported to the collector");
        tracing::warn!(target: "hyper::proto", "closed");
    });
    let lines = collector.lines().await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    let line = &lines[0];
    assert_eq!(said(line.body.as_ref()).as_deref(), Some("healthy"));
    assert_eq!(line.severity_text, "INFO");
    assert_eq!(text(&line.attributes, "machine").as_deref(), Some("n1"));
    assert_eq!(text(&line.attributes, "boot").as_deref(), Some("5"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_the_program_sends_the_last_lines() {
    let mut collector = Collector::start().await;
    let log = tracing_subscriber::registry().with(layer(&collector.url).unwrap());
    tracing::subscriber::with_default(log, || {
        tracing::info!(target: "kiln::serve", "stopping");
    });
    tokio::task::spawn_blocking(flush).await.unwrap();
    assert_eq!(said(collector.lines().await[0].body.as_ref()).as_deref(), Some("stopping"));
}

#[test]
fn losses_are_told_once_a_minute_with_their_number() {
    let (lost, now) = (Lost::new("boots"), Instant::now());
    assert!(!lost.tell("away", now));
    lost.add(3);
    assert!(lost.tell("away", now));
    lost.add(1);
    assert!(!lost.tell("away", now));
    let later = now + TELL_AGAIN;
    assert!(lost.tell("away", later) && !lost.tell("away", later + TELL_AGAIN));
    assert_eq!(lost.count(), 4);
}

#[tokio::test]
async fn nobody_at_the_address_is_a_reason_in_words() {
    let Exporter { to, client } = span_exporter("http://127.0.0.1:9").unwrap();
    let span = detail(1, Outcome::Failed);
    let error = to.export(spans::spans(&span)).await.unwrap_err();
    let why = client.why(&error);
    assert!(why.starts_with("nobody at 127.0.0.1 port 9: "), "{why}");
    assert_eq!(client.why(&error), error.to_string(), "it is told once");
    assert!(span_exporter("no url").is_err());
}
