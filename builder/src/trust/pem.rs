//! The text form of keys (RFC 7468): what `openssl pkey` reads and writes.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Wraps DER bytes; lines have 64 characters.
pub(crate) fn encode(label: &str, der: &[u8]) -> String {
    let body = STANDARD.encode(der);
    let mut text = format!("-----BEGIN {label}-----\n");
    for line in body.as_bytes().chunks(64) {
        text.push_str(&String::from_utf8_lossy(line));
        text.push('\n');
    }
    text.push_str(&format!("-----END {label}-----\n"));
    text
}

/// Returns the bytes of the first block with this label. What stands around it is skipped.
pub(crate) fn decode(label: &str, text: &str) -> Option<Vec<u8>> {
    let (_, rest) = text.split_once(&format!("-----BEGIN {label}-----"))?;
    let (body, _) = rest.split_once(&format!("-----END {label}-----"))?;
    let body: String = body.split_ascii_whitespace().collect();
    STANDARD.decode(body).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_comes_back_whatever_stands_around_it() {
        let bytes: Vec<u8> = (0..100).collect();
        let text = encode("PUBLIC KEY", &bytes);
        assert!(text.lines().all(|line| line.len() <= 64));
        assert_eq!(decode("PUBLIC KEY", &format!("# a\n{text}b")).unwrap(), bytes);
        assert_eq!(decode("PUBLIC KEY", &text.replace('\n', "\r\n")).unwrap(), bytes);
        assert_eq!(decode("PRIVATE KEY", &text), None);
        assert_eq!(decode("PUBLIC KEY", &text.replace('A', "*")), None);
    }
}
