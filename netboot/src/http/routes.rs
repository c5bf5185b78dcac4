//! The few routes of the boot plane.

use std::net::IpAddr;

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use kiln_inventory::{Asker, BootId, Phase, Sighting, decide};
use kiln_ipxe::{Endpoints, is_old, renewed_by, script};
use kiln_types::{Digest, Mac};
use tokio::time::Instant;

use super::body::{Body, Done, Sent};
use super::file::{Answer, Ask, Content};
use super::listen::Caller;
use super::reply::{busy, internal, not_allowed, not_found, query, refused, text};
use super::reports::{loader_failed, phone_home};
use super::{Plane, machine, metadata, orders, told};
use crate::boots::{BootsError, Transfer};
use crate::made::{self, Made};
use crate::memory;
use crate::observe::{COUNTS, Route};

const BINARY: &str = "application/octet-stream";
/// EDK2 takes a file for a program by this type.
const EFI: &str = "application/efi";

/// Answers one request.
pub(super) async fn answer(
    plane: &Plane,
    caller: &Caller,
    request: Request<Incoming>,
) -> Response<Body> {
    let peer = caller.peer;
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let mut response = route(plane, caller, request).await;
    let kind = Route::of(&path);
    COUNTS.answer(kind, response.status().as_u16());
    response.body_mut().count(kind);
    tracing::debug!(%peer, %method, path, status = response.status().as_u16(), "http");
    response
}

async fn route(plane: &Plane, caller: &Caller, request: Request<Incoming>) -> Response<Body> {
    let (peer, at) = (caller.peer, &caller.at);
    let method = request.method();
    let read = method == Method::GET || method == Method::HEAD;
    let path = request.uri().path().to_owned();
    let mut parts = path.trim_start_matches('/').split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("loader"), Some(name), None, None) if read && name != "autoexec.ipxe" => {
            loader(plane, caller, &request, name).await
        }
        (Some("blob"), Some(digest), Some(name), None) if read => {
            blob(plane, caller, &request, digest, name).await
        }
        (Some("script"), Some(file), None, None) if method == Method::GET => {
            boot_script(plane, peer, at, &request, file).await
        }
        (Some("machine"), Some(boot), Some(file), None) if method == Method::GET => {
            machine_segment(plane, peer, at, boot, file).await
        }
        (Some("failed"), Some(boot), None, None) if method == Method::GET => {
            loader_failed(plane, peer, boot, &request).await
        }
        (Some("phone-home"), Some(boot), None, None) if method == Method::POST => {
            let boot = boot.to_owned();
            phone_home(plane, peer, &boot, request).await
        }
        (Some("agent"), Some(boot), Some(what @ ("facts" | "kernel-log")), None)
            if method == Method::POST =>
        {
            told::take(plane, peer, boot, what, request).await
        }
        (Some("agent"), Some(boot), Some("orders"), None) if method == Method::GET => {
            caller.give_back();
            orders::hand_out(plane, (peer, at.address), boot, &request).await
        }
        (Some("agent"), Some(boot), Some("orders"), Some(order)) if method == Method::POST => {
            let (boot, order) = (boot.to_owned(), order.to_owned());
            orders::ended(plane, peer, &boot, &order, request).await
        }
        (Some("turn"), Some(_), None, None) if read => turn(plane),
        (Some("nocloud" | "ignition" | "metadata"), Some(_), ..) if method == Method::GET => {
            metadata::answer(plane, caller, &request, &path).await
        }
        (Some("livez"), None, None, None) if read => text(StatusCode::OK, "ok\n"),
        (
            Some("script" | "machine" | "failed" | "phone-home" | "agent" | "loader" | "blob"),
            ..,
        ) if !read || method == Method::HEAD => not_allowed(&path),
        _ if read => made_file(plane, caller, &request).await,
        _ => not_found(),
    }
}

/// Serves what is made for the machine that asks.
async fn made_file(plane: &Plane, caller: &Caller, request: &Request<Incoming>) -> Response<Body> {
    let (peer, path) = (caller.peer, request.uri().path());
    if let Some(name) = path.strip_prefix("/grub/")
        && plane.loaders.get(name).is_some()
    {
        return loader(plane, caller, request, name).await;
    }
    let Plane { view, boots, loaders, baker, .. } = plane;
    let made = Made { view, boots, loaders, baker, at: &caller.at };
    let Some(file) = made.file(peer, path).await else { return not_found() };
    let done = made::event(path, peer).map(|(phase, detail)| {
        let (boots, started) = (boots.clone(), Instant::now());
        let done: Done =
            Box::new(move |sent| boots.loader(peer, told_of(phase, detail, sent, started)));
        done
    });
    let kind = if file.is_efi { EFI } else { BINARY };
    let ask = Ask { method: request.method(), headers: request.headers() };
    let answer = Answer::new(&ask, file.plan.len(), &file.fingerprint(), kind);
    // What is large takes its turn among the other large ones.
    let pace = match answer.len().filter(|_| file.event.is_some()) {
        Some(len) => match plane.transfers.turn(peer, len).await {
            Some(pace) => Some(pace),
            None => return busy(),
        },
        None => None,
    };
    let content = Content::Planned { store: view.artifacts(), plan: &file.plan, pace };
    let mut response = answer.with(content, done).await.unwrap_or_else(|_| internal());
    // It may hold the key of this boot.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn loader(
    plane: &Plane,
    caller: &Caller,
    request: &Request<Incoming>,
    name: &str,
) -> Response<Body> {
    let peer = caller.peer;
    let Some((bytes, digest)) = plane.loaders.get(name) else {
        plane.boots.loader(peer, Transfer::absent(&component(name), "there is no such loader"));
        return not_found();
    };
    let kind = if name.ends_with(".efi") { EFI } else { BINARY };
    let (boots, detail, started) = (plane.boots.clone(), name.to_owned(), Instant::now());
    let done: Done =
        Box::new(move |sent| boots.loader(peer, told_of(Phase::Loader, detail, sent, started)));
    let ask = Ask { method: request.method(), headers: request.headers() };
    let answer = Answer::new(&ask, bytes.len() as u64, &digest, kind);
    answer.with(Content::Memory(bytes), Some(done)).await.unwrap_or_else(|_| internal())
}

async fn blob(
    plane: &Plane,
    caller: &Caller,
    request: &Request<Incoming>,
    digest: &str,
    name: &str,
) -> Response<Body> {
    let peer = caller.peer;
    let Ok(digest) = digest.parse::<Digest>() else { return not_found() };
    let boot = query(request, "boot").and_then(|id| id.parse().ok()).map(BootId);
    let (phase, detail) = match name {
        "vmlinuz" => (Phase::Kernel, "kernel".to_owned()),
        other => (Phase::Segment, component(other)),
    };
    let absent = |why: &str| {
        if let Some(boot) = boot {
            plane.boots.transfer(peer, boot, Transfer::absent(&detail, why));
        }
    };
    let Some((path, size)) = plane.view.blob(&digest) else {
        absent("404, no version that is served has it");
        return not_found();
    };
    let done = boot.map(|boot| {
        let (boots, started, detail) = (plane.boots.clone(), Instant::now(), detail.clone());
        let done: Done =
            Box::new(move |sent| boots.transfer(peer, boot, told_of(phase, detail, sent, started)));
        done
    });
    let ask = Ask { method: request.method(), headers: request.headers() };
    let answer = Answer::new(&ask, size, &digest, BINARY);
    let pace = match answer.len() {
        Some(len) => match plane.transfers.turn(peer, len).await {
            Some(pace) => Some(pace),
            None => return busy(),
        },
        None => None,
    };
    let content = Content::Disk { path: &path, pieces: caller.pieces.clone(), pace };
    match answer.with(content, done).await {
        Ok(mut response) => {
            let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
            response.headers_mut().insert(header::CACHE_CONTROL, forever);
            response
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, path = %path.display(), "artifact cannot be read");
            absent("500, the server cannot read it");
            internal()
        }
    }
}

async fn boot_script(
    plane: &Plane,
    peer: IpAddr,
    at: &Endpoints,
    request: &Request<Incoming>,
    file: &str,
) -> Response<Body> {
    let Some(mac) = file.strip_suffix(".ipxe").and_then(|mac| mac.parse::<Mac>().ok()) else {
        return not_found();
    };
    let firmware = query(request, "firmware").and_then(|text| text.parse().ok());
    let sighting = Sighting { mac, asker: Asker::Ipxe, firmware, uuid: None };
    if let Some(url) = newer_loader(plane, request, &sighting, at) {
        return text(StatusCode::OK, renewed_by(&url));
    }
    let decision = decide(&plane.view.snapshot(), &sighting).between(Some(peer), at.address);
    let progress = plane.baker.hears(&decision, &sighting);
    let ticket = plane.boots.script(peer, sighting.clone(), decision.clone()).await;
    let script = script(&decision, &sighting, ticket.as_ref(), progress.as_deref(), at);
    let mut response = text(StatusCode::OK, script);
    // It holds the key of this boot.
    let private = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, private);
    response
}

/// Returns where our iPXE is, for one that cannot start a kernel on UEFI. Ours can, so that it is not sent on again.
fn newer_loader(
    plane: &Plane,
    request: &Request<Incoming>,
    sighting: &Sighting,
    at: &Endpoints,
) -> Option<String> {
    let firmware = sighting.firmware.filter(|firmware| firmware.is_uefi())?;
    let agent = request.headers().get(header::USER_AGENT)?.to_str().ok()?;
    let file = kiln_ipxe::loader(firmware).filter(|_| is_old(agent))?;
    plane
        .loaders
        .takes_initrd(file.name)
        .then(|| format!("{}/loader/{}", at.for_loader(), file.name))
}

async fn machine_segment(
    plane: &Plane,
    peer: IpAddr,
    at: &Endpoints,
    boot: &str,
    file: &str,
) -> Response<Body> {
    let (Some(key), Ok(boot)) = (file.strip_suffix(".cpio"), boot.parse().map(BootId)) else {
        return not_found();
    };
    let identity = match plane.boots.identity(peer, boot, key).await {
        Ok(identity) if plane.view.is_retired(identity.mac) => {
            return refused(peer, boot, BootsError::Forbidden);
        }
        Ok(identity) => identity,
        Err(error) => return refused(peer, boot, error),
    };
    memory::warn(&plane.view, &plane.boots, &identity).await;
    if let Err(why) = plane.view.secrets_for(&identity) {
        plane.boots.warn(boot, format!("boots without its secrets: {why}")).await;
    }
    match machine::machine_segment(&plane.view, &identity, at) {
        Ok(bytes) => {
            let (boots, started, detail) =
                (plane.boots.clone(), Instant::now(), "machine".to_owned());
            let body = Body::bytes(bytes).when_done(Box::new(move |sent| {
                boots.transfer(peer, boot, told_of(Phase::Segment, detail, sent, started));
            }));
            let mut response = Response::new(body);
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(BINARY));
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, boot = boot.0, "machine segment cannot be made");
            internal()
        }
    }
}

/// What a boot script asks when a file could not be had: whether others are served now. If so, it begins to count its
/// attempts anew, so that a machine waits as long as it has to.
fn turn(plane: &Plane) -> Response<Body> {
    if plane.transfers.are_full() {
        text(StatusCode::OK, kiln_ipxe::WAIT_SCRIPT)
    } else {
        not_found()
    }
}

/// Returns the component in the name of a segment, fit for a listing.
pub(super) fn component(file: &str) -> String {
    let name = file.strip_suffix(".cpio.zst").unwrap_or(file);
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(64).collect()
}

/// Returns what a timeline tells of a file that was sent, or that broke off.
fn told_of(phase: Phase, name: impl Into<String>, sent: Sent, started: Instant) -> Transfer {
    Transfer::of(phase, name.into(), sent.bytes, sent.total, millis(started))
}

fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
