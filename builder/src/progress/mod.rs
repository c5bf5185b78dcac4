//! How long work tells how far it is: the command line draws bars, a service or a test stays silent.

mod events;

use std::fmt;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

pub use self::events::Events;

/// Something that shows pieces of work while they run.
pub trait Progress: fmt::Debug + Send + Sync {
    /// Begins a piece of work; `total` is its size in bytes, if it is known.
    fn begin(&self, name: &str, total: Option<u64>) -> Box<dyn Task>;
}

/// One piece of work that is being shown. Dropping it ends it.
pub trait Task: fmt::Debug + Send {
    /// Tells that so many bytes more are done.
    fn advance(&mut self, bytes: u64);

    /// Ends it.
    fn finish(self: Box<Self>);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Progress for Silent {
    fn begin(&self, _name: &str, _total: Option<u64>) -> Box<dyn Task> {
        Box::new(Self)
    }
}

impl Task for Silent {
    fn advance(&mut self, _bytes: u64) {}

    fn finish(self: Box<Self>) {}
}

/// Draws one bar per piece of work on standard error, and nothing when that is not a terminal.
#[derive(Clone, Debug, Default)]
pub struct Bars {
    all: MultiProgress,
}

impl Bars {
    /// Returns a drawer with no bar yet.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Progress for Bars {
    fn begin(&self, name: &str, total: Option<u64>) -> Box<dyn Task> {
        let (bar, template) = match total {
            Some(total) => (
                ProgressBar::new(total),
                "{msg:32!} {bar:24} {bytes:>11} of {total_bytes:>11} {bytes_per_sec:>13}",
            ),
            None => (ProgressBar::new_spinner(), "{msg:32!} {spinner} {bytes:>11}"),
        };
        let style = ProgressStyle::with_template(template);
        let bar =
            self.all.add(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())));
        bar.set_message(name.to_owned());
        Box::new(Bar(bar))
    }
}

#[derive(Debug)]
struct Bar(ProgressBar);

impl Task for Bar {
    fn advance(&mut self, bytes: u64) {
        self.0.inc(bytes);
    }

    fn finish(self: Box<Self>) {}
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
