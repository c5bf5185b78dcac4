//! Which machines: by name, as lists of names, or by their labels; and what became of each.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use anyhow::anyhow;
use clap::Args;
use kiln_inventory::{Selector, expand_hostlist};
use serde::Deserialize;

use super::Failure;
use super::client::{Client, path_part};

/// The machines that something is done to.
#[derive(Args, Clone, Debug)]
pub(super) struct Chosen {
    /// Names or hardware addresses; rack1-n[01-40] is forty names
    #[arg(value_name = "MACHINE", value_parser = names, required_unless_present = "selector")]
    pub(super) machines: Vec<Vec<String>>,
    /// The machines with these labels: rack=r1, role in (web,db), !broken, with commas between them
    #[arg(short = 'l', long, conflicts_with = "machines")]
    pub(super) selector: Option<Selector>,
}

/// Expands a list of names.
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    expand_hostlist(text).map_err(|error| error.to_string())
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

impl Chosen {
    /// Returns the names, each once, in their order.
    pub(super) async fn names(&self, client: &Client) -> Result<Vec<String>, Failure> {
        let Some(selector) = &self.selector else {
            let mut seen = HashSet::new();
            let names = self.machines.iter().flatten().filter(|name| seen.insert(name.as_str()));
            return Ok(names.cloned().collect());
        };
        let selector = selector.to_string();
        let path = format!("/api/v1/machines?fields=name&selector={}", path_part(&selector));
        let found: Vec<Named> = client.all(&path).await?;
        if found.is_empty() {
            let error = anyhow!("there is no machine with the labels `{selector}`");
            return Err(Failure::new(Failure::NOT_FOUND, error));
        }
        Ok(found.into_iter().map(|machine| machine.name).collect())
    }
}

/// The machines that a list is about; all where nothing is said.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct Which {
    /// Only of these machines; rack1-n[01-40] is forty names
    #[arg(value_name = "MACHINE", value_parser = checked)]
    machines: Vec<String>,
    /// Only of machines with these labels: rack=r1, role in (web,db), !broken, with commas between them
    #[arg(short = 'l', long)]
    selector: Option<Selector>,
}

fn checked(text: &str) -> Result<String, String> {
    names(text).map(|_| text.to_owned())
}

impl Which {
    /// Returns what belongs after `?`, with `&` in front of each word.
    pub(super) fn query(&self) -> String {
        let mut query = String::new();
        if let Some(selector) = &self.selector {
            let _ = write!(query, "&selector={}", path_part(&selector.to_string()));
        }
        if !self.machines.is_empty() {
            let _ = write!(query, "&name={}", path_part(&self.machines.join(",")));
        }
        query
    }
}

/// How long what is under way may still take after Ctrl-C, so that nobody has to guess what became of it.
const GRACE: Duration = Duration::from_secs(5);

/// What became of each of several machines.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: usize,
    failures: Vec<(String, Failure)>,
    /// How many there were to be, and the first that nothing was done to, where Ctrl-C came before the end.
    rest: Option<(usize, String)>,
}

impl Tally {
    /// Does something to one machine after another until Ctrl-C, and returns what that gave.
    pub(super) async fn of_each<T>(
        names: &[String],
        one: impl AsyncFn(&str) -> Result<T, Failure>,
    ) -> (Self, Vec<T>) {
        let stop = async {
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        Self::until((stop, GRACE), names, one).await
    }

    async fn until<T>(
        (stop, grace): (impl Future<Output = ()>, Duration),
        names: &[String],
        one: impl AsyncFn(&str) -> Result<T, Failure>,
    ) -> (Self, Vec<T>) {
        let (mut tally, mut done) = (Self::default(), Vec::new());
        let mut stop = pin!(stop);
        for (number, name) in names.iter().enumerate() {
            let mut work = pin!(one(name));
            let (result, stopped) = tokio::select! {
                biased;
                result = &mut work => (Some(result), false),
                () = &mut stop => (tokio::time::timeout(grace, &mut work).await.ok(), true),
            };
            let next = if result.is_some() { number + 1 } else { number };
            done.extend(result.and_then(|result| tally.note(name, result)));
            if stopped {
                tally.rest = names.get(next).map(|name| (names.len(), name.clone()));
                break;
            }
        }
        (tally, done)
    }

    /// Notes one, and returns what it gave.
    pub(super) fn note<T>(&mut self, name: &str, result: Result<T, Failure>) -> Option<T> {
        self.all += 1;
        match result {
            Ok(it) => Some(it),
            Err(failure) => {
                self.failures.push((name.to_owned(), failure));
                None
            }
        }
    }

    /// Whether Ctrl-C came before the end.
    pub(super) const fn was_interrupted(&self) -> bool {
        self.rest.is_some()
    }

    /// Whether it failed for a machine.
    pub(super) fn has_failed(&self, name: &str) -> bool {
        self.failures.iter().any(|(failed, _)| failed == name)
    }

    /// Goes on with what became of the machines for which it went well, in a second step.
    pub(super) fn then(mut self, next: Self) -> Self {
        let (of, all) = (self.all, self.failures.len() + next.all);
        self.failures.extend(next.failures);
        let rest = self.rest.or_else(|| next.rest.map(|(_, first)| (of, first)));
        Self { all, rest, ..self }
    }

    /// Says why it failed, and for how many.
    pub(super) fn end(mut self, failed: &str) -> Result<(), Failure> {
        if self.all == 1 && self.rest.is_none() {
            return self.failures.pop().map_or(Ok(()), |(_, failure)| Err(failure));
        }
        for (name, failure) in &self.failures {
            eprintln!("kiln: {name}: {failure}");
        }
        let (all, bad) = (self.all, self.failures.len());
        if let Some((of, first)) = self.rest {
            let done = all - bad;
            let text = format!(
                "interrupted: {done} of {of} machines are done; `{first}` is the first that is not"
            );
            let code = if done == 0 { 1 } else { Failure::PARTIAL };
            return Err(Failure::new(code, anyhow!(text)));
        }
        let text = format!("{bad} of {all} machines {failed}");
        match self.failures.pop() {
            None => Ok(()),
            Some((_, last)) if bad == all => Err(Failure::new(last.code(), anyhow!(text))),
            Some(_) => Err(Failure::new(Failure::PARTIAL, anyhow!(text))),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    fn parse(args: &[&str]) -> Result<Chosen, clap::error::ErrorKind> {
        let command = Chosen::augment_args(Command::new("x"));
        let whole = ["x"].into_iter().chain(args.iter().copied());
        let matches = command.try_get_matches_from(whole).map_err(|error| error.kind())?;
        Ok(Chosen::from_arg_matches(&matches).unwrap())
    }

    #[tokio::test]
    async fn machines_are_named_once_however_they_are_listed() {
        let client = Client::Here("/nowhere".into());
        let chosen = parse(&["n[08-10],a", "n09", "52:54:00:00:00:01"]).unwrap();
        let names = chosen.names(&client).await.unwrap();
        assert_eq!(names, ["n08", "n09", "n10", "a", "52:54:00:00:00:01"]);
        assert!(
            parse(&[]).is_err() && parse(&["n[1"]).is_err() && parse(&["a", "-l", "b"]).is_err()
        );
        assert!(parse(&["-l", "rack=r1,!broken"]).is_ok());
    }

    #[test]
    fn a_list_about_some_machines_says_which() {
        let selector = "rack=r1".parse().ok();
        let which = Which { machines: vec!["n[1-2]".to_owned(), "b".to_owned()], selector };
        assert_eq!(which.query(), "&selector=rack%3Dr1&name=n%5B1-2%5D%2Cb");
        assert_eq!(Which::default().query(), "");
    }

    #[tokio::test]
    async fn who_interrupts_is_told_what_was_done_and_where_to_go_on() {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        let interrupted = async |during: &str, ends: bool| {
            let key = tokio::sync::Notify::new();
            let one = async |name: &str| {
                if name == during {
                    key.notify_one();
                    match ends {
                        true => tokio::time::sleep(Duration::from_millis(1)).await,
                        false => std::future::pending().await,
                    }
                }
                Ok(name.to_owned())
            };
            let grace = if ends { GRACE } else { Duration::from_millis(1) };
            let (tally, done) = Tally::until((key.notified(), grace), &names, one).await;
            let failure = tally.end("were not changed").err();
            (done.len(), failure.map(|failure| (failure.code(), failure.to_string())))
        };
        let told = |code: u8, done: u8, first: &str| {
            let text = "machines are done; ";
            Some((
                code,
                format!("interrupted: {done} of 4 {text}`{first}` is the first that is not"),
            ))
        };
        // What is under way is waited for.
        assert_eq!(interrupted("b", true).await, (2, told(Failure::PARTIAL, 2, "c")));
        assert_eq!(interrupted("d", true).await, (4, None));
        // It takes too long.
        assert_eq!(interrupted("a", false).await, (0, told(1, 0, "a")));
        assert_eq!(interrupted("d", false).await, (3, told(Failure::PARTIAL, 3, "d")));
        assert_eq!(interrupted("", true).await, (4, None));
    }

    #[tokio::test]
    async fn a_second_step_counts_for_those_that_came_to_it() {
        let names = ["a", "b", "c", "d"].map(str::to_owned);
        let step = async |names: &[String], fails: &str, during: &str| {
            let key = tokio::sync::Notify::new();
            let one = async |name: &str| {
                if name == during {
                    key.notify_one();
                    std::future::pending::<()>().await;
                }
                match name == fails {
                    true => Err(Failure::new(Failure::NOT_FOUND, anyhow!("no"))),
                    false => Ok(name.to_owned()),
                }
            };
            Tally::until((key.notified(), Duration::from_millis(1)), names, one).await
        };
        let both = async |fails: [&str; 2], during: &str| {
            let (first, there) = step(&names, fails[0], "").await;
            let tally = first.then(step(&there, fails[1], during).await.0);
            assert!(tally.has_failed(fails[0]) && tally.was_interrupted() != during.is_empty());
            let failure = tally.end("did not do it").unwrap_err();
            (failure.code(), failure.to_string())
        };
        let told = |text: &str| (Failure::PARTIAL, text.to_owned());
        assert_eq!(both(["a", "c"], "").await, told("2 of 4 machines did not do it"));
        let text = "interrupted: 1 of 4 machines are done; `c` is the first that is not";
        assert_eq!(both(["a", ""], "c").await, told(text));
    }

    #[test]
    fn the_exit_code_tells_all_from_some() {
        let not_found = || Failure::new(Failure::NOT_FOUND, anyhow!("no"));
        let code = |results: Vec<Result<(), Failure>>| {
            let mut tally = Tally::default();
            for result in results {
                tally.note("n", result);
            }
            tally.end("were not changed").err().map(|failure| failure.code())
        };
        assert_eq!(code(vec![Ok(()), Ok(())]), None);
        assert_eq!(code(vec![Err(not_found())]), Some(Failure::NOT_FOUND));
        assert_eq!(code(vec![Err(not_found()), Ok(())]), Some(Failure::PARTIAL));
        assert_eq!(code(vec![Err(not_found()), Err(not_found())]), Some(Failure::NOT_FOUND));
    }
}
