//! Reads what a machine says about itself: bytes from a stranger, as far as anybody knows.

use kiln_types::facts::Facts;
use serde::{Deserialize, Serialize};

/// The largest description that is read.
pub const MOST_BYTES: usize = 256 << 10;
/// Ours has five levels.
const DEEPEST: usize = 16;
/// Values and keys; a machine with 256 disks has 3000.
const MOST_PARTS: usize = 20_000;

/// What a machine said about itself, as the API tells it.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ToldFacts {
    /// The boot in which it did.
    pub boot: i64,
    /// When, in milliseconds since 1970.
    pub at: i64,
    /// What it said.
    pub facts: Facts,
}

/// Why facts are refused.
#[derive(Debug, thiserror::Error)]
pub enum FactsError {
    /// Brackets within brackets.
    #[error("facts go deeper than {DEEPEST} levels")]
    Deep,
    /// More than any machine has.
    #[error("facts have more than {MOST_PARTS} parts")]
    Many,
    /// Something else than facts.
    #[error("these are no facts of a machine")]
    Json(#[from] serde_json::Error),
}

/// Reads facts. What no machine has is refused before anything is made of it; the rest is bounded.
///
/// # Errors
///
/// When it is no JSON, has another form, or has too many parts.
pub fn read(bytes: &[u8]) -> Result<Facts, FactsError> {
    look_over(bytes)?;
    Ok(serde_json::from_slice::<Facts>(bytes)?.bounded())
}

/// Counts levels and parts without making anything of them.
fn look_over(bytes: &[u8]) -> Result<(), FactsError> {
    let (mut depth, mut parts, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        if in_text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_text = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'[' | b'{' => {
                depth += 1;
                parts += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' | b':' => parts += 1,
            _ => {}
        }
        if depth > DEEPEST {
            return Err(FactsError::Deep);
        }
        if parts > MOST_PARTS {
            return Err(FactsError::Many);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_newer_or_older_system_are_read() {
        let text = br#"{"system":{"serial":"S\u001b[2J1","colour":"red"},"gpus":[{"a":[1]}],"disks":[{}]}"#;
        let facts = read(text).unwrap();
        assert_eq!((facts.system.serial.as_str(), facts.disks.len()), ("S[2J1", 1));
        assert_eq!(read(b"{}").unwrap(), Facts::default());
    }

    #[test]
    fn what_goes_too_deep_or_has_too_many_parts_is_refused_before_it_is_read() {
        let deep = format!("{{\"x\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(matches!(read(deep.as_bytes()), Err(FactsError::Deep)));
        let wide = format!("{{\"disks\":[{}{{}}]}}", "{},".repeat(50_000));
        assert!(matches!(read(wide.as_bytes()), Err(FactsError::Many)));
        // Brackets in texts are no levels.
        let text = format!(r#"{{"kernel":"\"{}"}}"#, "[".repeat(100));
        assert!(read(text.as_bytes()).unwrap().kernel.starts_with("\"[["));
    }

    #[test]
    fn what_is_no_object_of_facts_is_refused() {
        for text in
            ["", "[", "[1]", "\"x\"", "{\"disks\":{}}", "{\"memory\":{\"total\":-1}}", "\u{0}"]
        {
            assert!(matches!(read(text.as_bytes()), Err(FactsError::Json(_))), "{text}");
        }
    }

    #[test]
    fn fuzzed_facts_are_refused_or_bounded() {
        let told = br#"{"system":{"vendor":"A","serial":"S1","uuid":"11223344-5566-7788-99aa-bbccddeeff00"},
            "cpu":{"model":"x","threads":8},"memory":{"total":1073741824,"modules":[{"slot":"A1","size":1}]},
            "disks":[{"name":"sda","size":1,"serial":"D"}],"nics":[{"name":"eth0","mac":"52:54:00:00:00:01",
            "switch":{"chassis":"c","port":"p","vlan":7}}],"kernel":"6.12","firmware":{"kind":"uefi"}}"#;
        kiln_fuzz::check("facts", &[told, b"{}", b"[]"], |bytes| {
            let Ok(facts) = read(bytes) else { return };
            // What is kept can be read again, and says the same.
            let kept = serde_json::to_vec(&facts).unwrap();
            assert_eq!(read(&kept).unwrap(), facts);
        });
    }
}
