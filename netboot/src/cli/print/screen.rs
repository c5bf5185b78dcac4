//! The terminal: how large it is, and text that is drawn over what was there before.

use std::io::{self, IsTerminal as _, Write as _};

/// Returns the columns and rows of the terminal on standard output, if it is one.
pub(in crate::cli) fn size() -> Option<(usize, usize)> {
    let out = io::stdout();
    if !out.is_terminal() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(out).ok()?;
    // One that does not say is as old as they come.
    let or = |said: u16, usual| if said == 0 { usual } else { usize::from(said) };
    Some((or(size.ws_col, 80), or(size.ws_row, 24)))
}

/// Draws the same place again and again. What was there before comes back, and the cursor, when it is dropped.
#[derive(Debug)]
pub(in crate::cli) struct Painter(());

impl Painter {
    /// Changes to the second screen of the terminal and hides the cursor.
    pub(in crate::cli) fn new() -> Self {
        put("\u{1b}[?1049h\u{1b}[?25l");
        Self(())
    }

    /// Draws a text, as much of it as there is room for.
    pub(in crate::cli) fn draw(&self, text: &str) {
        let (_, rows) = size().unwrap_or((80, 24));
        put(&frame(text, rows));
    }
}

impl Drop for Painter {
    fn drop(&mut self) {
        put("\u{1b}[?25h\u{1b}[?1049l");
    }
}

/// Returns what draws a text without that the screen is empty in between.
fn frame(text: &str, rows: usize) -> String {
    let mut out = "\u{1b}[H".to_owned();
    for (index, line) in text.lines().take(rows.max(1)).enumerate() {
        if index > 0 {
            out.push_str("\r\n");
        }
        out.push_str(line);
        out.push_str("\u{1b}[K");
    }
    out + "\u{1b}[J"
}

/// A terminal that is gone is noticed elsewhere.
fn put(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_never_scrolls() {
        assert_eq!(frame("a\nb\nc", 2), "\u{1b}[Ha\u{1b}[K\r\nb\u{1b}[K\u{1b}[J");
        assert_eq!(frame("", 2), "\u{1b}[H\u{1b}[J");
        assert_eq!(frame("a", 0), "\u{1b}[Ha\u{1b}[K\u{1b}[J");
    }
}
