//! Lists of domain names as DNS writes them (RFC 1035 §3.1, §4.1.4).

#![warn(clippy::indexing_slicing)]

/// What `resolv.conf` has a use for.
const MOST_NAMES: usize = 8;
const LONGEST_NAME: usize = 253;
/// The least length of a pointer's jump is two octets, and each goes back.
const MOST_JUMPS: usize = 32;

/// Reads names one after the other. Those after one that is broken are not taken; DHCPv4 lets a name end with a pointer
/// to an earlier one (RFC 3397), the others do not.
pub(super) fn read(bytes: &[u8], pointers: bool) -> Vec<String> {
    let mut names = Vec::new();
    let mut at = 0;
    while names.len() < MOST_NAMES {
        let Some((name, next)) = one(bytes, at, pointers) else { break };
        // Router advertisements are padded with empty names.
        if !name.is_empty() && !names.contains(&name) {
            names.push(name);
        }
        at = next;
    }
    names
}

/// Returns the name at a place, and where the next one begins.
fn one(bytes: &[u8], start: usize, pointers: bool) -> Option<(String, usize)> {
    let mut name = String::new();
    let (mut at, mut next, mut jumps) = (start, None, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((name, next.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                if !label.iter().all(|&byte| is_letter(byte)) {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                name.push_str(std::str::from_utf8(label).ok()?);
                if name.len() > LONGEST_NAME {
                    return None;
                }
                at += 1 + length;
            }
            192.. if pointers && jumps < MOST_JUMPS => {
                let target = (length & 0x3f) << 8 | usize::from(*bytes.get(at + 1)?);
                // Forwards it could go round for ever.
                if target >= at {
                    return None;
                }
                next.get_or_insert(at + 2);
                at = target;
                jumps += 1;
            }
            _ => return None,
        }
    }
}

/// Names go into files that others read by lines and words.
fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_')
}

/// Reads a name that is written as text.
pub(super) fn text(value: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(value).ok()?.trim_end_matches(['\0', '.']);
    let good = !text.is_empty()
        && text.len() <= LONGEST_NAME
        && text.bytes().all(|byte| is_letter(byte) || byte == b'.');
    good.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_with_and_without_pointers() {
        // The example of RFC 3397 §2.
        let bytes = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
        assert_eq!(read(bytes, true), ["eng.apple.com", "marketing.apple.com"]);
        assert_eq!(read(bytes, false), ["eng.apple.com"]);
        assert_eq!(read(b"\x03lab\0\0\0\0", false), ["lab"]);
    }

    #[test]
    fn what_goes_round_or_past_the_end_is_not_read() {
        for bytes in [
            &b"\xc0\x00"[..],
            b"\x01a\xc0\x00",
            b"\x01a\xc0\x02",
            b"\x3fa",
            b"\xc0",
            b"\x40a\0",
            b"\x03a\nb\0",
            b"",
        ] {
            assert_eq!(read(bytes, true), Vec::<String>::new(), "{bytes:?}");
        }
        // Each pointer leads to the one before: as long a chain as fits.
        let chain: Vec<u8> = std::iter::once(0)
            .chain(
                (0..200_u16)
                    .flat_map(|n| (0xc000 | if n == 0 { 0 } else { n * 2 - 1 }).to_be_bytes()),
            )
            .collect();
        assert!(read(&chain[397..], true).is_empty());
        let long = [[63; 64].map(|_| b'a').as_slice(), b"\0"].concat();
        assert!(read(&long, true).is_empty());
        let many = (b'a'..=b'y').flat_map(|letter| [1, letter, 0]);
        assert_eq!(read(&many.collect::<Vec<u8>>(), true).len(), MOST_NAMES);
    }

    #[test]
    fn a_text_with_a_line_break_is_no_name() {
        assert_eq!(text(b"lab.example.\0").as_deref(), Some("lab.example"));
        for wrong in [&b"a\nb"[..], b"", b"\0", b"a b", b"\xff"] {
            assert_eq!(text(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn fuzzed_names_are_read_to_their_end() {
        let whole = b"\x03eng\x05apple\x03com\0\x09marketing\xc0\x04";
        kiln_fuzz::check("init-names", &[whole], |bytes| {
            for pointers in [true, false] {
                assert!(read(bytes, pointers).iter().all(|name| name.len() < 256));
            }
        });
    }
}
