//! What the agent of a running machine asks for and says: its orders.

use std::net::IpAddr;
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use kiln_inventory::{BootId, Command, MachineId, Order, OrderId, OrderState, fill_netconsole};
use serde::{Deserialize, Serialize};

use super::Plane;
use super::body::Body;
use super::reply::{bearer, internal, no_content, not_found, query, refused, text};
use super::reports::REPORT_TIMEOUT;
use crate::boots::{BootsError, NextPlan};
use crate::orders::PollError;

/// The largest answer to an order that is read.
const MAX_ANSWER: usize = 600 << 10;

/// An order as it is handed out.
#[derive(Serialize)]
struct Handed<'a> {
    id: OrderId,
    #[serde(flatten)]
    command: &'a Command,
    #[serde(flatten)]
    next: Option<Next>,
}

/// What a system needs to start a version besides the version itself.
#[derive(Serialize)]
struct Next {
    boot: BootId,
    /// Path of the machine's own segment for that boot.
    segment: String,
    manifest_size: u64,
    /// The signature of the manifest, in hexadecimal digits.
    signature: Option<String>,
    /// Kernel arguments of the machine, after those of the image.
    cmdline: String,
}

/// Hands out the orders of a boot; with none, waits for one.
pub(super) async fn hand_out(
    plane: &Plane,
    (peer, server): (IpAddr, IpAddr),
    boot: &str,
    request: &Request<Incoming>,
) -> Response<Body> {
    let Ok(boot) = boot.parse().map(BootId) else { return not_found() };
    let machine = match proven(plane, peer, boot, request).await {
        Ok(machine) => machine,
        Err(error) => return refused(peer, boot, error),
    };
    let number = |name| query(request, name).map_or(Ok(0), str::parse);
    let (Ok(after), Ok(wait)) = (number("after"), number("wait")) else {
        return text(StatusCode::BAD_REQUEST, "after and wait are numbers\n");
    };
    let patience = Duration::from_secs(u64::try_from(wait).unwrap_or(0));
    let orders = match plane.orders.poll(machine, boot, OrderId(after), patience).await {
        Ok(orders) => orders,
        Err(PollError::TooMany) => {
            return text(StatusCode::TOO_MANY_REQUESTS, "one poll at a time\n");
        }
        Err(PollError::Stopping) => {
            return text(StatusCode::SERVICE_UNAVAILABLE, "the server stops\n");
        }
        Err(PollError::Store(error)) => return unwritten(boot, &error),
    };
    let mut handed = Vec::new();
    for order in &orders {
        match next(plane, machine, order, (peer, server)).await {
            Ok(next) => handed.push(Handed { id: order.id, command: &order.command, next }),
            Err(why) => {
                let failed = plane.orders.end(boot, order.id, OrderState::Failed, &why).await;
                if let Err(error) = failed {
                    return unwritten(boot, &error);
                }
            }
        }
    }
    if handed.is_empty() {
        return no_content();
    }
    let Ok(body) = serde_json::to_vec(&handed) else { return internal() };
    let mut response = Response::new(Body::bytes(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Opens the boot that an order begins, where it begins one.
async fn next(
    plane: &Plane,
    machine: MachineId,
    order: &Order,
    (peer, server): (IpAddr, IpAddr),
) -> Result<Option<Next>, String> {
    let Command::Kexec { image, version } = &order.command else { return Ok(None) };
    let gone = || format!("the version {version} is no longer served");
    let served = plane.view.version(version).ok_or_else(gone)?;
    let plan = NextPlan { image: image.clone(), version: *version, arch: served.arch };
    let ticket = plane.boots.next(machine, plan, order.id).await;
    let ticket = ticket.ok_or_else(|| "the server could not open a boot".to_owned())?;
    let snapshot = plane.view.snapshot();
    let arguments = snapshot.settings_of(machine).map(|all| all.arguments()).unwrap_or_default();
    let arguments = snapshot.with_netconsole(&arguments);
    Ok(Some(Next {
        boot: ticket.boot,
        segment: format!("/machine/{}/{}.cpio", ticket.boot, ticket.machine_key),
        manifest_size: served.manifest_size,
        signature: served.signature,
        cmdline: fill_netconsole(&arguments, Some(peer), server),
    }))
}

/// What a machine says about an order.
#[derive(Deserialize)]
struct Ended {
    state: OrderState,
    #[serde(default)]
    answer: String,
}

/// Takes what became of an order.
pub(super) async fn ended(
    plane: &Plane,
    peer: IpAddr,
    boot: &str,
    order: &str,
    request: Request<Incoming>,
) -> Response<Body> {
    let (Ok(boot), Ok(id)) = (boot.parse().map(BootId), order.parse().map(OrderId)) else {
        return not_found();
    };
    let machine = match proven(plane, peer, boot, &request).await {
        Ok(machine) => machine,
        Err(error) => return refused(peer, boot, error),
    };
    let body = Limited::new(request.into_body(), MAX_ANSWER).collect();
    let body = match tokio::time::timeout(REPORT_TIMEOUT, body).await {
        Ok(Ok(body)) => body.to_bytes(),
        Ok(Err(_)) => return text(StatusCode::PAYLOAD_TOO_LARGE, "answer too large\n"),
        Err(_) => return text(StatusCode::REQUEST_TIMEOUT, "answer too slow\n"),
    };
    let Ended { state, answer } = match serde_json::from_slice(&body) {
        Ok(ended) => ended,
        Err(error) => return text(StatusCode::BAD_REQUEST, format!("{error}\n")),
    };
    if !matches!(state, OrderState::Done | OrderState::Failed) {
        return text(StatusCode::BAD_REQUEST, "an order ends as done or failed\n");
    }
    match plane.orders.end(boot, id, state, &answer).await {
        Ok(Some(order)) => {
            if order.state == OrderState::Failed && matches!(order.command, Command::Kexec { .. }) {
                plane.boots.next_failed(machine, order.answer).await;
            }
            no_content()
        }
        Ok(None) => not_found(),
        Err(error) => unwritten(boot, &error),
    }
}

async fn proven(
    plane: &Plane,
    peer: IpAddr,
    boot: BootId,
    request: &Request<Incoming>,
) -> Result<MachineId, BootsError> {
    let token = bearer(request).ok_or(BootsError::Forbidden)?;
    plane.boots.proven(peer, boot, &token).await
}

fn unwritten(boot: BootId, error: &kiln_inventory::StoreError) -> Response<Body> {
    let error = error as &dyn std::error::Error;
    tracing::error!(error, boot = boot.0, "orders cannot be kept");
    internal()
}
