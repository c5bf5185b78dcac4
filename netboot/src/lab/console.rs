use std::io::{self, Read};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

/// How much of a console is kept. A whole boot writes about 60 KB.
const KEPT_BYTES: usize = 512 * 1024;

/// What a machine has written to its serial console, kept up to the last half a megabyte.
#[derive(Clone, Debug)]
pub struct Console {
    text: Arc<Mutex<Text>>,
    grown: watch::Receiver<()>,
}

/// Why a text did not come.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// The deadline passed.
    #[error("the console did not show `{pattern}` in time; it ended with:\n{tail}")]
    Deadline {
        /// What was waited for.
        pattern: String,
        /// Last lines.
        tail: String,
    },
    /// The machine ended first.
    #[error("the machine ended before its console showed `{pattern}`; it ended with:\n{tail}")]
    Ended {
        /// What was waited for.
        pattern: String,
        /// Last lines.
        tail: String,
    },
}

impl Console {
    /// Reads until the end of `source`, in a thread of its own.
    pub(super) fn follow(mut source: impl Read + Send + 'static) -> io::Result<Self> {
        let text = Arc::new(Mutex::new(Text::default()));
        let (grow, grown) = watch::channel(());
        let writer = Arc::clone(&text);
        thread::Builder::new().name("console".to_owned()).spawn(move || {
            let mut buffer = [0; 4096];
            loop {
                match source.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(length) => lock(&writer).push(buffer.get(..length).unwrap_or_default()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    Err(_) => break,
                }
                grow.send_replace(());
            }
        })?;
        Ok(Self { text, grown })
    }

    /// Returns what is kept, without the escape sequences that firmware positions its text with.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&lock(&self.text).bytes).into_owned()
    }

    /// Returns the last lines that are not empty.
    pub fn tail(&self, lines: usize) -> String {
        let text = self.text();
        let mut tail: Vec<&str> = text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .rev()
            .take(lines)
            .collect();
        tail.reverse();
        tail.join("\n")
    }

    /// Returns whether the console has shown `pattern`. White space does not count: loaders and firmware break long
    /// lines where their screen of 80 columns ends.
    pub fn shows(&self, pattern: &str) -> bool {
        dense(&self.text()).contains(&dense(pattern))
    }

    /// Waits until the console [shows](Self::shows) `pattern`.
    ///
    /// # Errors
    ///
    /// When the deadline passes or the machine ends first. Both carry the last lines of the console.
    ///
    /// # Cancel safety
    ///
    /// Nothing is lost: what was read is kept.
    pub async fn wait_for(&self, pattern: &str, deadline: Instant) -> Result<(), ConsoleError> {
        let mut grown = self.grown.clone();
        loop {
            grown.mark_unchanged();
            if self.shows(pattern) {
                return Ok(());
            }
            let (pattern, lines) = (pattern.to_owned(), 25);
            match timeout_at(deadline, grown.changed()).await {
                Ok(Ok(())) => {}
                // The reader is gone; it may have written once more since we looked.
                Ok(Err(_)) if self.shows(&pattern) => return Ok(()),
                Ok(Err(_)) => return Err(ConsoleError::Ended { pattern, tail: self.tail(lines) }),
                Err(_) => return Err(ConsoleError::Deadline { pattern, tail: self.tail(lines) }),
            }
        }
    }
}

fn dense(text: &str) -> String {
    text.chars().filter(|c| !c.is_whitespace()).collect()
}

fn lock(text: &Mutex<Text>) -> MutexGuard<'_, Text> {
    // The text is whole after every byte, so that a panic elsewhere does not spoil it.
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes without escape sequences.
#[derive(Debug, Default)]
struct Text {
    bytes: Vec<u8>,
    state: State,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Plain,
    /// After ESC.
    Escape,
    /// In a control sequence: until a byte from `@` to `~`.
    Sequence,
}

impl Text {
    fn push(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.state = match (self.state, byte) {
                (_, 0x1b) => State::Escape,
                (State::Escape, b'[') => State::Sequence,
                (State::Sequence, b'@'..=b'~') => {
                    // Firmware moves the cursor where others would end the line.
                    if matches!(byte, b'H' | b'f' | b'J') && !self.bytes.ends_with(b"\n") {
                        self.bytes.push(b'\n');
                    }
                    State::Plain
                }
                (State::Sequence, _) => State::Sequence,
                (State::Escape, _) | (State::Plain, b'\r' | 0) => State::Plain,
                (State::Plain, _) => {
                    self.bytes.push(byte);
                    State::Plain
                }
            };
        }
        if self.bytes.len() > KEPT_BYTES {
            self.bytes.drain(..self.bytes.len() - KEPT_BYTES / 2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn escape_sequences_are_left_out() {
        let mut text = Text::default();
        text.push(b"\x1b[2J\x1b[01;01H>>Start PXE\x1b[");
        text.push(b"1m over IPv4.\r\n\x1bcok");
        assert_eq!(String::from_utf8_lossy(&text.bytes), "\n>>Start PXE over IPv4.\nok");
    }

    #[test]
    fn a_console_that_never_stops_stays_small() {
        let mut text = Text::default();
        for _ in 0..1000 {
            text.push(&[b'x'; 4096]);
        }
        assert!(text.bytes.len() <= KEPT_BYTES);
    }

    #[tokio::test]
    async fn a_wait_ends_with_the_text_or_with_the_machine() {
        let deadline = Instant::now() + Duration::from_secs(20);
        let console = Console::follow(&b"one\ntwo\n"[..]).unwrap();
        console.wait_for("one two", deadline).await.unwrap();
        let error = console.wait_for("three", deadline).await.unwrap_err();
        assert!(matches!(error, ConsoleError::Ended { .. }), "{error}");
        assert!(error.to_string().ends_with("one\ntwo"), "{error}");
    }

    #[tokio::test]
    async fn a_wait_ends_at_its_deadline() {
        let (source, _open) = io::pipe().unwrap();
        let console = Console::follow(source).unwrap();
        let error = console.wait_for("never", Instant::now()).await.unwrap_err();
        assert!(matches!(error, ConsoleError::Deadline { .. }), "{error}");
    }
}
