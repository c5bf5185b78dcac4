//! What is under `secrets` in the metadata of machines and groups is sealed before it is written. A sealed value is a
//! text that tells nothing and that stands for the value: whoever sends it back leaves the value as it is.

use std::fmt;

use serde_json::{Map, Value};

/// The key of metadata whose values are for the machine only.
const SECRETS: &str = "secrets";
/// How each sealed value begins.
const MARK: &str = "sealed:";

/// Seals and opens values.
pub trait Seal: fmt::Debug + Send + Sync {
    /// Seals the text of a value for its place, without the mark.
    ///
    /// # Errors
    ///
    /// Says why it cannot.
    fn seal(&self, place: &str, text: &[u8]) -> Result<String, String>;

    /// Opens what was sealed for this place.
    ///
    /// # Errors
    ///
    /// Says why it cannot.
    fn open(&self, place: &str, sealed: &str) -> Result<Vec<u8>, String>;

    /// Returns whether something is sealed with the key that is in use.
    fn is_current(&self, sealed: &str) -> bool;
}

/// Seals the secrets of metadata. A value that is the same as before stays sealed as it is.
pub(crate) fn seal_secrets(
    seal: &dyn Seal,
    new: &mut Map<String, Value>,
    now: Option<&Map<String, Value>>,
) -> Result<(), String> {
    let now = now.and_then(|now| now.get(SECRETS));
    new.get_mut(SECRETS).map_or(Ok(()), |value| seal_value(seal, SECRETS, value, now))
}

fn seal_value(
    seal: &dyn Seal,
    place: &str,
    value: &mut Value,
    now: Option<&Value>,
) -> Result<(), String> {
    match value {
        // Nothing takes a value of something weaker away.
        Value::Null => Ok(()),
        Value::Object(map) => map.iter_mut().try_for_each(|(key, inside)| {
            seal_value(seal, &format!("{place}.{key}"), inside, now.and_then(|now| now.get(key)))
        }),
        Value::String(text) if text.starts_with(MARK) => {
            // Else who may write one machine could have it told what is another one's.
            if now == Some(value) {
                return Ok(());
            }
            Err(format!("`{place}` is not how this secret is sealed here; send the secret itself"))
        }
        clear => {
            if let Some(now) = now.filter(|now| is_current(seal, now))
                && open_value(seal, place, now).as_ref() == Ok(&*clear)
            {
                *clear = now.clone();
                return Ok(());
            }
            let text = serde_json::to_vec(clear).map_err(|error| error.to_string())?;
            *clear = Value::String(format!("{MARK}{}", seal.seal(place, &text)?));
            Ok(())
        }
    }
}

fn is_current(seal: &dyn Seal, value: &Value) -> bool {
    let sealed = value.as_str().and_then(|text| text.strip_prefix(MARK));
    sealed.is_some_and(|sealed| seal.is_current(sealed))
}

/// Opens the secrets of metadata, as a machine is told them. What is not sealed stays as it is.
///
/// # Errors
///
/// Says which one cannot be opened, and why.
pub fn open_secrets(seal: &dyn Seal, metadata: &mut Map<String, Value>) -> Result<(), String> {
    if let Some(secrets) = metadata.get_mut(SECRETS) {
        *secrets = open_value(seal, SECRETS, secrets)?;
    }
    Ok(())
}

fn open_value(seal: &dyn Seal, place: &str, value: &Value) -> Result<Value, String> {
    match value {
        Value::Object(map) => map
            .iter()
            .map(|(key, inside)| {
                Ok((key.clone(), open_value(seal, &format!("{place}.{key}"), inside)?))
            })
            .collect::<Result<Map<_, _>, String>>()
            .map(Value::Object),
        Value::String(text) => match text.strip_prefix(MARK) {
            Some(sealed) => {
                let text = seal.open(place, sealed).map_err(|why| format!("`{place}`: {why}"))?;
                serde_json::from_slice(&text).map_err(|error| format!("`{place}`: {error}"))
            }
            None => Ok(value.clone()),
        },
        other => Ok(other.clone()),
    }
}

/// Seals what is in the clear and what another key than the one in use has sealed. What cannot be opened stays.
pub(crate) fn renew_secrets(
    seal: &dyn Seal,
    metadata: &mut Map<String, Value>,
) -> Result<(), String> {
    metadata.get_mut(SECRETS).map_or(Ok(()), |value| renew_value(seal, SECRETS, value))
}

fn renew_value(seal: &dyn Seal, place: &str, value: &mut Value) -> Result<(), String> {
    match value {
        Value::Object(map) => map
            .iter_mut()
            .try_for_each(|(key, inside)| renew_value(seal, &format!("{place}.{key}"), inside)),
        Value::String(text) if text.starts_with(MARK) => {
            if is_current(seal, value) {
                return Ok(());
            }
            if let Ok(clear) = open_value(seal, place, value) {
                *value = clear;
                seal_value(seal, place, value, None)?;
            }
            Ok(())
        }
        clear => seal_value(seal, place, clear, None),
    }
}

/// Returns what is sealed in metadata, each without the mark.
pub fn sealed_secrets(metadata: &Map<String, Value>) -> Vec<&str> {
    let (mut left, mut sealed) = (Vec::from_iter(metadata.get(SECRETS)), Vec::new());
    while let Some(value) = left.pop() {
        match value {
            Value::Object(map) => left.extend(map.values()),
            other => sealed.extend(other.as_str().and_then(|text| text.strip_prefix(MARK))),
        }
    }
    sealed
}

/// Returns how many bytes of a value are there because it is sealed, which is in hexadecimal digits.
pub(crate) fn grown_by_sealing(value: &Value) -> usize {
    match value {
        Value::Object(map) => map.values().map(grown_by_sealing).sum(),
        Value::String(text) if text.starts_with(MARK) => text.len() / 2,
        _ => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// Turns texts around, and says with which key.
    #[derive(Debug)]
    pub(crate) struct Backwards(pub(crate) char);

    impl Seal for Backwards {
        fn seal(&self, place: &str, text: &[u8]) -> Result<String, String> {
            let turned: String = std::str::from_utf8(text).unwrap().chars().rev().collect();
            Ok(format!("{}:{place}:{turned}", self.0))
        }

        fn open(&self, place: &str, sealed: &str) -> Result<Vec<u8>, String> {
            let turned = sealed.split_once(':').unwrap().1.strip_prefix(place).ok_or("no")?;
            Ok(turned.strip_prefix(':').ok_or("no")?.chars().rev().collect::<String>().into())
        }

        fn is_current(&self, sealed: &str) -> bool {
            sealed.starts_with(self.0)
        }
    }

    fn map(value: Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn secrets_are_sealed_where_they_are_and_stay_so_when_they_come_back() {
        let seal = Backwards('a');
        let clear = map(
            json!({"role": "db", "secrets": {"p": "geheim", "n": {"x": [1, 2]}, "gone": null}}),
        );
        let mut sealed = clear.clone();
        seal_secrets(&seal, &mut sealed, None).unwrap();
        assert_eq!(sealed["role"], "db");
        assert_eq!(
            sealed["secrets"],
            json!({"p": "sealed:a:secrets.p:\"mieheg\"",
                   "n": {"x": "sealed:a:secrets.n.x:]2,1["}, "gone": null})
        );
        let mut opened = sealed.clone();
        open_secrets(&seal, &mut opened).unwrap();
        assert_eq!(opened, clear);
        let mut each = sealed_secrets(&sealed);
        each.sort_unstable();
        assert_eq!(each, ["a:secrets.n.x:]2,1[", "a:secrets.p:\"mieheg\""]);
        assert!(sealed_secrets(&clear).is_empty());
        for said in [&sealed, &clear] {
            let mut again = said.clone();
            seal_secrets(&seal, &mut again, Some(&sealed)).unwrap();
            assert_eq!(again, sealed, "the same secret is no change");
        }
        let mut other = map(json!({"secrets": {"other": sealed["secrets"]["p"]}}));
        let why = seal_secrets(&seal, &mut other, Some(&sealed)).unwrap_err();
        assert!(
            why.contains("`secrets.other` is not how") && why.contains("send the secret"),
            "{why}"
        );
        assert!(open_secrets(&seal, &mut other).is_err(), "it opens in its place only");
    }

    #[test]
    fn what_is_in_the_clear_or_of_an_old_key_is_sealed_anew() {
        let mut metadata = map(json!({"secrets": {"p": "x"}}));
        renew_secrets(&Backwards('a'), &mut metadata).unwrap();
        assert_eq!(metadata["secrets"]["p"], "sealed:a:secrets.p:\"x\"");
        let old = metadata.clone();
        renew_secrets(&Backwards('a'), &mut metadata).unwrap();
        assert_eq!(metadata, old);
        renew_secrets(&Backwards('b'), &mut metadata).unwrap();
        assert_eq!(metadata["secrets"]["p"], "sealed:b:secrets.p:\"x\"");
        let mut lost = map(json!({"secrets": {"q": metadata["secrets"]["p"]}}));
        let before = lost.clone();
        renew_secrets(&Backwards('c'), &mut lost).unwrap();
        assert_eq!(lost, before, "what cannot be opened stays");
        assert_eq!(grown_by_sealing(&json!({"secrets": {"p": "sealed:1234567"}, "b": "x"})), 7);
    }
}
