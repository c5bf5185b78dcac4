//! `kiln events`.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use kiln_inventory::Selector;
use serde_json::Value;

use super::client::{Client, path_part};
use super::print::{self, Column, How, Listed, col};
use super::table::{moment, plain};
use super::{ClientArgs, Failure, Output, told};
use crate::api::Event;

/// How long to wait before the server is asked again, at first and at most.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(10);
/// The most characters of a text of an event in a line.
const LONGEST: usize = 200;

/// Show what happens: changes, boots, builds
///
/// Without --follow it ends with what has happened by now. Each event has an id, by which --since goes on later without
/// that any is missed: `-o jsonl` has it in each line.
#[derive(Args, Debug)]
pub struct EventsArgs {
    /// Go on with what will happen, also after the server was away
    #[arg(short, long)]
    follow: bool,
    /// Begin after the event with this id; 0 is the first that is kept
    #[arg(long, value_name = "ID", value_parser = id)]
    since: Option<String>,
    /// Without --since, how many of the latest are shown
    #[arg(
        short = 'n',
        long,
        default_value_t = 50,
        value_name = "NUMBER",
        conflicts_with = "since"
    )]
    lines: usize,
    /// Only of these kinds of nouns: boot, machine, build … with commas between them
    #[arg(long, value_delimiter = ',', value_name = "NOUN")]
    noun: Vec<String>,
    /// Only of the noun with this name; boots have that of their machine
    #[arg(long)]
    name: Option<String>,
    /// Only of machines with these labels, as `rack=r1`
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
    #[command(flatten)]
    client: ClientArgs,
}

/// Reads the id of an event: one number, or two with a dot between them.
fn id(text: &str) -> Result<String, String> {
    let number = |text: &str| text.parse::<i64>().is_ok_and(|number| number >= 0);
    let (first, second) = text.split_once('.').unwrap_or((text, "0"));
    match number(first) && number(second) {
        true => Ok(text.to_owned()),
        false => Err("it is 0, or the id of an event, as 120.4533".to_owned()),
    }
}

impl EventsArgs {
    /// Returns what narrows the events down.
    fn filter(&self) -> String {
        let mut query = String::new();
        if !self.noun.is_empty() {
            let _ = write!(query, "&noun={}", path_part(&self.noun.join(",")));
        }
        if let Some(name) = &self.name {
            let _ = write!(query, "&name={}", path_part(name));
        }
        if let Some(selector) = &self.selector {
            let _ = write!(query, "&selector={}", path_part(&selector.to_string()));
        }
        query
    }
}

pub(super) async fn run(args: EventsArgs) -> Result<(), Failure> {
    let client = Client::new(&args.client);
    let how = How::of(&args.client);
    let filter = args.filter();
    // What has happened: of all of it the latest, or what came after one that is known.
    let since = args.since.clone().unwrap_or_else(|| "0".to_owned());
    let keep = if args.since.is_some() { usize::MAX } else { args.lines };
    let mut last = since.clone();
    let mut latest = VecDeque::new();
    let mut past = match client.events(&format!("since={since}&follow=false{filter}")).await {
        Err(failure) if args.follow => {
            let newest = newest(failure)?;
            return follow(&client, how, &filter, newest).await;
        }
        past => past?,
    };
    while let Some(event) = next(&mut past).await? {
        last.clone_from(&event.id);
        if keep == usize::MAX && how.output != Output::Json && how.output != Output::Yaml {
            print_one(how, &event)?;
            continue;
        }
        latest.push_back(event);
        if latest.len() > keep {
            latest.pop_front();
        }
    }
    drop(past);
    if !args.follow && matches!(how.output, Output::Json | Output::Yaml) {
        return print::list(how, latest.make_contiguous());
    }
    latest.iter().try_for_each(|event| print_one(how, event))?;
    if args.follow { follow(&client, how, &filter, last).await } else { Ok(()) }
}

/// Prints what happens after an event, until somebody ends it.
async fn follow(client: &Client, how: How, filter: &str, mut last: String) -> Result<(), Failure> {
    let mut pause = FIRST;
    let mut told = false;
    loop {
        let lost = match client.events(&format!("since={last}{filter}")).await {
            Ok(mut events) => loop {
                match next(&mut events).await {
                    Ok(Some(event)) => {
                        (pause, told) = (FIRST, false);
                        last.clone_from(&event.id);
                        print_one(how, &event)?;
                    }
                    Ok(None) => break None,
                    Err(failure) => break Some(failure),
                }
            },
            Err(failure) => match newest(failure) {
                Ok(newest) => {
                    last = newest;
                    continue;
                }
                Err(failure) if is_final(&failure) => return Err(failure),
                Err(failure) => Some(failure),
            },
        };
        if let Some(failure) = lost.filter(|_| !told) {
            eprintln!("kiln: {failure}; trying again");
            told = true;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST);
    }
}

/// Returns from which event on to go on where the server has none that are as new as those which were seen, and says so.
fn newest(failure: Failure) -> Result<String, Failure> {
    let newest = failure.refusal().and_then(|refusal| refusal.0.newest.clone());
    let newest = newest.filter(|newest| id(newest).is_ok()).ok_or(failure)?;
    eprintln!(
        "kiln: the events of the server end before those that were seen, as after an older backup was restored; going on from {newest}"
    );
    Ok(newest)
}

/// Returns whether the server is there and refuses, and would do so again.
fn is_final(failure: &Failure) -> bool {
    failure.code() != 1 || failure.is_denied()
}

/// Waits for the next event; nothing at the end of what has happened. That the server ends the stream before is a failure.
async fn next(events: &mut super::client::Events) -> Result<Option<Event>, Failure> {
    match events.next().await? {
        Some(sent) if sent.event == "cut-off" => {
            Err(anyhow!("the server has ended the stream: {}", plain(&sent.data)).into())
        }
        Some(sent) => Ok(Some(serde_json::from_str(&sent.data)?)),
        None => Ok(None),
    }
}

fn print_one(how: How, event: &Event) -> Result<(), Failure> {
    print::say(&match how.output {
        Output::Table | Output::Wide => line(event),
        _ => print::shown(how, &event.name, event, String::new)?,
    })
}

/// Writes an event in a line.
fn line(event: &Event) -> String {
    let Event { at, noun, name, what, .. } = event;
    let (noun, name, what) = (plain(noun), plain(name), plain(what));
    let line = format!("{} {noun:<9} {name:<16} {what:<9} {}", moment(*at), words(event));
    line.trim_end().to_owned()
}

/// Says more about an event: the detail of a boot, who changed which fields, why a build failed.
fn words(event: &Event) -> String {
    let text = |key: &str| event.data.get(key).and_then(Value::as_str).unwrap_or_default();
    let words = match event.noun.as_str() {
        "boot" => {
            let number = event.data.get("boot").map(ToString::to_string).unwrap_or_default();
            format!("(boot {number}) {}", text("detail"))
        }
        "build" if event.actor.is_none() => format!("{} {}", text("arch"), text("error")),
        _ => {
            let who = event.actor.as_ref().map(|who| format!("by {who}")).unwrap_or_default();
            let document = |key: &str| event.data.get(key);
            let change = (document("before"), document("after"));
            format!("{} {who}", told::words((&event.noun, &event.what), change))
        }
    };
    plain(words.trim()).chars().take(LONGEST).collect()
}

impl Listed for Event {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("time", |it: &Self| moment(it.at)),
            col("noun", |it| it.noun.clone()),
            col("name", |it| it.name.clone()),
            col("what", |it| it.what.clone()),
            col("", words),
        ]
    }

    fn name(&self) -> String {
        self.name.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(noun: &str, what: &str, data: Value) -> Event {
        Event {
            id: "1.2".to_owned(),
            at: 0,
            noun: noun.to_owned(),
            name: "n1\u{1b}[2J".to_owned(),
            what: what.to_owned(),
            actor: Some("token ci".to_owned()),
            data,
        }
    }

    #[test]
    fn an_event_is_one_line_that_moves_no_cursor() {
        let failed = json!({"boot": 7, "detail": "onboot \u{9b}31m\nx failed"});
        assert_eq!(
            line(&event("boot", "failed", failed)),
            "1970-01-01 00:00:00Z boot      n1[2J            failed    (boot 7) onboot 31mx failed"
        );
        let change = json!({"before": {"a": 1, "b": 2}, "after": {"a": 1, "b": 3, "c": 4}});
        assert!(line(&event("machine", "change", change)).ends_with("change    b, c by token ci"));
        assert!(line(&event("group", "add", Value::Null)).ends_with("add       by token ci"));
        assert!(line(&event("new", "thing", Value::Null)).len() < 200);
    }

    #[test]
    fn an_id_is_checked_before_the_server_is_asked() {
        assert!(id("0").is_ok() && id("120.4533").is_ok());
        assert!(["", "-1", "1&noun=x", "1.2.3"].iter().all(|text| id(text).is_err()));
    }
}
