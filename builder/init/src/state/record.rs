//! What the state partition says of itself: which image has written it last, and in which schema.
//!
//! Services can write there too, so that nothing in it is trusted: links are not followed, and little is read.

use std::fs::{File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat, renameat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};

use crate::config::StateDisk;

const FOLDER: &str = ".kiln";
const FILE: &str = "state.json";
const NEW: &str = "state.json.new";
/// The most that it may have.
const LARGEST: u64 = 64 << 10;

/// What is written there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// In which form the data is.
    pub(crate) schema: u32,
    /// The lowest schema of an image that can use it as it is.
    pub(crate) compatible: u32,
    /// The image that was healthy with it last.
    #[serde(default)]
    pub(crate) image: String,
    #[serde(default)]
    pub(crate) version: String,
    /// When, in seconds since 1970; 0 where the clock was not set.
    #[serde(default)]
    pub(crate) time: u64,
}

/// The data is of a schema that this image does not know.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "its data has schema {on_disk} and this image has schema {of_image}; boot {image} again, or an image with schema {least} or more"
)]
pub(crate) struct TooNew {
    on_disk: u32,
    of_image: u32,
    least: u32,
    image: String,
}

impl Record {
    /// Says whether an image may use the data.
    pub(crate) fn admits(&self, image: &StateDisk) -> Result<(), TooNew> {
        if image.schema >= self.schema || image.schema >= self.compatible {
            return Ok(());
        }
        let image_name = if self.image.is_empty() { "the newer image" } else { &self.image };
        Err(TooNew {
            on_disk: self.schema,
            of_image: image.schema,
            least: self.compatible,
            image: image_name.to_owned(),
        })
    }

    /// Returns what is to be recorded once this image is healthy. The schema never goes down: older data does not come
    /// back because an older image has run.
    pub(crate) fn after(before: Option<&Self>, image: &StateDisk) -> Self {
        let own = Self {
            schema: image.schema,
            compatible: image.compatible.min(image.schema),
            ..Self::default()
        };
        match before {
            Some(before) if before.schema > image.schema => {
                Self { schema: before.schema, compatible: before.compatible, ..own }
            }
            _ => own,
        }
    }

    /// Reads the record of a mounted partition; `None` when there is none yet.
    pub(crate) fn read(mounted: &Path) -> io::Result<Option<Self>> {
        let no_such = |error| error == Errno::ENOENT;
        let top = open(mounted, directory(), Mode::empty())?;
        let folder = match openat(top.as_fd(), FOLDER, directory(), Mode::empty()) {
            Err(error) if no_such(error) => return Ok(None),
            opened => opened?,
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | plain();
        let file = match openat(folder.as_fd(), FILE, flags, Mode::empty()) {
            Err(error) if no_such(error) => return Ok(None),
            opened => File::from(opened?),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        let mut text = Vec::new();
        file.take(LARGEST).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Writes the record: a reader finds the old one or this one.
    pub(crate) fn write(&self, mounted: &Path) -> io::Result<()> {
        let top = open(mounted, directory(), Mode::empty())?;
        match mkdirat(top.as_fd(), FOLDER, Mode::from_bits_truncate(0o755)) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let folder: OwnedFd = openat(top.as_fd(), FOLDER, directory(), Mode::empty())?;
        // What a service may have put there is not written through.
        match unlinkat(folder.as_fd(), NEW, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | plain();
        let mode = Mode::from_bits_truncate(0o644);
        let mut file = File::from(openat(folder.as_fd(), NEW, flags, mode)?);
        file.set_permissions(Permissions::from_mode(0o644))?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.sync_all()?;
        renameat(folder.as_fd(), NEW, folder.as_fd(), FILE)?;
        File::from(folder).sync_all()?;
        File::from(openat(top.as_fd(), ".", directory(), Mode::empty())?).sync_all()
    }
}

fn directory() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | plain()
}

fn plain() -> OFlag {
    OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::super::testing::folder;
    use super::*;

    fn image(schema: u32, compatible: u32) -> StateDisk {
        StateDisk { schema, compatible, ..StateDisk::default() }
    }

    fn record(schema: u32, compatible: u32) -> Record {
        Record { schema, compatible, ..Record::default() }
    }

    #[test]
    fn an_image_uses_data_of_its_schema_of_older_ones_and_of_newer_ones_that_say_so() {
        for (on_disk, of_image, admitted) in [
            (record(2, 2), image(2, 2), true),
            (record(1, 1), image(2, 2), true),
            (record(3, 3), image(2, 2), false),
            (record(3, 2), image(2, 2), true),
            (record(3, 2), image(1, 1), false),
        ] {
            assert_eq!(on_disk.admits(&of_image).is_ok(), admitted, "{on_disk:?} {of_image:?}");
        }
    }

    #[test]
    fn the_refusal_says_which_image_can_be_booted() {
        let on_disk = Record { image: "web".to_owned(), ..record(3, 2) };
        assert_eq!(
            on_disk.admits(&image(1, 1)).unwrap_err().to_string(),
            "its data has schema 3 and this image has schema 1; boot web again, or an image with schema 2 or more"
        );
    }

    #[test]
    fn the_schema_that_is_recorded_never_goes_down() {
        assert_eq!(Record::after(None, &image(2, 1)), record(2, 1));
        assert_eq!(Record::after(Some(&record(1, 1)), &image(2, 2)), record(2, 2));
        assert_eq!(Record::after(Some(&record(3, 2)), &image(2, 1)), record(3, 2));
        assert_eq!(Record::after(None, &image(2, 9)), record(2, 2));
    }

    #[test]
    fn a_record_is_found_as_it_was_written_over_an_older_one() {
        let folder = folder("record");
        assert_eq!(Record::read(&folder.0).unwrap(), None);
        for schema in [1, 2] {
            record(schema, 1).write(&folder.0).unwrap();
            assert_eq!(Record::read(&folder.0).unwrap(), Some(record(schema, 1)));
        }
        assert!(!folder.0.join(FOLDER).join(NEW).exists());
    }

    #[test]
    fn links_that_a_service_has_made_are_not_followed() {
        let (folder, outside) = (folder("links"), folder("outside"));
        symlink(&outside.0, folder.0.join(FOLDER)).unwrap();
        assert!(Record::read(&folder.0).is_err());
        assert!(record(1, 1).write(&folder.0).is_err());
        assert_eq!(fs::read_dir(&outside.0).unwrap().count(), 0);
        fs::remove_file(folder.0.join(FOLDER)).unwrap();
        fs::create_dir(folder.0.join(FOLDER)).unwrap();
        symlink(outside.0.join("x"), folder.0.join(FOLDER).join(NEW)).unwrap();
        symlink(outside.0.join("x"), folder.0.join(FOLDER).join(FILE)).unwrap();
        assert!(Record::read(&folder.0).is_err());
        record(1, 1).write(&folder.0).unwrap();
        assert_eq!(Record::read(&folder.0).unwrap(), Some(record(1, 1)));
        assert_eq!(fs::read_dir(&outside.0).unwrap().count(), 0);
    }

    #[test]
    fn a_record_that_is_not_one_is_an_error() {
        let folder = folder("broken");
        fs::create_dir(folder.0.join(FOLDER)).unwrap();
        fs::write(folder.0.join(FOLDER).join(FILE), "{").unwrap();
        assert!(Record::read(&folder.0).is_err());
        fs::remove_file(folder.0.join(FOLDER).join(FILE)).unwrap();
        fs::create_dir(folder.0.join(FOLDER).join(FILE)).unwrap();
        assert!(Record::read(&folder.0).is_err());
    }
}
