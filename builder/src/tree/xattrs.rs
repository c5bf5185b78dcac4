use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// The extended attributes of one node, by name (xattr(7)). As large as a pointer; nothing is allocated while there
/// are none, and clones share what there is.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Xattrs(Option<Arc<ByName>>);

type ByName = BTreeMap<Box<str>, Box<[u8]>>;

impl Xattrs {
    /// The name under which file capabilities are kept (capabilities(7)).
    pub const CAPABILITY: &str = "security.capability";

    /// Returns no attributes.
    pub const fn new() -> Self {
        Self(None)
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|all| all.is_empty())
    }

    /// Returns the value of an attribute.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.as_ref()?.get(name).map(AsRef::as_ref)
    }

    /// Sets an attribute.
    pub fn insert(&mut self, name: &str, value: &[u8]) {
        Arc::make_mut(self.0.get_or_insert_default()).insert(name.into(), value.into());
    }

    /// Returns names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.0.iter().flat_map(|all| all.iter()).map(|(name, value)| (&**name, &**value))
    }
}

impl fmt::Debug for Xattrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_sorted_and_a_clone_keeps_its_own() {
        let mut first = Xattrs::new();
        assert!(first.is_empty() && first.get("user.a").is_none());
        first.insert("user.b", b"2");
        first.insert("user.a", b"1\n");
        let mut second = first.clone();
        second.insert("user.a", b"3");
        let all: Vec<_> = first.iter().collect();
        assert_eq!(all, [("user.a", &b"1\n"[..]), ("user.b", b"2")]);
        assert_ne!(first, second);
        assert_eq!(size_of::<Xattrs>(), size_of::<usize>());
    }
}
