//! Server-sent events, as `/api/v1/events` sends them.

/// The longest line, and the longest event; the server sends none that are near it.
const LONGEST: usize = 4 << 20;

/// One event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// For `since`.
    pub(super) id: String,
    /// Its kind.
    pub(super) event: String,
    /// What it says.
    pub(super) data: String,
}

/// The server sends something else.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server sends an event of more than {LONGEST} bytes")]
pub(super) struct TooLong;

/// Puts events together from the parts in which they come.
#[derive(Debug, Default)]
pub(super) struct Parser {
    line: Vec<u8>,
    next: Sent,
}

impl Parser {
    /// Takes what came, and returns the events that are whole by it.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<Vec<Sent>, TooLong> {
        let mut whole = Vec::new();
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.len() + self.next.data.len() > LONGEST {
                return Err(TooLong);
            }
            if self.line.last() == Some(&b'\n') {
                let line = std::mem::take(&mut self.line);
                whole.extend(
                    self.line(String::from_utf8_lossy(&line).trim_end_matches(['\n', '\r'])),
                );
            }
        }
        Ok(whole)
    }

    fn line(&mut self, line: &str) -> Option<Sent> {
        if line.is_empty() {
            // What keeps the connection alive says nothing.
            let sent = std::mem::take(&mut self.next);
            return (!sent.data.is_empty()).then_some(sent);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => value.clone_into(&mut self.next.id),
            "event" => value.clone_into(&mut self.next.event),
            "data" => {
                if !self.next.data.is_empty() {
                    self.next.data.push('\n');
                }
                self.next.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_whole_however_they_are_cut() {
        let text =
            b": hello\n\nid: 1.2\nevent: boot\ndata: {\"a\":\ndata: 1}\n\r\n\nid:3\ndata:x\n\n";
        let sent = |id: &str, event: &str, data: &str| Sent {
            id: id.to_owned(),
            event: event.to_owned(),
            data: data.to_owned(),
        };
        let expected = vec![sent("1.2", "boot", "{\"a\":\n1}"), sent("3", "", "x")];
        for size in 1..text.len() {
            let mut parser = Parser::default();
            let parts = text.chunks(size).map(|part| parser.take(part).unwrap());
            assert_eq!(parts.flatten().collect::<Vec<_>>(), expected, "{size}");
        }
    }

    #[test]
    fn what_never_ends_is_not_kept() {
        let mut parser = Parser::default();
        let part = [b'a'; 1 << 16];
        assert!((0..100).any(|_| parser.take(&part) == Err(TooLong)));
        let mut parser = Parser::default();
        let line = ["data:", &"a".repeat(1 << 16), "\n"].concat();
        assert!((0..100).any(|_| parser.take(line.as_bytes()) == Err(TooLong)));
    }
}
