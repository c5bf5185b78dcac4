use std::fs::{self, DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::TrustError;
use super::key::{KeyId, PublicKey, SiteKey, TrustedKeys};
use crate::durable::{folder_of, persist, sync_folder};

const SITE: &str = "site.pem";
const SITE_PUBLIC: &str = "site.pub";
const TRUSTED: &str = "trusted";
/// The largest file that is read as a key.
const MAX_KEY: u64 = 64 << 10;

/// The folder that holds the site's key and the public keys that are trusted besides.
///
/// ```text
/// site.pem         the private key, 0600, made at first use
/// site.pub         its public part
/// trusted/ID.pub   keys of other sites, and keys of this one from before
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDir {
    dir: PathBuf,
}

/// A key whose signatures count.
#[derive(Clone, Debug)]
pub struct TrustedKey {
    /// The key.
    pub key: PublicKey,
    /// Whether it is the one that this site signs with.
    pub own: bool,
    /// The file that it is in.
    pub path: PathBuf,
}

impl KeyDir {
    /// Names the folder. Nothing is made yet.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// Returns the folder that goes with an artifact store: `keys` beside it, so that neither a copy of the store nor
    /// what can read it holds the private key.
    pub fn beside(store: &Path) -> Self {
        // A path such as `store` has the working directory as its parent.
        let parent = store.parent().filter(|parent| !parent.as_os_str().is_empty());
        Self::new(parent.map_or_else(|| PathBuf::from("keys"), |parent| parent.join("keys")))
    }

    /// Returns the folder.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Returns the key of this site; makes one when there is none yet.
    ///
    /// # Errors
    ///
    /// Fails when the folder or the key is open to others, cannot be read or written, or holds no key.
    pub fn site_key(&self) -> Result<SiteKey, TrustError> {
        if let Some(key) = self.read_site_key()? {
            // A crash may have come between the two files.
            self.write_public(&key)?;
            return Ok(key);
        }
        self.make()?;
        let key = SiteKey::generate().ok_or(TrustError::Random)?;
        let path = self.dir.join(SITE);
        match self.new_private(&key)?.persist_noclobber(&path) {
            Ok(_) => {
                self.sync(&path)?;
                self.write_public(&key)?;
                Ok(key)
            }
            // Another build was quicker: its key is the site's.
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {
                self.read_site_key()?.ok_or(TrustError::NotPrivate { path })
            }
            Err(error) => Err(TrustError::Write { path, source: error.error }),
        }
    }

    /// Replaces the site's key by a new one. The old public key stays trusted. Returns the old name, if there was a
    /// key, and the new key.
    ///
    /// # Errors
    ///
    /// As for [`site_key`](Self::site_key).
    pub fn rotate(&self) -> Result<(Option<KeyId>, SiteKey), TrustError> {
        let Some(old) = self.read_site_key()? else { return Ok((None, self.site_key()?)) };
        // In this order a crash never leaves a version that was signed here without a key that verifies it.
        self.trust(old.public())?;
        let key = SiteKey::generate().ok_or(TrustError::Random)?;
        let path = self.dir.join(SITE);
        let temp = self.new_private(&key)?;
        temp.persist(&path)
            .map_err(|error| TrustError::Write { path: path.clone(), source: error.error })?;
        self.sync(&path)?;
        self.write_public(&key)?;
        Ok((Some(old.id()), key))
    }

    /// Trusts one more key. Returns whether it is new.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be written.
    pub fn trust(&self, key: &PublicKey) -> Result<bool, TrustError> {
        self.make()?;
        let dir = self.dir.join(TRUSTED);
        if !dir.exists() {
            make_dir(&dir, &self.dir)?;
        }
        if self.is_trusted(key)? {
            return Ok(false);
        }
        self.write(&self.trusted_path(&key.id()), &key.to_pem())?;
        Ok(true)
    }

    /// Returns whether a key is trusted besides the site's own. Writes nothing.
    ///
    /// # Errors
    ///
    /// As for [`list`](Self::list).
    pub fn is_trusted(&self, key: &PublicKey) -> Result<bool, TrustError> {
        let path = self.trusted_path(&key.id());
        Ok(self.list()?.iter().any(|known| known.key == *key && known.path == path))
    }

    /// Returns the name of the site's key, where there is one. Writes nothing.
    ///
    /// # Errors
    ///
    /// As for [`site_key`](Self::site_key), but for what is written.
    pub fn site_key_id(&self) -> Result<Option<KeyId>, TrustError> {
        Ok(self.read_site_key()?.map(|key| key.id()))
    }

    /// Trusts a key no longer.
    ///
    /// # Errors
    ///
    /// Fails when no such key is trusted, or when it is the site's own.
    pub fn distrust(&self, id: &str) -> Result<KeyId, TrustError> {
        let key_id = self.may_distrust(id)?;
        let path = self.trusted_path(&key_id);
        fs::remove_file(&path)
            .map_err(|source| TrustError::Write { path: path.clone(), source })?;
        self.sync(&path)?;
        Ok(key_id)
    }

    /// Returns the key that [`distrust`](Self::distrust) would trust no longer. Writes nothing.
    ///
    /// # Errors
    ///
    /// Fails when no such key is trusted, or when it is the site's own.
    pub fn may_distrust(&self, id: &str) -> Result<KeyId, TrustError> {
        let unknown = || TrustError::Unknown { id: id.chars().take(80).collect() };
        let key_id: KeyId = id.parse().map_err(|_| unknown())?;
        let path = self.trusted_path(&key_id);
        match fs::symlink_metadata(&path) {
            Ok(_) => Ok(key_id),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let own = self.list()?.iter().any(|known| known.own && known.key.id() == key_id);
                Err(if own { TrustError::Own { id: key_id } } else { unknown() })
            }
            Err(source) => Err(TrustError::Read { path, source }),
        }
    }

    /// Returns every key whose signatures count: the site's own first, the others by name. A folder that is not there
    /// holds none.
    ///
    /// # Errors
    ///
    /// Fails when others can write to the folder, or a file of it cannot be read or is no public key.
    pub fn list(&self) -> Result<Vec<TrustedKey>, TrustError> {
        self.check()?;
        let mut keys = Vec::new();
        let path = self.dir.join(SITE_PUBLIC);
        if let Some(key) = read_public(&path)? {
            keys.push(TrustedKey { key, own: true, path });
        }
        let dir = self.dir.join(TRUSTED);
        let entries = match fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(keys),
            Err(source) => return Err(TrustError::Folder { path: dir, source }),
        };
        check_dir(&dir)?;
        let mut paths = Vec::new();
        for entry in entries {
            let failed = |source| TrustError::Folder { path: dir.clone(), source };
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "pub") {
                paths.push(path);
            }
        }
        paths.sort();
        for path in paths {
            if let Some(key) = read_public(&path)? {
                keys.push(TrustedKey { key, own: false, path });
            }
        }
        Ok(keys)
    }

    /// Returns the keys that signatures are checked with.
    ///
    /// # Errors
    ///
    /// As for [`list`](Self::list).
    pub fn trusted(&self) -> Result<TrustedKeys, TrustError> {
        Ok(self.list()?.into_iter().map(|trusted| trusted.key).collect())
    }

    /// Reads a public key out of any file, such as one to trust.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or is no public key.
    pub fn read_public(path: &Path) -> Result<PublicKey, TrustError> {
        read_public(path)?.ok_or_else(|| TrustError::Read {
            path: path.to_owned(),
            source: io::ErrorKind::NotFound.into(),
        })
    }

    fn trusted_path(&self, id: &KeyId) -> PathBuf {
        self.dir.join(TRUSTED).join(format!("{id}.pub"))
    }

    fn read_site_key(&self) -> Result<Option<SiteKey>, TrustError> {
        self.check()?;
        let path = self.dir.join(SITE);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::PermissionDenied => TrustError::NotAllowed { path: path.clone() },
            _ => TrustError::Read { path: path.clone(), source },
        };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(TrustError::KeyOpen { path, mode });
        }
        let text = read_text(file).map_err(failed)?;
        SiteKey::from_pem(&text).map(Some).ok_or(TrustError::NotPrivate { path })
    }

    /// Writes the public part, unless it is there.
    fn write_public(&self, key: &SiteKey) -> Result<(), TrustError> {
        let path = self.dir.join(SITE_PUBLIC);
        match read_public(&path) {
            Ok(Some(known)) if known == *key.public() => Ok(()),
            _ => self.write(&path, &key.public().to_pem()),
        }
    }

    fn new_private(&self, key: &SiteKey) -> Result<NamedTempFile, TrustError> {
        let failed = |source| TrustError::Write { path: self.dir.join(SITE), source };
        // Such a file is 0600 from the beginning.
        let mut temp = NamedTempFile::new_in(&self.dir).map_err(failed)?;
        temp.write_all(key.to_pem().ok_or(TrustError::Random)?.as_bytes()).map_err(failed)?;
        temp.as_file().sync_all().map_err(failed)?;
        like_folder(temp.path(), &self.dir).map_err(failed)?;
        Ok(temp)
    }

    fn write(&self, path: &Path, text: &str) -> Result<(), TrustError> {
        let failed = |source| TrustError::Write { path: path.to_owned(), source };
        let mut temp = NamedTempFile::new_in(&self.dir).map_err(failed)?;
        temp.write_all(text.as_bytes()).map_err(failed)?;
        like_folder(temp.path(), &self.dir).map_err(failed)?;
        persist(temp, path, 0o644).map_err(failed)
    }

    fn sync(&self, path: &Path) -> Result<(), TrustError> {
        sync_folder(folder_of(path))
            .map_err(|source| TrustError::Write { path: path.to_owned(), source })
    }

    fn make(&self) -> Result<(), TrustError> {
        if self.dir.exists() {
            return self.check();
        }
        let parent = folder_of(&self.dir);
        fs::create_dir_all(parent)
            .map_err(|source| TrustError::Folder { path: self.dir.clone(), source })?;
        make_dir(&self.dir, parent)?;
        self.check()
    }

    fn check(&self) -> Result<(), TrustError> {
        match check_dir(&self.dir) {
            Err(TrustError::Folder { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other,
        }
    }
}

/// Makes a folder that everyone may read and its owner write, whatever the umask is.
fn make_dir(dir: &Path, like: &Path) -> Result<(), TrustError> {
    let failed = |source| TrustError::Folder { path: dir.to_owned(), source };
    match DirBuilder::new().mode(0o755).create(dir) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let like = if like.as_os_str().is_empty() { Path::new(".") } else { like };
    like_folder(dir, like).map_err(failed)
}

/// Gives a file the owner of a folder: what root makes for the server's user, that user must be able to use.
fn like_folder(path: &Path, folder: &Path) -> io::Result<()> {
    let (own, want) = (fs::metadata(path)?, fs::metadata(folder)?);
    if own.uid() != 0 || want.uid() == 0 {
        return Ok(());
    }
    // Inside a user namespace the owner may have no number; then it stays as it is.
    let _ = std::os::unix::fs::chown(path, Some(want.uid()), Some(want.gid()));
    Ok(())
}

fn check_dir(dir: &Path) -> Result<(), TrustError> {
    let failed = |source| TrustError::Folder { path: dir.to_owned(), source };
    let metadata = fs::metadata(dir).map_err(failed)?;
    if !metadata.is_dir() {
        return Err(failed(io::ErrorKind::NotADirectory.into()));
    }
    let mode = metadata.mode() & 0o7777;
    match mode & 0o022 {
        0 => Ok(()),
        _ => Err(TrustError::FolderOpen { path: dir.to_owned(), mode }),
    }
}

fn read_public(path: &Path) -> Result<Option<PublicKey>, TrustError> {
    let failed = |source| TrustError::Read { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let text = read_text(file).map_err(failed)?;
    let key = PublicKey::from_pem(&text);
    key.map(Some).ok_or_else(|| TrustError::NotPublic { path: path.to_owned() })
}

fn read_text(file: File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.take(MAX_KEY).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
