//! What a booted system tells besides its timeline: what the machine is made of, and the last words of its kernel.

use std::net::IpAddr;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use kiln_inventory::BootId;

use super::Plane;
use super::body::Body;
use super::reply::{bearer, no_content, not_found, refused, text};
use super::reports::REPORT_TIMEOUT;
use crate::boots::BootsError;
use crate::facts;

/// The largest kernel log that is kept; kiln-init sends 64 KiB.
const MAX_LOG: usize = 128 << 10;

/// Takes what one of the paths `/agent/BOOT/facts` and `/agent/BOOT/kernel-log` is sent.
pub(super) async fn take(
    plane: &Plane,
    peer: IpAddr,
    boot: &str,
    what: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let Ok(boot) = boot.parse().map(BootId) else { return not_found() };
    let Some(token) = bearer(&request) else {
        return refused(peer, boot, BootsError::Forbidden);
    };
    let most = if what == "facts" { facts::MOST_BYTES } else { MAX_LOG };
    let body = Limited::new(request.into_body(), most).collect();
    let body = match tokio::time::timeout(REPORT_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "this is too large\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "this came too slowly\n"),
    };
    let result = if what == "facts" {
        let facts = facts::read(&body).map_err(|error| crate::cli::chain(&error));
        let json = facts.and_then(|facts| serde_json::to_string(&facts).map_err(|e| e.to_string()));
        match json {
            Ok(json) => plane.boots.facts(peer, boot, &token, json).await,
            Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    } else {
        plane.boots.kernel_log(peer, boot, &token, lines(&body)).await
    };
    match result {
        Ok(()) => no_content(),
        Err(error) => refused(peer, boot, error),
    }
}

/// Keeps lines, and of control characters only their ends and tabs.
fn lines(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    text.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_log_keeps_its_lines_and_nothing_that_moves_a_cursor() {
        assert_eq!(lines(b"[ 1.0] a\tb\r\n\x1b[2Jc\xff\n\0"), "[ 1.0] a\tb\n[2Jc\u{fffd}\n");
    }
}
