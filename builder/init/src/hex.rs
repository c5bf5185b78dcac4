//! Bytes that are written as hexadecimal digits.

/// Reads exactly so many bytes.
pub(crate) fn array<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    bytes(text)?.try_into().ok()
}

/// Reads all bytes of a text.
pub(crate) fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| {
            let [high, low] = pair else { return None };
            let digit = |digit: &u8| char::from(*digit).to_digit(16);
            u8::try_from(digit(high)? << 4 | digit(low)?).ok()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_become_bytes_and_anything_else_nothing() {
        assert_eq!(bytes("00fFa1"), Some(vec![0, 255, 161]));
        assert_eq!(bytes(""), Some(Vec::new()));
        assert_eq!(array::<2>("0102"), Some([1, 2]));
        for text in ["0", "0g", "+1", "ä", "01 "] {
            assert_eq!(bytes(text), None, "{text}");
        }
        assert_eq!(array::<2>("01"), None);
    }
}
