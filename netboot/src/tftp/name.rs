//! The names of files, as clients write them.

/// The longest name that is looked up.
const MAX_NAME: usize = 255;

/// Returns the name that a request means, in one form: parts with one `/` between them, and none that leads out of
/// where it is looked up. What is no such name is nothing.
///
/// Some firmware writes paths as Windows does (`\EFI\boot.efi`), begins them with a slash, or has `0xff` after the end
/// of a text that DHCP gave it.
pub(super) fn clean(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().rposition(|byte| *byte != 0xff)?;
    let text = std::str::from_utf8(bytes.get(..=end)?).ok()?;
    if text.len() > MAX_NAME || text.chars().any(char::is_control) {
        return None;
    }
    let mut name = String::with_capacity(text.len());
    for part in text.split(['/', '\\']) {
        match part {
            "" | "." => continue,
            ".." => return None,
            _ => {}
        }
        if !name.is_empty() {
            name.push('/');
        }
        name.push_str(part);
    }
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_form_however_firmware_writes_them() {
        let is = |bytes: &[u8], name: &str| assert_eq!(clean(bytes).as_deref(), Some(name));
        is(b"ipxe/a.efi", "ipxe/a.efi");
        is(b"/ipxe/a.efi", "ipxe/a.efi");
        is(b"\\ipxe\\a.efi", "ipxe/a.efi");
        is(b"//ipxe/.//a.efi", "ipxe/a.efi");
        is(b"ipxe/a.efi\xff", "ipxe/a.efi");
        is(b"ipxe/a.efi\xff\xff", "ipxe/a.efi");
        is("grün/ä".as_bytes(), "grün/ä");
        is(b"%2e%2e/a", "%2e%2e/a");
        is(b"a..b/...", "a..b/...");
        is(b"C:\\boot", "C:/boot");
    }

    #[test]
    fn names_that_lead_out_or_are_none_mean_nothing() {
        let long = vec![b'a'; 256];
        for bytes in [
            &b""[..],
            b"/",
            b"\xff",
            b"..",
            b"../etc/passwd",
            b"a/../../etc/passwd",
            b"..\\..\\etc\\passwd",
            b"/a/..",
            b"a\nb",
            b"a\x1b[31m",
            // Latin-1, and an overlong form of `/`.
            b"gr\xfcn",
            b"..\xc0\xafetc",
            &long,
        ] {
            assert_eq!(clean(bytes), None, "{bytes:?}");
        }
    }
}
