//! Reads what arrives: syslog as RFC 5424 and as RFC 3164 describe it, and the kernel's netconsole. Pure; whatever the
//! bytes are, there is a line that can be shown.

use serde::{Deserialize, Serialize};

/// The longest line that is kept; what is longer is cut.
const LONGEST: usize = 1024;
/// Lines of one packet.
const MOST: usize = 64;

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
#[schema(as = HeardSource)]
pub enum Source {
    /// A program of the machine, by syslog.
    Syslog,
    /// Its kernel, by netconsole.
    Netconsole,
    /// Its kernel, in what kiln-init sends of a boot that failed.
    Kernel,
}

impl Source {
    /// Returns the word that listings show.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Syslog => "syslog",
            Self::Netconsole => "netconsole",
            Self::Kernel => "kernel",
        }
    }
}

const LEVELS: [&str; 8] = ["emerg", "alert", "crit", "err", "warning", "notice", "info", "debug"];

/// Returns the lines of one packet, in words.
pub(super) fn read(packet: &[u8], source: Source) -> Vec<String> {
    match source {
        Source::Syslog => shown(packet).map(|line| syslog(&line)).collect(),
        Source::Netconsole | Source::Kernel => {
            shown(packet).map(|line| netconsole(&line)).collect()
        }
    }
}

/// Cuts a packet into lines in which nothing can move a cursor: bytes that are no text, and control characters, are
/// written as `\xNN`.
fn shown(packet: &[u8]) -> impl Iterator<Item = String> + '_ {
    let lines = packet.split(|byte| matches!(byte, b'\n' | b'\r' | 0));
    lines.filter(|line| !line.is_empty()).take(MOST).map(|line| {
        let mut text = String::new();
        for chunk in line.utf8_chunks() {
            for c in chunk.valid().chars() {
                if c == '\t' || !is_hidden(c) {
                    text.push(c);
                } else {
                    let mut bytes = [0; 4];
                    c.encode_utf8(&mut bytes).bytes().for_each(|byte| escape(&mut text, byte));
                }
            }
            chunk.invalid().iter().for_each(|byte| escape(&mut text, *byte));
            if text.len() > LONGEST {
                break;
            }
        }
        let end = text.char_indices().map(|(at, _)| at).find(|at| *at >= LONGEST);
        text.truncate(end.unwrap_or(text.len()));
        text
    })
}

/// Returns whether a character cannot be seen, or changes how others are.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        )
}

fn escape(text: &mut String, byte: u8) {
    use std::fmt::Write as _;
    let _ = write!(text, "\\x{byte:02x}");
}

/// `<PRI>1 TIME HOST APP PROCID MSGID DATA TEXT` (RFC 5424 §6) or `<PRI>Mmm dd hh:mm:ss HOST TAG: TEXT` (RFC 3164 §4),
/// of which host and time are left out: both are the machine's word, and we know better.
fn syslog(line: &str) -> String {
    let Some((level, rest)) = priority(line) else { return line.to_owned() };
    let text = match rest.strip_prefix("1 ") {
        Some(rest) => rfc5424(rest).unwrap_or_else(|| rest.to_owned()),
        None => rfc3164(rest).to_owned(),
    };
    format!("{level}: {text}")
}

/// Takes the priority off, whose last three bits are the severity.
fn priority(line: &str) -> Option<(&'static str, &str)> {
    let (number, rest) = line.strip_prefix('<')?.split_once('>')?;
    let number: u8 = number.parse().ok().filter(|number| *number < 192)?;
    Some((LEVELS.get(usize::from(number & 7)).copied()?, rest))
}

fn rfc5424(rest: &str) -> Option<String> {
    let mut parts = rest.splitn(6, ' ');
    let (_time, _host, app) = (parts.next()?, parts.next()?, parts.next()?);
    let (_process, _id, rest) = (parts.next()?, parts.next()?, parts.next()?);
    // The mark of UTF-8 in front of a text, as it is written here.
    let text = after_data(rest)?;
    let text = text.strip_prefix("\\xef\\xbb\\xbf").unwrap_or(text);
    Some(if app == "-" { text.to_owned() } else { format!("{app}: {text}") })
}

/// Skips structured data: `-`, or elements in brackets, in which a backslash takes the meaning off what follows.
fn after_data(rest: &str) -> Option<&str> {
    if let Some(text) = rest.strip_prefix('-') {
        return Some(text.strip_prefix(' ').unwrap_or(text));
    }
    let (mut inside, mut quoted, mut escaped) = (false, false, false);
    for (at, c) in rest.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if inside => quoted = !quoted,
            '[' if !quoted => inside = true,
            ']' if !quoted => inside = false,
            ' ' if !inside => return rest.get(at + 1..),
            _ if !inside => return None,
            _ => {}
        }
    }
    Some("")
}

/// Skips the time, which has 15 characters, and the host, where they are there.
fn rfc3164(rest: &str) -> &str {
    let is_time = rest.get(..16).is_some_and(|time| {
        let bytes = time.as_bytes();
        let colons = bytes.get(9) == Some(&b':') && bytes.get(12) == Some(&b':');
        colons && bytes.get(15) == Some(&b' ') && bytes.get(3) == Some(&b' ')
    });
    if !is_time {
        return rest;
    }
    let after = rest.get(16..).unwrap_or_default();
    match after.split_once(' ') {
        // Without a host the tag comes at once.
        Some((host, text)) if !host.ends_with(':') => text,
        _ => after,
    }
}

/// Plain lines, or in its extended form `[RELEASE,]LEVEL,NUMBER,MICROSECONDS,FLAGS[,KEY=VALUE…];TEXT`.
fn netconsole(line: &str) -> String {
    extended(line).unwrap_or_else(|| line.to_owned())
}

fn extended(line: &str) -> Option<String> {
    let (head, text) = line.split_once(';')?;
    let mut fields = head.split(',').skip_while(|field| field.parse::<u64>().is_err());
    let (_level, _number) =
        (fields.next()?.parse::<u16>().ok()?, fields.next()?.parse::<u64>().ok()?);
    let micros: u64 = fields.next()?.parse().ok()?;
    fields.next()?;
    Some(format!("[{:>5}.{:06}] {text}", micros / 1_000_000, micros % 1_000_000))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_of_both_kinds_becomes_level_program_and_text() {
        for (packet, expected) in [
            ("<13>1 2026-11-21T10:00:00Z n1 web 42 - - started", "notice: web: started"),
            ("<11>1 - - - - - [a@1 b=\"x ] \\\" y\"][c] text here", "err: text here"),
            ("<11>1 - - web - - - \u{feff}text", "err: web: text"),
            ("<34>Oct 11 22:14:15 n1 su: failed for root", "crit: su: failed for root"),
            ("<34>Oct 11 22:14:15 su: failed", "crit: su: failed"),
            ("<6>kernel says", "info: kernel says"),
            // Not as any of them says, and kept as it is.
            ("no priority", "no priority"),
            ("<999>x", "<999>x"),
            ("<13>1 too short", "notice: too short"),
        ] {
            assert_eq!(read(packet.as_bytes(), Source::Syslog), [expected], "{packet}");
        }
    }

    #[test]
    fn netconsole_is_read_plain_and_extended() {
        for (packet, expected) in [
            ("[    1.5] eth0: up\n", "[    1.5] eth0: up"),
            ("6,416,1758012,-;eth0: up\n SUBSYSTEM=net\n", "[    1.758012] eth0: up"),
            ("6.12.0,4,7,12000001,-,caller=T1;Oops: x", "[   12.000001] Oops: x"),
            ("a;b", "a;b"),
        ] {
            assert_eq!(read(packet.as_bytes(), Source::Netconsole)[0], expected);
        }
    }

    #[test]
    fn hostile_bytes_are_written_in_digits_and_nothing_is_endless() {
        let lines = read(b"<13>a\x1b[2Jb\xff\xe2\x80\xae\tc", Source::Syslog);
        assert_eq!(lines, ["notice: a\\x1b[2Jb\\xff\\xe2\\x80\\xae\tc"]);
        assert_eq!(read(&[b'x'; 60_000], Source::Netconsole)[0].len(), LONGEST);
        assert_eq!(read(&[0xff; 60_000], Source::Netconsole)[0].len(), LONGEST);
        assert_eq!(read("é".repeat(9_000).as_bytes(), Source::Syslog)[0].len(), LONGEST);
        assert_eq!(read(&b"x\n".repeat(10_000), Source::Netconsole).len(), MOST);
        assert!(read(b"\n\r\0", Source::Syslog).is_empty());
        for length in 0..40 {
            let all = b"<13>1 2026-11-21T10:00:00Z n1 web 42 - [a b=\"c\"] started";
            let _ = read(&all[..length], Source::Syslog);
            let _ = read(&b"6,416,1758012,-;eth0"[..length.min(20)], Source::Netconsole);
        }
    }

    #[test]
    fn fuzzed_packets_become_lines_that_can_be_shown() {
        let samples: [&[u8]; 5] = [
            b"<13>1 2026-11-21T10:00:00Z n1 web 42 - - started",
            b"<11>1 - - - - - [a@1 b=\"x ] \\\" y\"][c] text here",
            b"<34>Oct 11 22:14:15 n1 su: failed for root",
            b"6,416,1758426,-,caller=T1;netconsole: network logging started\n KEY=value\n",
            b"4,100,200,-,ncfrag=0/900;a part of a long line",
        ];
        kiln_fuzz::check("heard", &samples, |packet| {
            for source in [Source::Syslog, Source::Netconsole, Source::Kernel] {
                let lines = read(packet, source);
                assert!(lines.len() <= MOST);
                for line in lines {
                    assert!(
                        line.len() <= LONGEST + 16 && !line.contains(['\n', '\u{1b}', '\u{202e}'])
                    );
                }
            }
        });
    }
}
