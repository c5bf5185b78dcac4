//! `/nocloud`, `/ignition` and `/metadata`: what a machine is told of itself.
//!
//! Each has two forms: with a MAC for whoever asks, and `boot/BOOT` for the system that proves with the token of that
//! boot, and from its own address, to be the machine. Only the second has secrets.

use hyper::body::Incoming;
use hyper::header::{self, HeaderValue};
use hyper::{Request, Response, StatusCode};
use kiln_inventory::{BootId, Effective, Flag};
use kiln_types::Mac;
use serde_json::Map;

use super::Plane;
use super::body::Body;
use super::listen::Caller;
use super::reply::{bearer, not_found, refused, text};
use crate::boots::BootsError;
use crate::metadata::{self, Asker, Document, TemplateError};

/// Answers `/KIND/MAC/REST` and `/KIND/boot/BOOT/REST`.
pub(super) async fn answer(
    plane: &Plane,
    caller: &Caller,
    request: &Request<Incoming>,
    path: &str,
) -> Response<Body> {
    let mut parts = path.trim_start_matches('/').split('/');
    let (Some(kind), Some(who)) = (parts.next(), parts.next()) else { return not_found() };
    let snapshot = plane.view.snapshot();
    let mut booting = None;
    let (machine, mac, mut proven) = if who == "boot" {
        let Some(Ok(boot)) = parts.next().map(|boot| boot.parse().map(BootId)) else {
            return not_found();
        };
        let Some(token) = bearer(request) else {
            return refused(caller.peer, boot, BootsError::Forbidden);
        };
        let id = match plane.boots.proven(caller.peer, boot, &token).await {
            Ok(id) => id,
            Err(error) => return refused(caller.peer, boot, error),
        };
        booting = Some(boot);
        let machine = snapshot.machines().iter().find(|machine| machine.id == id);
        (machine, machine.and_then(|machine| machine.spec.macs.first().copied()), true)
    } else {
        let mac = who.parse::<Mac>().ok();
        (mac.and_then(|mac| snapshot.machine_by_mac(mac)), mac, false)
    };
    let machine = machine.filter(|machine| !machine.spec.is(Flag::Retired));
    let (Some(machine), Some(mac)) = (machine, mac) else { return not_found() };
    let Some(known) = snapshot.settings_of(machine.id) else { return not_found() };
    let opened;
    let mut settings: &Effective = known;
    let server = caller.at.for_system().to_string();
    let mut secrets = Map::new();
    if let Some(boot) = booting {
        let given = plane.boots.gave(caller.peer, boot).await;
        let told = plane.view.secrets_of(machine, settings, caller.peer, given);
        match told.and_then(|all| Ok((all, plane.view.opened(settings)?))) {
            Ok((all, with_secrets)) => {
                opened = with_secrets;
                settings = &opened;
                let text = |(name, bytes)| Some((name, String::from_utf8(bytes).ok()?.into()));
                secrets.extend(all.into_iter().filter_map(text));
            }
            Err(why) => {
                proven = false;
                plane.boots.warn(boot, format!("gets no secrets: {why}")).await;
            }
        }
    }
    let asker = Asker { machine, settings, mac, proven, secrets: &secrets, server: &server };
    let document = match kind {
        "metadata" => {
            let value = metadata::value(&asker, parts);
            return value.map_or_else(not_found, |value| private(text(StatusCode::OK, value)));
        }
        "ignition" => parts.next().is_none().then_some(Document::Ignition),
        _ => parts.next().and_then(Document::nocloud),
    };
    let Some(document) = document.filter(|_| parts.next().is_none()) else { return not_found() };
    match metadata::document(plane.templates.as_deref(), document, &asker) {
        Ok(Some(made)) => private(text(StatusCode::OK, made)),
        Ok(None) => not_found(),
        Err(error @ TemplateError::Secret(_)) => text(StatusCode::FORBIDDEN, format!("{error}\n")),
        Err(error) => {
            // What is in a template is not for everyone who knows a MAC.
            let machine = machine.spec.name.as_str();
            tracing::warn!(machine, error = &error as &dyn std::error::Error, "no metadata");
            let why = "the template for this cannot be filled in; the log of the server says why\n";
            text(StatusCode::INTERNAL_SERVER_ERROR, why)
        }
    }
}

fn private(mut response: Response<Body>) -> Response<Body> {
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(header::CACHE_CONTROL, no_store);
    response
}
