//! `--watch`: shows the same again whenever something happens.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::client::{Client, Events};
use super::print::{self, How, Listed, Painter};
use super::{ClientArgs, Failure, Output};

/// What happens so soon after something else is shown with it.
const TOGETHER: Duration = Duration::from_millis(200);
/// A screen is drawn anew so often in any case, for the times that it shows.
const TICK: Duration = Duration::from_secs(2);
/// How long to wait for a server that is away, at first and at most.
const FIRST: Duration = Duration::from_millis(500);
const LAST: Duration = Duration::from_secs(10);

/// Whether to go on.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(super) struct WatchArg {
    /// Show it again whenever it changes: on a terminal in its place, elsewhere what is new, line by line
    #[arg(short = 'w', long)]
    pub(super) watch: bool,
}

/// How to show a list of which there is no more to say.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    #[command(flatten)]
    watch: WatchArg,
    #[command(flatten)]
    client: ClientArgs,
}

impl ListArgs {
    /// Shows a list that the server has under a path, and again whenever something happens to these nouns.
    pub(super) async fn show<T: Listed + DeserializeOwned>(
        &self,
        nouns: &str,
        path: &str,
    ) -> Result<(), Failure> {
        let server = Client::new(&self.client);
        show(&server, self.watch, Some(nouns), async || {
            let rows: Vec<T> = server.all(path).await?;
            Look::list(How::of(&self.client), &rows)
        })
        .await
    }

    /// Shows one thing as the only one of a list.
    pub(super) async fn show_row<T: Listed + DeserializeOwned>(
        &self,
        nouns: &str,
        path: &str,
    ) -> Result<(), Failure> {
        let server = Client::new(&self.client);
        show(&server, self.watch, Some(nouns), async || {
            let row: T = server.get(path).await?;
            Look::list(How::of(&self.client), &[row])
        })
        .await
    }

    /// Shows one thing, in words of its own below its row.
    pub(super) async fn show_one<T: Listed + DeserializeOwned>(
        &self,
        nouns: Option<&str>,
        path: &str,
        words: impl Fn(&T) -> String,
    ) -> Result<(), Failure> {
        let (server, how) = (Client::new(&self.client), How::of(&self.client));
        show(&server, self.watch, nouns, async || {
            let row: T = server.get(path).await?;
            let text = print::shown(how, &row.name(), &row, || {
                let list = print::rows(how, std::slice::from_ref(&row)).join("\n");
                format!("{list}\n{}", words(&row))
            })?;
            Ok(Look::one(&text, text.clone()))
        })
        .await
    }
}

/// What there is to see.
pub(super) struct Look {
    /// All of it, for a screen.
    whole: String,
    /// A line above the parts.
    head: Option<String>,
    parts: Vec<Part>,
}

/// A part, which is printed when it has changed.
struct Part {
    key: String,
    state: String,
    text: String,
}

impl Look {
    /// Looks at a list.
    pub(super) fn list<T: Listed>(how: How, items: &[T]) -> Result<Self, Failure> {
        let whole = print::listed(how, items)?;
        let (mut head, mut parts) = (None, Vec::new());
        match how.output {
            Output::Json | Output::Yaml => return Ok(Self::one(&whole, whole.clone())),
            Output::Table | Output::Wide => {
                let bare = How { width: None, ..how };
                let mut lines = print::rows(bare, items).into_iter();
                head = if how.no_headers { None } else { lines.next() };
                for (item, text) in items.iter().zip(lines) {
                    parts.push(Part {
                        key: item.name(),
                        state: serde_json::to_string(item)?,
                        text,
                    });
                }
            }
            Output::Name | Output::Jsonl => {
                for item in items {
                    let text = print::listed(how, std::slice::from_ref(item))?;
                    parts.push(Part { key: item.name(), state: text.clone(), text });
                }
            }
        }
        Ok(Self { whole, head, parts })
    }

    /// Puts a title above it, which is not printed by itself.
    pub(super) fn below(mut self, title: &str) -> Self {
        self.whole = format!("{title}\n\n{}", self.whole);
        self
    }

    /// Looks at one thing, which is as its state says.
    pub(super) fn one(state: &str, text: String) -> Self {
        let part = Part { key: String::new(), state: state.to_owned(), text: text.clone() };
        Self { whole: text, head: None, parts: vec![part] }
    }
}

/// What was printed of a list where there is no terminal.
#[derive(Default)]
struct Printed {
    head: bool,
    states: HashMap<String, String>,
}

impl Printed {
    /// Returns the lines that are new.
    fn news(&mut self, look: Look) -> Vec<String> {
        let mut lines = Vec::new();
        if let Some(head) = look.head.filter(|_| !self.head) {
            lines.push(head);
            self.head = true;
        }
        let mut states = HashMap::new();
        for Part { key, state, text } in look.parts {
            if self.states.get(&key) != Some(&state) {
                lines.push(text);
            }
            states.insert(key, state);
        }
        self.states = states;
        lines
    }
}

/// Shows it now, and with `--watch` again whenever something happens to one of the nouns, or every two seconds of what
/// nobody announces.
pub(super) async fn show(
    client: &Client,
    arg: WatchArg,
    nouns: Option<&str>,
    mut look: impl AsyncFnMut() -> Result<Look, Failure>,
) -> Result<(), Failure> {
    if !arg.watch {
        return print::say(&look().await?.whole);
    }
    let mut news = News::new(client, nouns);
    if print::screen_size().is_none() {
        let mut printed = Printed::default();
        loop {
            news.connect().await;
            match look().await {
                Ok(look) => {
                    news.found();
                    printed.news(look).iter().try_for_each(|line| print::say(line))?;
                }
                Err(failure) if news.fatal(&failure) => return Err(failure),
                Err(failure) => {
                    if news.lost() {
                        eprintln!("kiln: {failure}; trying again");
                    }
                }
            }
            news.wait(None).await;
        }
    }
    // The end by Ctrl-C gives the screen back.
    let painter = Painter::new();
    let watching = async {
        let mut last = String::new();
        loop {
            news.connect().await;
            match look().await {
                Ok(look) => {
                    news.found();
                    last = look.whole;
                }
                Err(failure) if news.fatal(&failure) => return Err(failure),
                Err(failure) => {
                    news.lost();
                    let problem = super::table::plain(&failure.to_string());
                    painter.draw(&format!("{problem}\n\n{last}"));
                    news.wait(None).await;
                    continue;
                }
            }
            painter.draw(&last);
            news.wait(Some(TICK)).await;
        }
    };
    let ended = tokio::select! {
        ended = watching => ended,
        _ = tokio::signal::ctrl_c() => Ok(()),
    };
    drop(painter);
    ended
}

/// Tells when there may be something new. Where the server is away it waits, longer each time.
pub(super) struct News<'a> {
    client: &'a Client,
    /// What to follow; nothing where nobody announces it.
    nouns: Option<String>,
    events: Option<Events>,
    pause: Duration,
    worked: bool,
    told: bool,
}

impl<'a> News<'a> {
    pub(super) fn new(client: &'a Client, nouns: Option<&str>) -> Self {
        let nouns = nouns.map(str::to_owned);
        Self { client, nouns, events: None, pause: FIRST, worked: false, told: false }
    }

    /// Begins to follow. What happens from now on is heard of by the next wait.
    pub(super) async fn connect(&mut self) {
        let Some(nouns) = &self.nouns else { return };
        if self.events.is_some() {
            return;
        }
        match self.client.events(&format!("noun={nouns}")).await {
            Ok(events) => self.events = Some(events),
            // Who may not follow events looks every now and then, and does not ask for them again: each refusal is
            // written to the log of changes.
            Err(failure) if failure.is_denied() => self.nouns = None,
            Err(_) => {}
        }
    }

    /// Returns whether a failure will not pass: the first answer of the server is a refusal, or it lets nobody in any more.
    pub(super) fn fatal(&self, failure: &Failure) -> bool {
        !self.worked
            || failure.is_denied()
            || matches!(failure.code(), Failure::NOT_FOUND | Failure::USAGE)
    }

    /// Notes that the server answers.
    pub(super) fn found(&mut self) {
        (self.worked, self.told) = (true, false);
    }

    /// Notes that the server is away. Returns whether that is news.
    pub(super) fn lost(&mut self) -> bool {
        self.events = None;
        !std::mem::replace(&mut self.told, true)
    }

    /// Waits until something happened, but no longer than that.
    pub(super) async fn wait(&mut self, longest: Option<Duration>) {
        let Some(events) = &mut self.events else {
            tokio::time::sleep(if self.told { self.pause } else { TICK }).await;
            self.pause = if self.told { (self.pause * 2).min(LAST) } else { FIRST };
            return;
        };
        self.pause = FIRST;
        let first = async { events.next().await };
        let first = match longest {
            Some(longest) => match tokio::time::timeout(longest, first).await {
                Ok(first) => first,
                Err(_) => return,
            },
            None => first.await,
        };
        let mut over = !matches!(first, Ok(Some(_)));
        let until = Instant::now() + TOGETHER;
        while !over {
            match tokio::time::timeout_at(until, events.next()).await {
                Ok(Ok(Some(_))) => {}
                Ok(_) => over = true,
                Err(_) => return,
            }
        }
        // The server has ended it, or is gone: look at all of it anew.
        self.events = None;
        tokio::time::sleep(self.pause).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(parts: &[(&str, &str)]) -> Look {
        let part = |(key, state): &(&str, &str)| Part {
            key: (*key).to_owned(),
            state: (*state).to_owned(),
            text: format!("{key} {state}"),
        };
        let parts = parts.iter().map(part).collect();
        Look { whole: String::new(), head: Some("HEAD".to_owned()), parts }
    }

    #[test]
    fn only_what_is_new_is_printed_again() {
        let mut printed = Printed::default();
        assert_eq!(printed.news(look(&[("a", "1"), ("b", "1")])), ["HEAD", "a 1", "b 1"]);
        assert_eq!(printed.news(look(&[("a", "1"), ("b", "2")])), ["b 2"]);
        assert_eq!(printed.news(look(&[("b", "2")])), [] as [&str; 0]);
        assert_eq!(printed.news(look(&[("a", "1"), ("b", "2")])), ["a 1"], "it came back");
    }
}
