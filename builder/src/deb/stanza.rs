//! Fields of Debian's control files (deb822(5)).

/// Returns the value of a field, with its continuation lines as they stand. Names match in any case.
pub(crate) fn field<'a>(stanza: &'a str, name: &str) -> Option<&'a str> {
    let mut start = 0;
    for line in stanza.split_inclusive('\n') {
        let at = start;
        start += line.len();
        let Some((key, _)) = line.split_once(':') else { continue };
        if line.starts_with([' ', '\t']) || !key.eq_ignore_ascii_case(name) {
            continue;
        }
        let value = &stanza[at + key.len() + 1..];
        let mut end = 0;
        for (number, line) in value.split_inclusive('\n').enumerate() {
            if number > 0 && !line.starts_with([' ', '\t']) {
                break;
            }
            end += line.len();
        }
        return Some(value[..end].trim());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_with_their_continuation_lines() {
        let text = "Package: a\nDepends: b,\n c\nX:\nDescription: Y: no\n Z: no\nLast: v";
        assert_eq!(field(text, "package"), Some("a"));
        assert_eq!(field(text, "Depends"), Some("b,\n c"));
        assert_eq!(field(text, "X"), Some(""));
        assert_eq!(field(text, "Z"), None);
        assert_eq!(field(text, "Last"), Some("v"));
    }
}
