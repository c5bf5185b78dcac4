//! Gives each profile of another server a group, and a label to the machines that it is for.

use std::collections::HashMap;

use super::known::Given;
use super::{Found, Notes, Shared, plain, profile_label, short};

/// The longest name of a group.
const LONGEST: usize = 63;

/// A profile, as a file has it.
#[derive(Debug)]
pub(super) struct Profile {
    /// Which of the files says it.
    pub(super) file: usize,
    /// The name that machines call it by.
    pub(super) said: String,
    pub(super) shared: Shared,
}

/// The labels that stand for profiles, by the names that machines call these by.
#[derive(Default)]
pub(super) struct ByProfile(HashMap<String, (String, String)>);

impl ByProfile {
    pub(super) fn labels(&self, profiles: &[String]) -> impl Iterator<Item = (String, String)> {
        profiles.iter().filter_map(|said| self.0.get(said)).cloned()
    }
}

/// Makes a group of each profile, and tells of those that machines have and nobody describes, each once. Two whose names
/// become the same get different ones.
pub(super) fn settle(
    profiles: Vec<Profile>,
    found: &[Found],
    notes: &mut Notes,
) -> (Vec<Shared>, ByProfile) {
    let (mut given, mut labels) = (Given::default(), HashMap::new());
    let (mut all, mut places): (Vec<Shared>, HashMap<String, usize>) = Default::default();
    for Profile { file, said, mut shared } in profiles {
        if let Some(first) = places.get(&said).and_then(|at| all.get(*at)) {
            shared.name.clone_from(&first.name);
            shared.label.clone_from(&first.label);
            if *first != shared {
                let what = format!(
                    "the profile `{}` is left out: an earlier file says something else of it",
                    short(&said)
                );
                notes.add(file, None, what);
            }
            continue;
        }
        let name = given.free(&shared.name, LONGEST);
        if name != shared.name {
            let (said, taken) = (short(&said), &shared.name);
            let what = format!(
                "the profile `{said}` is the group {name}: another one is called {taken}, and names have small letters only"
            );
            notes.add(file, None, what);
        }
        shared.label = profile_label(&name);
        shared.name = name;
        labels.insert(said.clone(), shared.label.clone());
        places.insert(said, all.len());
        all.push(shared);
    }
    for one in found {
        for said in &one.profiles {
            if labels.contains_key(said) {
                continue;
            }
            let name = given.free(&plain(said), LONGEST);
            let (key, value) = profile_label(&name);
            let what = format!(
                "the profile `{}` is in none of the files; name its file too, or say what it gives: \
                 kiln group add {name} --selector {key}={value}",
                short(said)
            );
            notes.add(one.file, one.line, what);
            labels.insert(said.clone(), (key, value));
        }
    }
    (all, ByProfile(labels))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(file: usize, said: &str, cmdline: &str) -> Profile {
        let shared = Shared { cmdline: cmdline.to_owned(), ..Shared::of(said) };
        Profile { file, said: said.to_owned(), shared }
    }

    #[test]
    fn profiles_whose_names_become_the_same_are_groups_of_their_own() {
        let mut notes = Notes::default();
        let profiles =
            vec![profile(0, "GPU", "a"), profile(0, "gpu", "b"), profile(0, "other", "c")];
        let found = Found { profiles: vec!["Other".to_owned()], ..Found::default() };
        let (all, labels) = settle(profiles, &[found], &mut notes);
        let seen: Vec<_> =
            all.iter().map(|one| (one.name.as_str(), one.label.0.as_str())).collect();
        let expected =
            [("gpu", "profile-gpu"), ("gpu-2", "profile-gpu-2"), ("other", "profile-other")];
        assert_eq!(seen, expected);
        let of = |said: &str| labels.labels(&[said.to_owned()]).map(|(key, _)| key).next();
        assert_eq!(of("gpu").as_deref(), Some("profile-gpu-2"));
        // One that is not there is no other one either.
        assert_eq!(of("Other").as_deref(), Some("profile-other-2"));
        let notes: Vec<_> = notes.sorted().iter().map(ToString::to_string).collect();
        assert_eq!(notes.len(), 2, "{notes:?}");
        assert!(notes[0].starts_with("the profile `gpu` is the group gpu-2"), "{notes:?}");
        assert!(notes[1].contains("kiln group add other-2 --selector profile-other-2=yes"));
    }

    #[test]
    fn a_profile_of_two_files_is_one_group_and_where_they_differ_the_first_counts() {
        let mut notes = Notes::default();
        let profiles = vec![profile(0, "gpu", "a"), profile(1, "gpu", "a"), profile(2, "gpu", "b")];
        let (all, _) = settle(profiles, &[], &mut notes);
        assert_eq!((all.len(), all[0].cmdline.as_str()), (1, "a"));
        let notes = notes.sorted();
        assert_eq!((notes.len(), notes[0].file), (1, 2), "{notes:?}");
    }
}
