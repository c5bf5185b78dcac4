//! The little of ASN.1's distinguished encoding (X.690 §10) that signatures need: values are written inside out.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const NULL: u8 = 0x05;
pub(super) const OBJECT_ID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;
pub(super) const SET: u8 = 0x31;

/// Returns the tag `[n]` of something that has parts.
pub(super) const fn context(n: u8) -> u8 {
    0xa0 | n
}

/// Writes a value: tag, length, content.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    let len = content.len().to_be_bytes();
    let short: Vec<u8> = len.into_iter().skip_while(|&byte| byte == 0).collect();
    match short.as_slice() {
        [] => out.push(0),
        [len] if *len < 0x80 => out.push(*len),
        // A length of eight bytes at most: their number fits beside the mark.
        long => {
            out.push(0x80 | u8::try_from(long.len()).unwrap_or_default());
            out.extend_from_slice(long);
        }
    }
    out.extend_from_slice(content);
    out
}

/// Writes a value that consists of others.
pub(super) fn group(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    value(tag, &parts.concat())
}

/// Writes a set, whose parts have an order of their own.
pub(super) fn set(mut parts: Vec<Vec<u8>>) -> Vec<u8> {
    parts.sort_unstable();
    value(SET, &parts.concat())
}

/// One value that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Value<'a> {
    pub(super) tag: u8,
    /// Its content.
    pub(super) content: &'a [u8],
    /// The whole of it, with tag and length.
    pub(super) whole: &'a [u8],
}

/// Reads the first value and returns it and what follows.
pub(super) fn read(bytes: &[u8]) -> Option<(Value<'_>, &[u8])> {
    let [tag, first, rest @ ..] = bytes else { return None };
    let (len, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, digit| len << 8 | usize::from(*digit)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(len)?;
    let whole = bytes.get(..bytes.len() - after.len())?;
    Some((Value { tag: *tag, content, whole }, after))
}

/// Reads all values in a row.
pub(super) fn read_all(mut bytes: &[u8]) -> Option<Vec<Value<'_>>> {
    let mut values = Vec::new();
    while !bytes.is_empty() {
        let (value, rest) = read(bytes)?;
        values.push(value);
        bytes = rest;
    }
    Some(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_as_short_as_they_can_be_and_read_back() {
        for (len, head) in [
            (0, &[4, 0][..]),
            (127, &[4, 127]),
            (128, &[4, 0x81, 128]),
            (256, &[4, 0x82, 1, 0]),
            (70_000, &[4, 0x83, 1, 0x11, 0x70]),
        ] {
            let content = vec![9; len];
            let bytes = value(OCTET_STRING, &content);
            assert!(bytes.starts_with(head), "{len}");
            let (read, rest) = read(&bytes).unwrap();
            assert_eq!((read.tag, read.content, read.whole), (4, &content[..], &bytes[..]));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn what_is_cut_off_or_of_endless_length_is_not_read() {
        for bad in [&[][..], &[4], &[4, 2, 1], &[4, 0x80], &[4, 0x82, 1], &[4, 0x85, 0, 0, 0, 0, 0]]
        {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn fuzzed_certificates_and_keys_are_read_or_refused() {
        let inner = group(0x30, &[&value(2, &[1; 9]), &value(0x0c, b"name")]);
        let whole = group(0x30, &[&inner, &value(3, &[0; 70]), &group(context(0), &[&inner])]);
        let text =
            crate::trust::PublicKey::to_pem(crate::trust::SiteKey::generate().unwrap().public());
        kiln_fuzz::check("der", &[&whole, text.as_bytes()], |bytes| {
            let values = read_all(bytes).unwrap_or_default();
            assert!(values.len() <= bytes.len());
            let _ = super::super::certificate::Certificate::parse(bytes.to_vec());
            let text = String::from_utf8_lossy(bytes);
            let _ = crate::trust::PublicKey::from_pem(&text);
            let _ = crate::trust::SiteKey::from_pem(&text);
        });
    }
}
