//! Extended headers of tar archives (POSIX.1-2017, pax, "pax Extended Header"), read by their lengths: values such as
//! file capabilities may contain any byte, line ends as well.

use crate::tree::Xattrs;

/// The prefix of keys that carry extended attributes; the value is written as it is.
pub(crate) const XATTR: &str = "SCHILY.xattr.";
/// The most bytes of an attribute's name and value (`XATTR_NAME_MAX`, `XATTR_SIZE_MAX` of Linux).
const MAX_NAME: usize = 255;
const MAX_VALUE: usize = 64 << 10;
/// The most attributes of one node. Linux has no such limit; real files have one or two.
const MAX_XATTRS: usize = 64;

/// A key and its value.
type Record<'a> = (&'a str, &'a [u8]);

/// Returns the keys and values of a header.
pub(crate) fn records(mut header: &[u8]) -> impl Iterator<Item = Result<Record<'_>, ()>> {
    std::iter::from_fn(move || {
        if header.is_empty() {
            return None;
        }
        let Some((record, rest)) = split(header) else {
            header = &[];
            return Some(Err(()));
        };
        header = rest;
        Some(Ok(record))
    })
}

/// Splits `LENGTH KEY=VALUE\n` off, where the length counts all of it.
fn split(header: &[u8]) -> Option<(Record<'_>, &[u8])> {
    let digits = header.iter().take(20).position(|byte| *byte == b' ')?;
    let len: usize = str::from_utf8(&header[..digits]).ok()?.parse().ok()?;
    let (record, rest) = header.split_at_checked(len)?;
    let record = record.get(digits + 1..)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    Some(((str::from_utf8(&record[..equals]).ok()?, &record[equals + 1..]), rest))
}

/// Writes one record.
pub(crate) fn push(header: &mut Vec<u8>, key: &str, value: &[u8]) {
    // The length counts its own digits.
    let rest = key.len() + value.len() + 3;
    let mut len = rest + 1;
    while rest + len.to_string().len() != len {
        len = rest + len.to_string().len();
    }
    header.extend_from_slice(format!("{len} {key}=").as_bytes());
    header.extend_from_slice(value);
    header.push(b'\n');
}

/// Takes an extended attribute over, unless it belongs to the computer that the archive was made on or would steer
/// the overlay file system that the files end up in. The error says what is wrong with it.
pub(crate) fn add_xattr(out: &mut Xattrs, name: &str, value: &[u8]) -> Result<(), &'static str> {
    let foreign = matches!(name, "security.selinux" | "system.nfs4_acl")
        || name.starts_with("trusted.overlay.")
        || name.starts_with("user.overlay.");
    if foreign {
        return Ok(());
    }
    if name.is_empty() || name.len() > MAX_NAME || name.contains('\0') {
        return Err("has an extended attribute whose name is empty, too long or contains NUL");
    }
    if value.len() > MAX_VALUE {
        return Err("has an extended attribute of more than 64 KiB");
    }
    if out.get(name).is_none() && out.iter().count() >= MAX_XATTRS {
        return Err("has more than 64 extended attributes");
    }
    out.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_again_whatever_bytes_it_has() {
        let mut header = Vec::new();
        let long = vec![b'\n'; 95];
        for (key, value) in [("a", &b""[..]), ("b", b"=\n\0"), ("SCHILY.xattr.c", &long)] {
            push(&mut header, key, value);
        }
        assert!(header.starts_with(b"5 a=\n8 b==\n\0\n"));
        let all: Vec<_> = records(&header).collect::<Result<_, _>>().unwrap();
        assert_eq!(all, [("a", &b""[..]), ("b", b"=\n\0"), ("SCHILY.xattr.c", &long)]);
        // Where the digits of the length make it longer.
        for len in 85..105 {
            let mut header = Vec::new();
            push(&mut header, "k", &vec![b'v'; len]);
            assert_eq!(records(&header).next().unwrap().unwrap().1.len(), len);
        }
    }

    #[test]
    fn a_record_that_lies_about_its_length_ends_the_header() {
        for bad in ["", " ", "9 a=b\n", "5 a=b\n", "6 a=b\nx", "6 ab=\n", "-1 a\n", "2 ", "0 a=\n"]
        {
            let all: Vec<_> = records(bad.as_bytes()).collect();
            assert!(all.len() <= 2 && all.last().is_none_or(Result::is_err) || bad == "6 ab=\n");
        }
        assert!(records(&[b'1'; 100]).next().unwrap().is_err());
    }

    #[test]
    fn attributes_of_the_host_and_of_overlays_are_left_out_and_large_ones_refused() {
        let mut out = Xattrs::new();
        for name in ["security.selinux", "trusted.overlay.redirect", "user.overlay.opaque"] {
            add_xattr(&mut out, name, b"x").unwrap();
        }
        assert!(out.is_empty());
        assert!(add_xattr(&mut out, "", b"").is_err());
        assert!(add_xattr(&mut out, &"n".repeat(256), b"").is_err());
        assert!(add_xattr(&mut out, "user.a", &vec![0; MAX_VALUE + 1]).is_err());
        for n in 0..MAX_XATTRS {
            add_xattr(&mut out, &format!("user.{n}"), b"").unwrap();
        }
        assert!(add_xattr(&mut out, "user.0", b"again").is_ok());
        assert!(add_xattr(&mut out, "user.more", b"").is_err());
    }
}
