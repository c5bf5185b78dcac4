//! Where in which file something was written.

use std::fmt;
use std::num::NonZeroU32;
use std::ops::Deref;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_saphyr::{Location, Spanned};

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

    /// Adds the file, which the parser does not know.
    pub(super) fn is_in(&mut self, file: &Arc<str>) {
        self.place.file = Arc::clone(file);
    }

    pub(super) fn into_parts(self) -> (T, Place) {
        (self.value, self.place)
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
        Ok(Self { value, place: Place::new(&Arc::default(), Some(referenced)) })
    }
}

impl<T: Serialize> Serialize for Placed<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(serializer)
    }
}
