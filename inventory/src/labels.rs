//! The labels of a machine.

use std::collections::{BTreeMap, btree_map};
use std::hash::{Hash, Hasher};
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest name or value of a label in bytes, which is also that of what firmware calls a machine by.
pub(crate) const MAX_TEXT: usize = 256;

/// Returns whether a text can be the value of a label.
pub fn is_label_value(text: &str) -> bool {
    text.len() <= MAX_TEXT && !text.chars().any(char::is_control)
}

/// What an operator calls a machine besides its name: a map from names to values.
///
/// A copy shares the map until one of the two is changed, and a map of a few labels is most of what a machine takes: the
/// machines of an inventory that have the same labels have one.
#[derive(Clone, Debug, Default)]
pub struct Labels(Option<Arc<BTreeMap<String, String>>>);

static NONE: BTreeMap<String, String> = BTreeMap::new();

impl Labels {
    /// Returns labels without any.
    pub const fn new() -> Self {
        Self(None)
    }
}

impl Deref for Labels {
    type Target = BTreeMap<String, String>;

    fn deref(&self) -> &Self::Target {
        self.0.as_deref().unwrap_or(&NONE)
    }
}

impl DerefMut for Labels {
    fn deref_mut(&mut self) -> &mut Self::Target {
        Arc::make_mut(self.0.get_or_insert_default())
    }
}

impl From<BTreeMap<String, String>> for Labels {
    fn from(map: BTreeMap<String, String>) -> Self {
        Self((!map.is_empty()).then(|| Arc::new(map)))
    }
}

impl<const N: usize> From<[(String, String); N]> for Labels {
    fn from(labels: [(String, String); N]) -> Self {
        BTreeMap::from(labels).into()
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        labels.into_iter().collect::<BTreeMap<_, _>>().into()
    }
}

impl<'a> IntoIterator for &'a Labels {
    type Item = (&'a String, &'a String);
    type IntoIter = btree_map::Iter<'a, String, String>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Labels {}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl Serialize for Labels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        (**self).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Labels {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(deserializer).map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(key: &str, value: &str) -> (String, String) {
        (key.to_owned(), value.to_owned())
    }

    #[test]
    fn a_copy_is_shared_until_it_is_changed() {
        let one = Labels::from([label("rack", "r1")]);
        let mut two = one.clone();
        assert!(std::ptr::eq(&*one, &*two));
        two.insert("role".to_owned(), "db".to_owned());
        assert_eq!((one.len(), two.len()), (1, 2));
        two.remove("role");
        assert_eq!(one, two);
        two.clear();
        assert_eq!(two, Labels::new());
    }

    #[test]
    fn it_is_written_as_the_map_that_it_is() {
        let labels: Labels = serde_json::from_str(r#"{"b":"2","a":"1"}"#).unwrap();
        assert_eq!(serde_json::to_string(&labels).unwrap(), r#"{"a":"1","b":"2"}"#);
        assert_eq!(labels, [label("a", "1"), label("b", "2")].into_iter().collect());
        serde_json::from_str::<Labels>(r#"{"a":1}"#).unwrap_err();
    }
}
