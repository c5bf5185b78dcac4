//! What a loop cannot do for now: told once when it begins and once when it is over, with how long it took, however
//! often the loop tries meanwhile.

use std::error::Error;
use std::time::Duration;

use tokio::time::Instant;

/// Whether something fails, and since when.
#[derive(Clone, Debug)]
pub(crate) struct Trouble {
    begins: &'static str,
    ends: &'static str,
    since: Option<Instant>,
}

impl Trouble {
    /// Names what is told when it begins to fail, and when it is over.
    pub(crate) const fn new(begins: &'static str, ends: &'static str) -> Self {
        Self { begins, ends, since: None }
    }

    /// Takes what came of a try and tells it where that is news. Returns what there is, if anything.
    pub(crate) fn note<T, E: Error>(&mut self, result: Result<T, E>) -> Option<T> {
        self.note_of(None, result)
    }

    /// As [`note`](Self::note), of one thing of several, such as a webhook.
    pub(crate) fn note_of<T, E: Error>(
        &mut self,
        of: Option<&str>,
        result: Result<T, E>,
    ) -> Option<T> {
        match result {
            Ok(done) => {
                self.over(of);
                Some(done)
            }
            Err(error) => {
                self.failed(of, &crate::cli::chain(&error));
                None
            }
        }
    }

    /// Tells that a try has failed, where the one before has not.
    pub(crate) fn failed(&mut self, of: Option<&str>, error: &str) {
        if self.begins() {
            tracing::warn!(of, error, "{}", self.begins);
        } else {
            tracing::debug!(of, error, "{}", self.begins);
        }
    }

    /// Tells that a try has not failed, where the one before has.
    pub(crate) fn over(&mut self, of: Option<&str>) {
        if let Some(took) = self.ends() {
            let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(of, took_ms, "{}", self.ends);
        }
    }

    /// Returns whether it has begun just now.
    fn begins(&mut self) -> bool {
        let begins = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        begins
    }

    /// Returns how long it took, where it has just ended.
    fn ends(&mut self) -> Option<Duration> {
        self.since.take().map(|since| since.elapsed())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex, OnceLock};

    use super::*;

    /// Collects the lines of the log that this thread writes.
    #[derive(Clone, Debug, Default)]
    pub(crate) struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Lines {
        /// Begins to collect, until what is returned is dropped.
        pub(crate) fn collect() -> (Self, tracing::subscriber::DefaultGuard) {
            // Where only one is there, a thread without any that comes first to a place of the code has its lines left
            // out everywhere.
            static SECOND: OnceLock<tracing::Dispatch> = OnceLock::new();
            SECOND.get_or_init(|| {
                let nowhere = tracing_subscriber::fmt().with_writer(io::sink);
                tracing::Dispatch::new(nowhere.with_max_level(tracing::Level::DEBUG).finish())
            });
            let lines = Self::default();
            let writer = lines.clone();
            let log = tracing_subscriber::fmt()
                .with_writer(move || writer.clone())
                .with_ansi(false)
                .without_time()
                .with_max_level(tracing::Level::DEBUG)
                .finish();
            (lines, tracing::subscriber::set_default(log))
        }

        /// Returns how many lines of a level hold a text.
        pub(crate) fn with(&self, level: &str, text: &str) -> usize {
            let bytes = self.0.lock().unwrap().clone();
            let text_of = String::from_utf8_lossy(&bytes);
            text_of.lines().filter(|line| line.contains(level) && line.contains(text)).count()
        }
    }

    #[test]
    fn what_fails_many_times_is_told_when_it_begins_and_when_it_is_over() {
        let (lines, _guard) = Lines::collect();
        let mut trouble = Trouble::new("it is lost", "it is back");
        let lost = || Err::<(), _>(io::Error::other("no route"));
        assert_eq!(trouble.note(Ok::<_, io::Error>(7)), Some(7));
        for _ in 0..100 {
            assert_eq!(trouble.note(lost()), None);
        }
        assert_eq!(lines.with("WARN", "it is lost"), 1, "{lines:?}");
        assert_eq!((lines.with("WARN", "no route"), lines.with("DEBUG", "it is lost")), (1, 99));
        for _ in 0..2 {
            trouble.note(Ok::<_, io::Error>(()));
        }
        assert_eq!((lines.with("INFO", "it is back"), lines.with("INFO", "took_ms=")), (1, 1));
        trouble.note_of(Some("chat"), lost());
        assert_eq!(lines.with("WARN", "of=\"chat\""), 1, "{lines:?}");
    }
}
