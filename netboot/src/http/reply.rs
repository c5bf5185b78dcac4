//! The short answers of the boot plane.

use std::net::IpAddr;

use bytes::Bytes;
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use kiln_inventory::BootId;

use super::body::Body;
use crate::boots::BootsError;
use crate::observe::COUNTS;

/// Returns the token that a request brings.
pub(super) fn bearer(request: &Request<Incoming>) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::to_owned)
}

pub(super) fn refused(peer: IpAddr, boot: BootId, error: BootsError) -> Response<Body> {
    tracing::warn!(%peer, boot = boot.0, error = &error as &dyn std::error::Error, "refused");
    if error == BootsError::Forbidden {
        COUNTS.refused.add(1);
    }
    let status = match error {
        BootsError::Unknown => StatusCode::NOT_FOUND,
        BootsError::Forbidden => StatusCode::FORBIDDEN,
        BootsError::TooOften => StatusCode::TOO_MANY_REQUESTS,
        BootsError::NotKept | BootsError::Stopping => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(status, format!("{error}\n"))
}

pub(super) fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::bytes(Bytes::new()));
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

/// Says by which methods a path can be asked for.
pub(super) fn not_allowed(path: &str) -> Response<Body> {
    let first = path.trim_start_matches('/').split('/').next();
    let allow = match first {
        Some("loader" | "blob") => "GET, HEAD",
        Some("script" | "machine" | "failed") => "GET",
        Some("phone-home") => "POST",
        _ => "GET, POST",
    };
    let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "method not allowed\n");
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allow));
    response
}

/// Tells a client to come back, when its turn did not come.
pub(super) fn busy() -> Response<Body> {
    let mut response = text(StatusCode::SERVICE_UNAVAILABLE, "others are served; come back\n");
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("5"));
    response
}

pub(super) fn not_found() -> Response<Body> {
    text(StatusCode::NOT_FOUND, "not found\n")
}

pub(super) fn internal() -> Response<Body> {
    text(StatusCode::INTERNAL_SERVER_ERROR, "the server cannot read this\n")
}

pub(super) fn text(status: StatusCode, text: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::bytes(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

pub(super) fn query<'a>(request: &'a Request<Incoming>, name: &str) -> Option<&'a str> {
    let pairs = request.uri().query()?.split('&');
    pairs.filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
}
