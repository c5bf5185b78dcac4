//! A boot as spans: one for the whole, and one for each step of it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest::{Context, SHA256};
use kiln_inventory::{Boot, Outcome};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};

use crate::api::BootDetail;
use crate::breakdown::Step;

/// Returns the spans of a boot, the whole of it first. The same boot has the same numbers each time.
pub(super) fn spans(detail: &BootDetail) -> Vec<SpanData> {
    let boot = &detail.boot;
    let trace = trace_id(boot);
    let total = i64::try_from(detail.breakdown.total).unwrap_or(i64::MAX);
    let ended = boot.ended.unwrap_or_else(|| boot.started.saturating_add(total));
    let root = SpanData {
        attributes: attributes(detail),
        status: match boot.outcome {
            Outcome::Healthy => Status::Ok,
            _ => Status::error(detail.verdict.reason.clone()),
        },
        ..span(trace, span_id(trace, 0), "boot", boot.started, ended)
    };
    let parent = root.span_context.span_id();
    let mut spans = vec![root];
    for (number, step) in (1_u64..).zip(&detail.breakdown.steps) {
        let at =
            |millis: u64| boot.started.saturating_add(i64::try_from(millis).unwrap_or(i64::MAX));
        spans.push(SpanData {
            parent_span_id: parent,
            attributes: of_step(step),
            ..span(trace, span_id(trace, number), &step.name, at(step.from), at(step.to))
        });
    }
    spans
}

fn attributes(detail: &BootDetail) -> Vec<KeyValue> {
    let (boot, verdict) = (&detail.boot, &detail.verdict);
    let text = |key: &'static str, value: String| Some(KeyValue::new(key, value));
    let outcome = match boot.outcome {
        Outcome::Booting => "booting",
        Outcome::Healthy => "healthy",
        Outcome::Failed => "failed",
        Outcome::Abandoned => "abandoned",
    };
    [
        text("kiln.machine", boot.machine_name.clone()),
        Some(KeyValue::new("kiln.machine.id", boot.machine.0)),
        text("kiln.machine.mac", boot.mac.to_string()),
        boot.address.and_then(|it| text("kiln.machine.address", it.to_string())),
        boot.firmware.and_then(|it| text("kiln.machine.firmware", it.to_string())),
        Some(KeyValue::new("kiln.boot.id", boot.id.0)),
        text("kiln.boot.outcome", outcome.to_owned()),
        text("kiln.boot.cause", verdict.cause.to_string()),
        text("kiln.boot.reason", verdict.reason.clone()),
        boot.image.as_ref().and_then(|it| text("kiln.image", it.to_string())),
        boot.version.and_then(|it| text("kiln.image.version", it.to_string())),
        boot.arch.and_then(|it| text("kiln.image.arch", it.to_string())),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn of_step(step: &Step) -> Vec<KeyValue> {
    let number = |key: &'static str, value: u64| {
        KeyValue::new(key, i64::try_from(value).unwrap_or(i64::MAX))
    };
    let mut attributes = vec![number("kiln.step.share_ms", step.share)];
    attributes.extend(step.bytes.map(|bytes| number("kiln.step.bytes", bytes)));
    attributes.extend(step.usual.map(|usual| number("kiln.step.usual_ms", usual)));
    if !step.detail.is_empty() {
        attributes.push(KeyValue::new("kiln.step.detail", step.detail.clone()));
    }
    attributes
}

fn span(trace: TraceId, id: SpanId, name: &str, from: i64, to: i64) -> SpanData {
    SpanData {
        span_context: SpanContext::new(
            trace,
            id,
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::INVALID,
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.to_owned().into(),
        start_time: moment(from),
        // The clock of the server may have been set.
        end_time: moment(to.max(from)),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("kiln")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build(),
    }
}

fn moment(millis: i64) -> SystemTime {
    let since = Duration::from_millis(u64::try_from(millis).unwrap_or(0));
    UNIX_EPOCH.checked_add(since).unwrap_or(UNIX_EPOCH)
}

/// Returns the number of the trace of a boot: one that is exported twice, as by two servers, stays one.
fn trace_id(boot: &Boot) -> TraceId {
    let parts = [boot.id.0, boot.machine.0, boot.started].map(i64::to_be_bytes);
    TraceId::from_bytes(hash(b"boot", parts.as_flattened()))
}

fn span_id(trace: TraceId, number: u64) -> SpanId {
    SpanId::from_bytes(hash(&trace.to_bytes(), &number.to_be_bytes()))
}

fn hash<const N: usize>(first: &[u8], second: &[u8]) -> [u8; N] {
    let mut context = Context::new(&SHA256);
    context.update(first);
    context.update(second);
    let digest = context.finish();
    let mut bytes = [0; N];
    for (byte, hashed) in bytes.iter_mut().zip(digest.as_ref()) {
        *byte = *hashed;
    }
    bytes
}
