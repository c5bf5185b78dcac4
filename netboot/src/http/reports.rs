//! What loaders and systems report of themselves.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use kiln_inventory::BootId;

use super::Plane;
use super::body::Body;
use super::reply::{bearer, no_content, not_found, query, refused, text};
use super::routes::component;
use crate::boots::{BootsError, Report, Reports, now_ms};

/// The largest report that is read.
const MAX_REPORT: usize = 64 << 10;
/// How long a report may take to arrive.
pub(super) const REPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the kernel of a machine had run when it sent its reports, in milliseconds.
const UPTIME: &str = "kiln-uptime";

/// Notes that a loader gave up. Every request has the same answer, so that nobody learns which boots there are.
pub(super) async fn loader_failed(
    plane: &Plane,
    peer: IpAddr,
    boot: &str,
    request: &Request<Incoming>,
) -> Response<Body> {
    if let Ok(boot) = boot.parse().map(BootId) {
        let detail = failure(query(request, "what"), query(request, "error"));
        plane.boots.loader_failed(peer, boot, detail).await;
    }
    let mut response = no_content();
    // A loader that is told no length may wait for the end of the connection.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

pub(super) async fn phone_home(
    plane: &Plane,
    peer: IpAddr,
    boot: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    // Its own clock starts from here; a body that takes its time must not make the kernel younger.
    let arrived = now_ms();
    let Ok(boot) = boot.parse().map(BootId) else { return not_found() };
    let Some(token) = bearer(&request) else {
        return refused(peer, boot, BootsError::Forbidden);
    };
    let uptime = request.headers().get(UPTIME).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = Limited::new(request.into_body(), MAX_REPORT).collect();
    let body = match tokio::time::timeout(REPORT_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "report too large\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "report too slow\n"),
    };
    let reports: Vec<Report> = match serde_json::from_slice(&body) {
        Ok(reports) => reports,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    let reports = Reports { uptime, reports };
    match plane.boots.reports(arrived, peer, boot, &token, reports).await {
        Ok(()) => no_content(),
        Err(error) => refused(peer, boot, error),
    }
}

/// Says in words what a loader reports by its script. Only what such a script can say gets through.
fn failure(what: Option<&str>, error: Option<&str>) -> String {
    let mut text = match what.map(component).as_deref() {
        None | Some("") => "the loader gave up".to_owned(),
        Some("boot") => "the loader cannot start the kernel".to_owned(),
        Some("kernel") => "the loader cannot fetch the kernel".to_owned(),
        Some("machine") => "the loader cannot fetch the segment of this machine".to_owned(),
        Some(segment) => format!("the loader cannot fetch segment {segment}"),
    };
    let number = |text: &&str| {
        (1..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    if let Some(error) = error.filter(number) {
        text.push_str(": error ");
        text.push_str(error);
        text.push_str(" (https://ipxe.org/");
        text.push_str(error);
        text.push(')');
    }
    text
}
