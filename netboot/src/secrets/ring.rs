//! The keys that secrets are encrypted with: a file of lines, the key in use first, and what is sealed with them.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use kiln_builder::durable;
use serde::{Deserialize, Serialize};

/// Length of a key in the file, and of the key that is made of it.
const KEY: usize = 32;
/// The longest file of keys.
const LONGEST: u64 = 16 << 10;
const SALT: &[u8] = b"kiln secrets";

/// The keys cannot be used, or something was not sealed by them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RingError {
    /// The file cannot be read or written.
    #[error("cannot read or write the keys of secrets in {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Others may read the file.
    #[error("others may read the keys of secrets in {path}; `chmod 600 {path}`, and make new ones with `kiln secret rotate`", path = .0.display())]
    Open(PathBuf),
    /// The file holds something else.
    #[error("{} holds something else than keys of secrets, one of 64 hexadecimal digits to a line; put the right file there", .0.display())]
    NoKeys(PathBuf),
    /// There is no file, and secrets that were sealed with its keys.
    #[error(
        "{} is missing, and secrets of the inventory are encrypted with its keys: {secrets} of them, as {one}; copy it \
         there from the server that has it, or from where it is kept, with mode 0600 and the same owner as the folder, \
         and start this server anew. Where it is lost for ever, remove those secrets first, and set them again",
        path.display()
    )]
    Missing {
        /// Where it belongs.
        path: PathBuf,
        /// How many secrets.
        secrets: usize,
        /// One of them, in words.
        one: String,
    },
    /// Secrets were sealed with keys that the file does not have.
    #[error(
        "secrets of the inventory are encrypted with keys, as `{key}`, that are not in {}: {secrets} of them, as {one}; \
         copy their file there from the server that has it, and start this one anew, or remove those secrets, and set \
         them again",
        path.display()
    )]
    Other {
        /// The file.
        path: PathBuf,
        /// How many secrets.
        secrets: usize,
        /// One of them, in words.
        one: String,
        /// One of the keys.
        key: String,
    },
    /// Nothing was sealed by these keys under this name.
    #[error(
        "it was not encrypted with the keys of this server (`{0}` is not in their file), or was altered"
    )]
    Sealed(String),
    /// No randomness, or a library that refuses a key of the right length.
    #[error("the library for encryption fails")]
    Library,
}

/// Something encrypted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Sealed {
    /// Which key it was.
    pub(crate) key: String,
    /// Nonce and text, in hexadecimal digits.
    pub(crate) text: String,
}

/// The keys, the one in use first.
pub(crate) struct Ring {
    path: PathBuf,
    lines: Vec<[u8; KEY]>,
    keys: Vec<(String, LessSafeKey)>,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ids: Vec<&str> = self.keys.iter().map(|(id, _)| id.as_str()).collect();
        f.debug_struct("Ring").field("path", &self.path).field("keys", &ids).finish()
    }
}

impl Ring {
    /// Reads the keys. Where there is no file there are no keys.
    pub(crate) fn read(path: &Path) -> Result<Self, RingError> {
        let failed = |source| RingError::File(path.to_owned(), source);
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Self::of(path, Vec::new());
            }
            Err(error) => return Err(failed(error)),
        };
        if file.metadata().map_err(failed)?.mode() & 0o077 != 0 {
            return Err(RingError::Open(path.to_owned()));
        }
        let mut text = String::new();
        file.take(LONGEST).read_to_string(&mut text).map_err(failed)?;
        let lines: Option<Vec<_>> = text.lines().map(key_of).collect();
        match lines {
            Some(lines) if !lines.is_empty() => Self::of(path, lines),
            _ => Err(RingError::NoKeys(path.to_owned())),
        }
    }

    fn of(path: &Path, lines: Vec<[u8; KEY]>) -> Result<Self, RingError> {
        let keys = lines.iter().map(derived).collect::<Result<_, _>>()?;
        Ok(Self { path: path.to_owned(), lines, keys })
    }

    /// Returns these keys with a new one before them, as they are kept from now on.
    pub(crate) fn with_new_key(&self) -> Result<Self, RingError> {
        let ring = self.with_one_more()?;
        ring.write()?;
        Ok(ring)
    }

    /// Returns these keys with a new one before them, which is kept nowhere.
    pub(crate) fn with_one_more(&self) -> Result<Self, RingError> {
        let mut key = [0; KEY];
        aws_lc_rs::rand::fill(&mut key).map_err(|_| RingError::Library)?;
        let lines = [key].into_iter().chain(self.lines.iter().copied()).collect();
        Self::of(&self.path, lines)
    }

    /// Returns the key in use alone, as it is kept from now on: nothing is left that others have sealed.
    pub(crate) fn without_old_keys(&self) -> Result<Self, RingError> {
        let ring = Self::of(&self.path, self.lines.iter().take(1).copied().collect())?;
        ring.write()?;
        Ok(ring)
    }

    /// Writes a new file in the place of the old one, so that a power cut leaves one of the two.
    fn write(&self) -> Result<(), RingError> {
        let text: String = self.lines.iter().map(|line| hex(line) + "\n").collect();
        durable::replace(&self.path, text.as_bytes(), 0o600)
            .map_err(|source| RingError::File(self.path.clone(), source))
    }

    /// Returns their file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether there is a key of this id.
    pub(crate) fn has(&self, id: &str) -> bool {
        self.keys.iter().any(|(key, _)| key == id)
    }

    /// Returns the id of the key in use.
    pub(crate) fn current(&self) -> Option<&str> {
        self.keys.first().map(|(id, _)| id.as_str())
    }

    /// Encrypts. What belongs to one place cannot be opened in another.
    pub(crate) fn seal(&self, place: &str, text: &[u8]) -> Result<Sealed, RingError> {
        let (id, key) = self.keys.first().ok_or(RingError::Library)?;
        let mut nonce = [0; NONCE_LEN];
        aws_lc_rs::rand::fill(&mut nonce).map_err(|_| RingError::Library)?;
        let mut sealed = text.to_vec();
        let aad = Aad::from(place.as_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed)
            .map_err(|_| RingError::Library)?;
        Ok(Sealed { key: id.clone(), text: hex(&nonce) + &hex(&sealed) })
    }

    /// Decrypts what was sealed for this place.
    pub(crate) fn open(&self, place: &str, sealed: &Sealed) -> Result<Vec<u8>, RingError> {
        let wrong = || RingError::Sealed(sealed.key.clone());
        let (_, key) = self.keys.iter().find(|(id, _)| *id == sealed.key).ok_or_else(wrong)?;
        let bytes = unhex(&sealed.text).ok_or_else(wrong)?;
        let (nonce, text) = bytes.split_first_chunk::<NONCE_LEN>().ok_or_else(wrong)?;
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let mut text = text.to_vec();
        let open = key.open_in_place(nonce, Aad::from(place.as_bytes()), &mut text);
        Ok(open.map_err(|_| wrong())?.to_vec())
    }
}

/// Makes of a line of the file what is encrypted with, and what that is called. Neither tells the line.
fn derived(line: &[u8; KEY]) -> Result<(String, LessSafeKey), RingError> {
    struct Length(usize);
    impl KeyType for Length {
        fn len(&self) -> usize {
            self.0
        }
    }
    let prk = Salt::new(HKDF_SHA256, SALT).extract(line);
    let fill = |info: &[u8], out: &mut [u8]| {
        let info = [info];
        let okm = prk.expand(&info, Length(out.len())).map_err(|_| RingError::Library)?;
        okm.fill(out).map_err(|_| RingError::Library)
    };
    let (mut id, mut key) = ([0; 6], [0; KEY]);
    fill(b"id", &mut id)?;
    fill(b"aes-256-gcm", &mut key)?;
    let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| RingError::Library)?;
    Ok((hex(&id), LessSafeKey::new(key)))
}

fn key_of(line: &str) -> Option<[u8; KEY]> {
    unhex(line.trim_end())?.try_into().ok()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Reads hexadecimal digits.
pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    });
    bytes.collect()
}

#[cfg(test)]
mod tests {
    use std::fs::{self, OpenOptions};
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};

    use super::*;

    fn ring() -> (tempfile::TempDir, Ring) {
        let dir = tempfile::tempdir().unwrap();
        let ring = Ring::read(&dir.path().join("secrets.key")).unwrap();
        assert!(ring.current().is_none());
        (dir, ring.with_new_key().unwrap())
    }

    #[test]
    fn what_is_sealed_for_one_place_opens_there_and_nowhere_else() {
        let (_dir, ring) = ring();
        let sealed = ring.seal("machine/1/password", b"geheim").unwrap();
        assert_eq!(ring.open("machine/1/password", &sealed).unwrap(), b"geheim");
        assert!(ring.open("machine/2/password", &sealed).is_err());
        assert_ne!(ring.seal("machine/1/password", b"geheim").unwrap(), sealed, "another nonce");
        for at in 0..sealed.text.len() {
            let mut text = sealed.text.clone().into_bytes();
            text[at] = if text[at] == b'0' { b'1' } else { b'0' };
            let text = String::from_utf8(text).unwrap();
            assert!(ring.open("machine/1/password", &Sealed { text, ..sealed.clone() }).is_err());
        }
        for text in ["", "0", "zz", "00112233"] {
            let broken = Sealed { key: sealed.key.clone(), text: text.to_owned() };
            assert!(ring.open("machine/1/password", &broken).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_replaced_opens_what_it_sealed_until_it_is_let_go() {
        let (dir, ring) = ring();
        let sealed = ring.seal("x", b"old").unwrap();
        let newer = ring.with_new_key().unwrap();
        assert_ne!(newer.current(), ring.current());
        assert_eq!(newer.open("x", &sealed).unwrap(), b"old");
        let path = dir.path().join("secrets.key");
        let read = Ring::read(&path).unwrap();
        assert_eq!(read.open("x", &sealed).unwrap(), b"old");
        read.without_old_keys().unwrap();
        let error = Ring::read(&path).unwrap().open("x", &sealed).unwrap_err().to_string();
        assert!(error.contains(&sealed.key), "{error}");
        assert!(!format!("{read:?}").contains(&hex(&read.lines[0])));
    }

    #[test]
    fn a_file_that_others_may_read_or_that_holds_something_else_is_refused() {
        let (dir, _) = ring();
        let path = dir.path().join("secrets.key");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Ring::read(&path), Err(RingError::Open(_))));
        for text in ["", "x\n", "00\n", &"0".repeat(63), &"0".repeat(100_000)] {
            fs::remove_file(&path).unwrap();
            let mut file =
                OpenOptions::new().create_new(true).write(true).mode(0o600).open(&path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            assert!(matches!(Ring::read(&path), Err(RingError::NoKeys(_))), "{text:.20}");
        }
    }
}
