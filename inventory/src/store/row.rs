//! Words in columns: one text for both kinds of database, and readable by people with a SQL shell.

use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Serialize, de::value::StrDeserializer};

use super::StoreError;

/// Reads a value that was written by its `Display`.
pub(super) fn parse<T: FromStr>(what: &'static str, text: &str) -> Result<T, StoreError> {
    text.parse().map_err(|_| damaged(what, text))
}

/// Reads a value that may be missing.
pub(super) fn parse_opt<T: FromStr>(
    what: &'static str,
    text: Option<&str>,
) -> Result<Option<T>, StoreError> {
    text.map(|text| parse(what, text)).transpose()
}

/// Writes a value that may be missing.
pub(super) fn text<T: ToString>(value: Option<&T>) -> Option<String> {
    value.map(ToString::to_string)
}

/// Writes an enum without data by its serde name.
pub(super) fn word<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(word)) => word,
        _ => String::new(),
    }
}

/// Reads an enum without data by its serde name.
pub(super) fn parse_word<T: DeserializeOwned>(
    what: &'static str,
    text: &str,
) -> Result<T, StoreError> {
    let reader = StrDeserializer::<serde::de::value::Error>::new(text);
    T::deserialize(reader).map_err(|_| damaged(what, text))
}

/// Writes a document. Those that are kept have texts as keys, so that none of them fails.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// Bounds a count to what a column can hold.
pub(super) fn count(value: Option<u64>) -> Option<i64> {
    value.map(|value| i64::try_from(value).unwrap_or(i64::MAX))
}

/// Reads a count.
pub(super) fn parse_count(
    what: &'static str,
    value: Option<i64>,
) -> Result<Option<u64>, StoreError> {
    value
        .map(|value| u64::try_from(value).map_err(|_| damaged(what, &value.to_string())))
        .transpose()
}

pub(super) fn damaged(what: &'static str, value: &str) -> StoreError {
    StoreError::Row { what, value: value.chars().take(80).collect() }
}
