use std::collections::BTreeMap;

use super::BundleError;
use crate::spec::UserId;

/// Numbers below this one belong to the system's own users.
const FIRST: u32 = 100;

/// The numbers that the names of containers stand for where a user or group is wanted: every container has one of its
/// own, from 100 upward.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ids(BTreeMap<String, u32>);

impl Ids {
    /// Gives out the numbers: to `onboot`, then `onshutdown`, then `services`, as they are written. Of two with the
    /// same name, the number of the last counts.
    pub fn new<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        Self((FIRST..).zip(names).map(|(id, name)| (name.to_owned(), id)).collect())
    }

    /// Returns the number that is meant, or the name that no container has.
    ///
    /// # Errors
    ///
    /// Fails when there is no container of that name.
    pub fn number(&self, user: &UserId) -> Result<u32, String> {
        match user {
            UserId::Number(number) => Ok(*number),
            UserId::Container(name) => self.0.get(name).copied().ok_or_else(|| name.clone()),
        }
    }

    pub(super) fn of(&self, container: &str, user: &UserId) -> Result<u32, BundleError> {
        let container = container.to_owned();
        self.number(user).map_err(|user| BundleError::UnknownUser { container, user })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_go_up_from_100_and_the_last_of_a_name_counts() {
        let ids = Ids::new(["first", "again", "web", "again"]);
        let number = |name: &str| ids.number(&UserId::Container(name.to_owned()));
        assert_eq!(number("first"), Ok(100));
        assert_eq!(number("web"), Ok(102));
        assert_eq!(number("again"), Ok(103));
        assert_eq!(ids.number(&UserId::Number(7)), Ok(7));
        let error = ids.of("web", &UserId::Container("nobody".to_owned())).unwrap_err();
        assert!(error.to_string().starts_with("container `web` runs as `nobody`"), "{error}");
    }
}
