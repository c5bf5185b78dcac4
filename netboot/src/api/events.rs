//! What happens, as it happens: server-sent events. Each reader reads the tables at his own pace, so that nobody's
//! slowness costs memory.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use kiln_inventory::Selector;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::Params;
use super::feed::{self, Builds, Cursor, Event, Filter};
use super::peer::Caller;
use super::route::{Route, get};
use super::{Control, Fault, gate};
use crate::boots::now_ms;

/// How often the tables are looked at where nothing tells of news.
const LOOK: Duration = Duration::from_millis(500);
/// How often something is sent, so that both sides know that the other is there.
const ALIVE: Duration = Duration::from_secs(15);
/// How often it is looked whether who follows still may, and whether there still is what he follows.
pub(super) const VET: Duration = Duration::from_millis(if cfg!(test) { 100 } else { 3000 });
/// Who takes nothing for so long while there is something to take is cut off.
const PATIENCE: Duration = Duration::from_secs(30);

/// What is wanted.
#[derive(Clone, Debug, Deserialize, IntoParams)]
struct Wanted {
    /// The id of the last event that is known; 0 for all that are kept. Without it, only what happens from now on.
    since: Option<String>,
    /// Kinds of nouns, with commas between them.
    noun: Option<String>,
    /// Only of the noun with this name.
    name: Option<String>,
    /// Only of machines with these labels.
    selector: Option<String>,
    /// Whether to go on with what will happen. Yes, unless it is `false`: then the stream ends with what has happened.
    follow: Option<bool>,
}

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Read(Noun::Event);
    let schema = json!({"type": "string", "description": "Each `data` is one Event"});
    vec![
        get("/api/v1/events", read, "Follow what happens (server-sent events)", follow)
            .query::<Wanted>()
            .header("Last-Event-ID", "As `since`, which it goes before")
            .or(StatusCode::GONE)
            .answers("text/event-stream", schema)
            .names::<Event>(),
    ]
}

async fn follow(
    State(control): State<Arc<Control>>,
    caller: Caller,
    headers: HeaderMap,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Fault> {
    let selector = wanted.selector.as_deref().map(str::parse::<Selector>).transpose();
    let selector = selector.map_err(|error| Fault::invalid(error.to_string()))?;
    let filter = Filter {
        rights: caller.rights.clone(),
        nouns: feed::nouns(wanted.noun.as_deref().unwrap_or(""))?,
        name: wanted.name,
        selector,
    };
    // A reader that was cut off says by a header of its own where it was.
    let last = headers.get("last-event-id").and_then(|id| id.to_str().ok());
    let cursor = match last.or(wanted.since.as_deref()) {
        Some(since) => {
            let since: Cursor = since.parse()?;
            match since.end_before(&control.inventory).await? {
                Some(end) => return Err(beyond(end)),
                None => since,
            }
        }
        None => Cursor {
            change: control.inventory.last_change().await?,
            boot: control.inventory.last_boot_event().await?,
        },
    };
    let place = control.gate.reader().ok_or_else(|| {
        let text = "too many follow the events; come again later";
        Fault::new(StatusCode::SERVICE_UNAVAILABLE, text).again_after(30)
    })?;
    let mut builds = Builds::default();
    builds.news(&filter, cursor, 0, &control.baker.states());
    let news = control.inventory.watch_changes();
    let (waiting, sent) = (VecDeque::new(), None);
    let follow = wanted.follow != Some(false);
    let reader = Reader {
        control,
        caller,
        vetted: Instant::now(),
        filter,
        cursor,
        builds,
        news,
        waiting,
        sent,
        over: false,
        follow,
        _place: place,
    };
    let frames = stream::unfold(reader, |mut reader| async move {
        let frame = reader.next().await?;
        Some((Ok::<_, Infallible>(frame), reader))
    });
    Ok(Sse::new(frames).keep_alive(KeepAlive::new().interval(ALIVE)).into_response())
}

/// Says that there are no events after an id, and from which one on there are.
fn beyond(end: Cursor) -> Fault {
    let text = format!(
        "the events end at {end}, before the id that you gave, as after an older backup was restored; go on from {end}"
    );
    Fault::new(StatusCode::GONE, text).newest(end.to_string())
}

struct Reader {
    control: Arc<Control>,
    caller: Caller,
    vetted: Instant,
    filter: Filter,
    cursor: Cursor,
    builds: Builds,
    news: watch::Receiver<i64>,
    /// At most one part of the tables.
    waiting: VecDeque<Event>,
    /// When the last event was given to the connection, while there were more.
    sent: Option<Instant>,
    over: bool,
    follow: bool,
    _place: OwnedSemaphorePermit,
}

impl Reader {
    /// Returns the next frame, or nothing when the stream is over.
    async fn next(&mut self) -> Option<Frame> {
        if self.over {
            return None;
        }
        if self.sent.take().is_some_and(|sent| sent.elapsed() > PATIENCE) {
            return Some(
                self.end(
                    "you took nothing for too long; come again with the id of your last event",
                ),
            );
        }
        loop {
            if self.vetted.elapsed() >= VET {
                if let Err(fault) = self.vet().await {
                    return Some(self.end(fault.detail()));
                }
                self.vetted = Instant::now();
            }
            if let Some(event) = self.waiting.pop_front() {
                self.sent = (!self.waiting.is_empty()).then(Instant::now);
                // A line break would end the frame; no noun of ours has one.
                let noun = event.noun.replace(|c: char| !c.is_ascii_graphic(), "-");
                let frame = Frame::default().id(&event.id).event(noun);
                return frame.json_data(&event).ok();
            }
            match self.read().await {
                Ok(true) => continue,
                Ok(false) if !self.follow => return None,
                Ok(false) => {}
                Err(fault) => return Some(self.end(fault.detail())),
            }
            tokio::select! {
                () = self.control.stop.cancelled() => return None,
                _ = self.news.changed() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Looks whether the stream may go on.
    async fn vet(&self) -> Result<(), Fault> {
        let store = &self.control.inventory;
        gate::still(store, &self.caller, now_ms()).await?;
        self.cursor.end_before(store).await?.map_or(Ok(()), |end| Err(beyond(end)))
    }

    /// Reads what is new. Returns whether there may be more.
    async fn read(&mut self) -> Result<bool, Fault> {
        self.news.mark_unchanged();
        let store = &self.control.inventory;
        let (events, more) = feed::read(store, &self.filter, &mut self.cursor).await?;
        self.waiting.extend(events);
        let states = self.control.baker.states();
        self.waiting.extend(self.builds.news(&self.filter, self.cursor, now_ms(), &states));
        Ok(more || !self.waiting.is_empty())
    }

    /// Says why the stream ends.
    fn end(&mut self, why: &str) -> Frame {
        self.over = true;
        let data = json!({"reason": why}).to_string();
        Frame::default().event("cut-off").data(data)
    }
}
