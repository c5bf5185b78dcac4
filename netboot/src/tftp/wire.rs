//! TFTP packets (RFC 1350, 2347): bytes become checked types here, and nowhere else.

#![warn(clippy::indexing_slicing)]

/// The largest request that is read. RFC 2347 §3 allows 512 octets.
pub(super) const MAX_REQUEST: usize = 1024;
/// Options of one request that are looked at; there are four that we know.
const MAX_OPTIONS: usize = 32;
/// Room for the text of an error.
const MAX_TEXT: usize = 120;

/// Error codes (RFC 1350 §5, RFC 2347 §4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Code(pub(super) u16);

impl Code {
    pub(super) const OTHER: Self = Self(0);
    pub(super) const NOT_FOUND: Self = Self(1);
    pub(super) const ACCESS: Self = Self(2);
    pub(super) const ILLEGAL: Self = Self(4);
    pub(super) const UNKNOWN_TID: Self = Self(5);
    /// "User aborted the transfer", as firmware ends a request that was for the size only.
    pub(super) const OPTIONS: Self = Self(8);
}

/// How the bytes of a file are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Octet,
    Netascii,
}

/// A request to read a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Request {
    /// As it came: any bytes but 0.
    pub(super) name: Vec<u8>,
    pub(super) mode: Mode,
    pub(super) options: Asked,
}

/// The options of a request that we know, as numbers. One that is no number, or comes twice, counts as not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) blksize: Option<u64>,
    pub(super) tsize: Option<u64>,
    pub(super) timeout: Option<u64>,
    pub(super) windowsize: Option<u64>,
}

/// What came to the port where requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    Read(Request),
    /// What cannot be served, and the error to say so.
    Refuse(Code, &'static str),
    /// What deserves no answer: an error, or a packet of a transfer.
    Ignore,
}

/// What came to the port of a transfer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Ack(u16),
    Error(u16, String),
    /// Neither; it changes nothing.
    Other,
}

/// Reads what came to the port where requests go.
pub(super) fn parse_request(packet: &[u8]) -> Incoming {
    let Some((opcode, rest)) = packet.split_first_chunk() else { return Incoming::Ignore };
    match u16::from_be_bytes(*opcode) {
        1 => {}
        2 => return Incoming::Refuse(Code::ACCESS, "nothing can be written here"),
        _ => return Incoming::Ignore,
    }
    let malformed = Incoming::Refuse(Code::ILLEGAL, "malformed request");
    let Some((name, rest)) = text(rest) else { return malformed };
    let Some((mode, mut rest)) = text(rest) else { return malformed };
    let mode = match mode.to_ascii_lowercase().as_slice() {
        b"octet" => Mode::Octet,
        b"netascii" => Mode::Netascii,
        _ => return Incoming::Refuse(Code::ILLEGAL, "ask in the mode octet"),
    };
    let mut options = Asked::default();
    for _ in 0..MAX_OPTIONS {
        let Some((option, after)) = text(rest) else { break };
        // The last value may lack its end: nothing can follow it.
        let (value, after) = text(after).unwrap_or((after, &[]));
        rest = after;
        let value = std::str::from_utf8(value).ok().filter(|text| is_number(text));
        let Some(value) = value.and_then(|text| text.parse().ok()) else { continue };
        let field = match option.to_ascii_lowercase().as_slice() {
            b"blksize" => &mut options.blksize,
            b"tsize" => &mut options.tsize,
            b"timeout" => &mut options.timeout,
            b"windowsize" => &mut options.windowsize,
            _ => continue,
        };
        field.get_or_insert(value);
    }
    Incoming::Read(Request { name: name.to_owned(), mode, options })
}

/// `parse` would take a sign.
fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Splits a text with its 0 off.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    let (text, rest) = bytes.split_at_checked(end)?;
    Some((text, rest.get(1..)?))
}

/// Reads what came to the port of a transfer.
pub(super) fn parse_reply(packet: &[u8]) -> Reply {
    let Some(([0, opcode, high, low], rest)) = packet.split_first_chunk() else {
        return Reply::Other;
    };
    let number = u16::from_be_bytes([*high, *low]);
    match opcode {
        4 => Reply::Ack(number),
        5 => Reply::Error(number, printable(text(rest).map_or(rest, |(text, _)| text))),
        _ => Reply::Other,
    }
}

/// Returns a text from the wire, fit for a log and a terminal.
pub(super) fn printable(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = |c: char| if c.is_control() || is_direction(c) { '?' } else { c };
    text.chars().take(MAX_TEXT).map(clean).collect()
}

/// Returns whether a character turns the text around it about.
const fn is_direction(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Returns the head of a block.
pub(super) const fn data_head(block: u16) -> [u8; 4] {
    let [high, low] = block.to_be_bytes();
    [0, 3, high, low]
}

/// Returns an error.
pub(super) fn error(code: Code, text: &str) -> Vec<u8> {
    let mut packet = vec![0, 5];
    packet.extend(code.0.to_be_bytes());
    packet.extend(text.bytes().filter(|byte| *byte != 0).take(MAX_TEXT));
    packet.push(0);
    packet
}

/// Returns an acknowledgement of options.
pub(super) fn oack(options: &[(&str, u64)]) -> Vec<u8> {
    let mut packet = vec![0, 6];
    for (name, value) in options {
        packet.extend(name.as_bytes());
        packet.push(0);
        packet.extend(value.to_string().as_bytes());
        packet.push(0);
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_whatever_the_case_of_its_words() {
        let request = parse_request(b"\0\x01a\xffb\0OCTET\0BlkSize\x001468\0windowsize\x004");
        let options = Asked { blksize: Some(1468), windowsize: Some(4), ..Asked::default() };
        let name = b"a\xffb".to_vec();
        assert_eq!(request, Incoming::Read(Request { name, mode: Mode::Octet, options }));
        let mail = parse_request(b"\0\x01a\0mail\0");
        assert!(matches!(mail, Incoming::Refuse(Code::ILLEGAL, _)));
    }

    #[test]
    fn an_error_has_an_end_and_no_more_than_its_room() {
        assert_eq!(error(Code::NOT_FOUND, "no"), b"\0\x05\0\x01no\0");
        assert_eq!(error(Code::OTHER, &"x\0".repeat(500)).len(), 125);
    }

    const SAMPLES: [&[u8]; 6] = [
        b"\0\x01ipxe/ipxe-amd64.efi\0octet\0tsize\x000\0blksize\x001468\0windowsize\x004\0",
        b"\0\x01undionly.kpxe\0netascii\0timeout\x005\0",
        b"\0\x02a\0octet\0",
        b"\0\x04\0\x01",
        b"\0\x05\0\x08User aborted the transfer\0",
        b"\0\x06blksize\x001468\0",
    ];

    /// Reads a packet as all that it may be.
    fn read(packet: &[u8]) {
        if let Incoming::Read(request) = parse_request(packet) {
            assert!(!request.name.contains(&0));
            if let Some(name) = super::super::name::clean(&request.name) {
                assert!(name.split('/').all(|part| !["", ".", ".."].contains(&part)));
                assert!(!name.contains('\\'));
            }
            let limits = super::super::Limits::default();
            let (terms, answer) =
                super::super::options::settle(&request.options, request.mode, 9, &limits);
            assert!(terms.block >= 8 && terms.block <= limits.block && terms.window >= 1);
            assert!(answer.is_none_or(|answer| answer.len() < 100));
        }
        if let Reply::Error(_, text) = parse_reply(packet) {
            assert!(!text.chars().any(char::is_control) && text.len() <= 4 * MAX_TEXT);
        }
    }

    #[test]
    fn fuzzed_packets_are_read_or_refused_and_never_more_than_that() {
        kiln_fuzz::check("tftp", &SAMPLES, read);
    }

    /// `./dev fuzz` gives many more rounds.
    #[test]
    fn damaged_packets_are_read_or_refused_and_never_more_than_that() {
        let rounds = std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok());
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = |below: usize| {
            // Xorshift (Marsaglia 2003): the same in every run.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state >> 33).unwrap() % below.max(1)
        };
        for round in 0..rounds.unwrap_or(2000) * SAMPLES.len() {
            let mut packet = SAMPLES[round % SAMPLES.len()].to_vec();
            for _ in 0..=next(4) {
                let at = next(packet.len());
                match next(5) {
                    0 => packet.truncate(at),
                    1 => packet.insert(at, [0, 0xff, b'9', b'/'][next(4)]),
                    2 if !packet.is_empty() => drop(packet.remove(at)),
                    3 => packet.extend_from_within(at..),
                    _ if !packet.is_empty() => packet[at] = u8::try_from(next(256)).unwrap(),
                    _ => {}
                }
            }
            read(&packet);
        }
    }
}
