//! What others wrote, made safe for a line of a script.
//!
//! iPXE has no quoting. It splits a line at white space, takes a word that is `&&` or `||` as an operator and one
//! that begins with `#` as the start of a comment, joins a line that ends in `\` with the next, and replaces
//! `${…}` in each word, again and again until none is left. So nothing can be escaped; it can only be kept out.
//! All of this was seen in the iPXE of Debian 13.

/// Returns the words of a text in a form that stays words: none ends the line, expands or acts as an operator.
pub(crate) fn words(text: &str) -> String {
    text.split(|c: char| c.is_whitespace() || c.is_control())
        .filter(|word| !word.is_empty())
        .map(word)
        .collect::<Vec<_>>()
        .join(" ")
}

fn word(word: &str) -> String {
    let mut out = String::with_capacity(word.len());
    for c in word.chars() {
        if c == '{' {
            out.truncate(out.trim_end_matches('$').len());
        }
        out.push(if c.is_ascii() { c } else { '?' });
    }
    out.truncate(out.trim_end_matches('\\').len());
    // A setting that does not exist expands to nothing, after the line was split into words and operators.
    if out.is_empty() || out.starts_with('#') || out == "&&" || out == "||" {
        out.insert_str(0, "${kiln-nothing}");
    }
    out
}

/// Returns a text as one part of the path or one value of the query of a URL.
pub(crate) fn url_part(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_inserted_ends_the_line_or_expands() {
        for (text, safe) in [
            ("console=ttyS0,115200n8  quiet", "console=ttyS0,115200n8 quiet"),
            ("a\nshell", "a shell"),
            ("a\r\n#!ipxe\u{85}b\u{2028}c\0d", "a ${kiln-nothing}#!ipxe b c d"),
            ("a && shell || b", "a ${kiln-nothing}&& shell ${kiln-nothing}|| b"),
            ("# x#y", "${kiln-nothing}# x#y"),
            ("${net0/mac}", "{net0/mac}"),
            ("$$${x} $${{$", "{x} {{$"),
            ("a$ {b}", "a$ {b}"),
            ("dyndbg=\"file x +p\"", "dyndbg=\"file x +p\""),
            ("end\\\\", "end"),
            ("\\", "${kiln-nothing}"),
            ("größe", "gr??e"),
            (" \t ", ""),
        ] {
            assert_eq!(words(text), safe, "{text:?}");
        }
    }

    #[test]
    fn a_part_of_a_url_never_leaves_its_place() {
        assert_eq!(url_part("../a b?c=${x}&&%\n"), "..%2fa%20b%3fc%3d%24%7bx%7d%26%26%25%0a");
        assert_eq!(url_part("kernel-modules_1.2~x"), "kernel-modules_1.2~x");
    }
}
