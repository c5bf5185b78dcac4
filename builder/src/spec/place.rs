//! Where in which file something was written.

use std::cell::RefCell;
use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

thread_local! {
    /// The file that is being read: the parser knows lines and columns only.
    static FILE: RefCell<Arc<str>> = RefCell::default();
}

/// Reads something from this file: all places in it name the file.
pub(super) fn within<T>(file: &Arc<str>, read: impl FnOnce() -> T) -> T {
    let outer = FILE.replace(Arc::clone(file));
    let result = read();
    FILE.set(outer);
    result
}

/// File, line and column, written as compilers do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    file: Arc<str>,
    // Small, for errors carry it.
    position: Option<(NonZeroU32, u32)>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        self.position.map_or(Ok(()), |(line, column)| write!(f, ":{line}:{column}"))
    }
}

impl Place {
    pub(super) fn new(file: &Arc<str>, at: Option<Location>) -> Self {
        // The parser counts from 1; 0 stands for a place it does not know.
        let position = at.and_then(|at| {
            let line = u32::try_from(at.line()).ok().and_then(NonZeroU32::new)?;
            Some((line, u32::try_from(at.column()).ok()?))
        });
        Self { file: Arc::clone(file), position }
    }

    /// Says where in a text something is, by what comes before it.
    pub fn behind(file: &str, before: &str) -> Self {
        let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let position = NonZeroU32::new(number(line)).map(|line| (line, number(column)));
        Self { file: file.into(), position }
    }

    /// Returns the name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// Returns the line, where it is known.
    pub fn line(&self) -> Option<usize> {
        self.position.and_then(|(line, _)| line.get().try_into().ok())
    }
}

/// A value and where it was written. Two are the same when their values are.
#[derive(Clone, Debug, Default)]
pub struct Placed<T> {
    value: T,
    place: Place,
}

impl<T> Placed<T> {
    /// Returns where it was written.
    pub fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn value_mut(&mut self) -> &mut T {
        &mut self.value
    }

    /// Returns the value, and where it was written.
    pub fn into_parts(self) -> (T, Place) {
        (self.value, self.place)
    }
}

impl<T> AsRef<T> for Placed<T> {
    fn as_ref(&self) -> &T {
        &self.value
    }
}

impl<T> Deref for Placed<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T: PartialEq> PartialEq for Placed<T> {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl<T: Eq> Eq for Placed<T> {}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Placed<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::deserialize(deserializer)?;
        Ok(Self { value, place: FILE.with_borrow(|file| Place::new(file, Some(referenced))) })
    }
}

impl<T: Serialize> Serialize for Placed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}

impl<T: JsonSchema> JsonSchema for Placed<T> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> std::borrow::Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
