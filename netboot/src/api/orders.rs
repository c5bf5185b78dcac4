//! Orders to running machines: give, list, follow.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use kiln_inventory::{
    Asker, Boot, Command, Firmware, Flag, Machine, NewOrder, Order, OrderId, Plan, Sighting, decide,
};
use kiln_types::{Arch, Digest, ImageRef};
use serde::{Deserialize, Serialize};
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::boots::may_see;
use super::extract::{Body, Key, Params};
use super::machines::find;
use super::page::{self, limit};
use super::peer::Caller;
use super::route::{Route, get, post};
use super::{Control, Fault};
use crate::boots::now_ms;
use crate::orders::LIFETIME;

/// The most orders in one answer.
const MAX_LIST: u32 = 1000;
/// The longest that a request waits for the end of an order.
const PATIENCE: u64 = 25;
/// The fewest digits of a version that are taken for one.
const SHORTEST_VERSION: usize = 8;

/// What a running machine is to do, as the caller says it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Ask {
    /// Start anew through the firmware.
    Reboot {},
    /// Switch off.
    PowerOff {},
    /// Start a version without the firmware.
    Kexec {
        /// An image with or without its channel, or a version; without it, what the machine would boot now.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
    },
    /// Send the last lines of what a service has printed.
    Logs {
        /// The service.
        name: String,
        /// How many lines.
        lines: u32,
    },
    /// Run a program to its end.
    Run {
        /// The service in whose container it runs.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        service: Option<String>,
        /// The program and its arguments.
        program: Vec<String>,
    },
}

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let (read, write) = (Access::Read(Noun::Order), Access::Write(Noun::Order));
    vec![
        get(
            "/api/v1/machines/{key}/orders",
            read,
            "List the orders of a machine, the newest first",
            list,
        )
        .query::<ListQuery>()
        .lists::<Order>(),
        post("/api/v1/machines/{key}/orders", write, "Give a running machine an order", give)
            .takes::<Ask>()
            .with(StatusCode::CREATED)
            .gives::<Order>(),
        get("/api/v1/orders/{id}", read, "Show an order, and wait for its end", show)
            .query::<ShowQuery>()
            .gives::<Order>(),
    ]
}

async fn give(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Body(ask): Body<Ask>,
) -> Result<(StatusCode, Json<Order>), Fault> {
    let machine = find(&control, &caller, &key).await?;
    let name = &machine.spec.name;
    let boot = control.boots.running(machine.id).await.ok_or_else(|| {
        let text = format!("machine `{name}` is not up, as far as this server knows");
        Fault::new(StatusCode::CONFLICT, text)
    })?;
    let command = match ask {
        Ask::Reboot {} => Command::Reboot,
        Ask::PowerOff {} => Command::PowerOff,
        Ask::Kexec { to } => {
            let (image, version) = choose(&control, &machine, &boot, to.as_deref())?;
            Command::Kexec { image, version }
        }
        Ask::Logs { name, lines } => Command::Logs { name, lines },
        Ask::Run { .. } if !control.agent.run => {
            let text = "this site lets nobody run programs on its machines; \
                        `run = true` under [agent] in kiln.toml allows it";
            return Err(Fault::new(StatusCode::FORBIDDEN, text.to_owned()));
        }
        Ask::Run { service, program } => Command::Run { service, program },
    };
    command.check().map_err(Fault::invalid)?;
    let asked = now_ms();
    let lifetime = i64::try_from(LIFETIME.as_millis()).unwrap_or(i64::MAX);
    let order = NewOrder {
        machine: machine.id,
        machine_name: name.clone(),
        boot: boot.id,
        command,
        asked,
        asked_by: caller.name,
        expires: asked.saturating_add(lifetime),
    };
    Ok((StatusCode::CREATED, Json(control.orders.give(&order).await?)))
}

/// Which part of the list of orders.
#[derive(Deserialize, IntoParams)]
struct ListQuery {
    /// The most orders in the answer: 50 unless said, 1000 at most. Where there are more, `Link` says where they are.
    #[serde(default, deserialize_with = "limit")]
    #[param(minimum = 1, maximum = 2_147_483_647)]
    limit: Option<u32>,
    /// Only orders after the one with this id, which were given before it.
    after: Option<i64>,
    /// Only these fields, with commas between them; `command.kind` is a field in a field.
    fields: Option<String>,
}

async fn list(
    State(control): Shared,
    caller: Caller,
    uri: Uri,
    Key(key): Key,
    Params(query): Params<ListQuery>,
) -> Result<Response, Fault> {
    let machine = find(&control, &caller, &key).await?;
    let limit = query.limit.unwrap_or(50).min(MAX_LIST);
    // One more than fits, so that the answer says whether there are more.
    let orders = control.orders.list(machine.id, query.after.map(OrderId), limit + 1).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let orders = orders.into_iter().map(|order| (order.id, order));
    page::part::<Order, _>(limit, query.fields.as_deref(), &uri, orders)
}

#[derive(Deserialize, IntoParams)]
struct ShowQuery {
    /// Seconds to wait for its end.
    #[serde(default)]
    wait: u64,
}

async fn show(
    State(control): Shared,
    caller: Caller,
    Key(key): Key,
    Params(query): Params<ShowQuery>,
) -> Result<Json<Order>, Fault> {
    let missing = || Fault::not_found("order", &key);
    let id = key.parse().map(OrderId).map_err(|_| missing())?;
    let patience = Duration::from_secs(query.wait.min(PATIENCE));
    // Whose order it is comes first, so that nobody waits for what he may not see.
    let order = control.orders.show(id, Duration::ZERO).await?.ok_or_else(missing)?;
    may_see(&control, &caller, order.machine).await?.then_some(()).ok_or_else(missing)?;
    control.orders.show(id, patience).await?.map(Json).ok_or_else(missing)
}

/// Finds the version that a running machine is to start.
fn choose(
    control: &Control,
    machine: &Machine,
    boot: &Boot,
    to: Option<&str>,
) -> Result<(ImageRef, Digest), Fault> {
    let conflict = |text: String| Fault::new(StatusCode::CONFLICT, text);
    let arch = boot.arch.ok_or_else(|| {
        conflict(format!("nobody knows the architecture of machine `{}`", machine.spec.name))
    })?;
    let snapshot = control.view.snapshot();
    let Some(to) = to else {
        // The same function that would answer the machine's firmware.
        let firmware = match arch {
            Arch::X86_64 => Firmware::Bios,
            Arch::Arm64 => Firmware::UefiArm64,
        };
        let (mac, asker) = (boot.mac, Asker::Ipxe);
        let sighting = Sighting { mac, asker, firmware: Some(firmware), uuid: None };
        let decision = decide(&snapshot, &sighting);
        return match decision.plan {
            Plan::Boot(plan) => Ok((plan.image, plan.version)),
            _ => {
                let why: Vec<_> = decision.reasons.iter().map(ToString::to_string).collect();
                Err(conflict(format!("it would boot nothing now: {}", why.join("; "))))
            }
        };
    };
    let asked = |flag| machine.spec.is(flag);
    if asked(Flag::Retired) || asked(Flag::Cordoned) {
        let (name, flag) =
            (&machine.spec.name, if asked(Flag::Retired) { Flag::Retired } else { Flag::Cordoned });
        return Err(conflict(format!("machine `{name}` is {flag}, so it gets no new version")));
    }
    let missing = || {
        let text =
            format!("no version `{to}` for {arch} is served; `kiln image list` shows what is");
        Fault::new(StatusCode::NOT_FOUND, text)
    };
    let digits = to.strip_prefix("sha256:").unwrap_or(to);
    let hex = digits.len() >= SHORTEST_VERSION && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if hex {
        let mut found = control.view.versions_that_begin(&digits.to_ascii_lowercase());
        found.retain(|(_, version)| version.arch == arch);
        if let ([(digest, version)], Ok(image)) =
            (found.as_slice(), found.first().map_or("", |(_, v)| &v.image).parse())
        {
            tracing::debug!(version = %digest, image = version.image, "chosen by its digest");
            return Ok((image, *digest));
        }
        if found.len() > 1 {
            return Err(conflict(format!("several versions begin with `{to}`; give more digits")));
        }
    }
    let image: ImageRef = to.parse().map_err(|_| missing())?;
    let built = snapshot.images.get(&image).and_then(|built| built.get(&arch));
    built.map(|version| (image.clone(), version.version)).ok_or_else(missing)
}
