use std::fmt;
use std::path::{Path, PathBuf};

use super::Reference;

/// An image in a folder or file of the computer that builds. Two are the same when they are written in the same way.
#[derive(Clone, Debug)]
pub struct GivenImage {
    kind: GivenKind,
    /// As it was written.
    text: String,
    path: PathBuf,
    name: Option<String>,
}

/// What the folder or file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GivenKind {
    /// `oci:DIR[:TAG]`, a folder in OCI's image layout.
    Layout,
    /// `oci-archive:FILE[:TAG]`, the same as a tar.
    LayoutArchive,
    /// `docker-archive:FILE[:REFERENCE]`, what `docker save` writes.
    DockerArchive,
    /// `dir:DIR`, a root file system.
    Directory,
}

impl GivenKind {
    const ALL: [(&str, Self); 4] = [
        ("oci:", Self::Layout),
        ("oci-archive:", Self::LayoutArchive),
        ("docker-archive:", Self::DockerArchive),
        ("dir:", Self::Directory),
    ];
}

impl GivenImage {
    /// Reads one; nothing when the text is the name of an image in a registry.
    ///
    /// # Errors
    ///
    /// Fails when it names no folder or file, and says why.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let found = GivenKind::ALL.iter().find_map(|(scheme, kind)| {
            let rest = text.strip_prefix(scheme)?;
            Some((*kind, rest))
        });
        let Some((kind, rest)) = found else { return Ok(None) };
        let (path, name) = match rest.split_once(':') {
            Some(_) if kind == GivenKind::Directory => {
                return Err(
                    "what follows `dir:` is a folder and nothing else, without a colon".to_owned()
                );
            }
            Some((path, name)) => (path, Some(name)),
            None => (rest, None),
        };
        if path.is_empty() || path.contains('\0') {
            return Err("there is no path after the first colon".to_owned());
        }
        match name {
            Some("") => return Err("there is no name after the second colon".to_owned()),
            Some(name) if kind == GivenKind::DockerArchive => {
                Reference::in_registry(name).map_err(|error| error.reason)?;
            }
            _ => {}
        }
        let (text, path, name) = (text.to_owned(), PathBuf::from(path), name.map(str::to_owned));
        Ok(Some(Self { kind, text, path, name }))
    }

    /// Returns what it is.
    pub fn kind(&self) -> GivenKind {
        self.kind
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the name of the image in it, where one was written.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(super) fn find(&mut self, find: impl FnOnce(&Path) -> PathBuf) {
        self.path = find(&self.path);
    }
}

impl PartialEq for GivenImage {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for GivenImage {}

impl std::hash::Hash for GivenImage {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl fmt::Display for GivenImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(text: &str) -> GivenImage {
        text.parse::<Reference>().unwrap().given().unwrap().clone()
    }

    #[test]
    fn folders_and_files_are_told_from_registries_by_what_is_before_the_first_colon() {
        for (text, kind, path, name) in [
            ("oci:./web", GivenKind::Layout, "./web", None),
            ("oci:~/cache:a/b:1", GivenKind::Layout, "~/cache", Some("a/b:1")),
            ("oci-archive:/x/web.tar:1", GivenKind::LayoutArchive, "/x/web.tar", Some("1")),
            ("docker-archive:a.tar:web:1", GivenKind::DockerArchive, "a.tar", Some("web:1")),
            ("dir:root", GivenKind::Directory, "root", None),
        ] {
            let given = given(text);
            assert_eq!((given.kind(), given.path()), (kind, Path::new(path)));
            assert_eq!((given.name(), given.to_string().as_str()), (name, text));
        }
        for text in ["ocean:1", "oci/web:1", "registry.example/dir:1"] {
            assert!(text.parse::<Reference>().unwrap().given().is_none(), "{text}");
        }
    }

    #[test]
    fn what_names_no_folder_or_file_is_told_why() {
        for (text, reason) in [
            ("oci:", "no path"),
            ("oci-archive::1", "no path"),
            ("oci:a:", "no name after the second colon"),
            ("dir:a:b", "nothing else"),
            ("docker-archive:a.tar:UPPER", "invalid reference format"),
            ("dir:a\0", "no path"),
        ] {
            let error = text.parse::<Reference>().unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn where_a_registry_is_needed_a_folder_is_refused() {
        let error = Reference::in_registry("oci:web").unwrap_err().to_string();
        assert!(error.contains("a registry is needed"), "{error}");
    }
}
