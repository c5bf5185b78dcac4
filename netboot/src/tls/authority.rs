//! The site's certificate authority: a key and a certificate in one file, made at first use, and what it signs.

use std::fs;
use std::io::{self, Write as _};
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use kiln_builder::trust::KeyDir;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ED25519, PKCS_RSA_SHA256, PublicKeyData as _,
    RsaKeySize, SanType, SerialNumber, date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::NamedTempFile;

/// Key and certificate of the authority.
const FILE: &str = "ca.pem";
/// The key of the server, kept because making one takes a while.
const SERVER_KEY: &str = "server-tls.pem";
/// How many authorities that were replaced are looked at.
const EARLIER: usize = 8;
/// How long a certificate of the server is good. It is made anew at each start and every month.
const DAYS: i64 = 397;

/// The site's authority cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaError {
    /// A file cannot be read or written.
    #[error("cannot use {}", .0.display())]
    File(PathBuf, #[source] io::Error),
    /// Others can read a private key.
    #[error("{0} holds a private key and others can read it (mode {1:o}); `chmod 600 {0}`")]
    Readable(String, u32),
    /// A file is not what it should be.
    #[error(
        "there is no key with its certificate (PEM) in {}; restore it from a copy, or remove it to have a new one made", .0.display()
    )]
    Content(PathBuf),
    /// A certificate cannot be made.
    #[error("cannot make a certificate")]
    Certificate(#[source] rcgen::Error),
}

/// The site's authority.
pub struct Authority {
    path: PathBuf,
    key: KeyPair,
    certificate: CertificateDer<'static>,
    pem: String,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A certificate of the server, with the authority's behind it, and its key.
pub(super) struct Issued {
    pub(super) chain: Vec<CertificateDer<'static>>,
    pub(super) key: PrivateKeyDer<'static>,
}

impl Authority {
    /// Reads the site's authority, and makes it if there is none.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read or made.
    pub fn open(keys: &KeyDir) -> Result<Self, CaError> {
        let path = keys.path().join(FILE);
        let text = obtain(&path, || {
            let key = new_key()?;
            let certificate = params(&key)?.self_signed(&key).map_err(CaError::Certificate)?;
            Ok(format!("{}{}", key.serialize_pem(), certificate.pem()))
        })?;
        Self::read(path, &text)
    }

    /// Reads the site's authority, where there is one.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be read.
    pub fn present(keys: &KeyDir) -> Result<Option<Self>, CaError> {
        keys.path().join(FILE).exists().then(|| Self::open(keys)).transpose()
    }

    /// Replaces the site's authority by a new one. The old one is kept beside it, under the name of its certificate.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be written.
    pub fn rotate(keys: &KeyDir) -> Result<Self, CaError> {
        let path = keys.path().join(FILE);
        if path.exists() {
            let old = Self::open(keys)?;
            let kept = keys.path().join(format!("ca-{}.pem", old.name()));
            let failed = |source| CaError::File(kept.clone(), source);
            match fs::hard_link(&path, &kept) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed(error));
                }
                _ => {}
            }
        }
        let key = new_key()?;
        let certificate = params(&key)?.self_signed(&key).map_err(CaError::Certificate)?;
        let text = format!("{}{}", key.serialize_pem(), certificate.pem());
        let failed = |source| CaError::File(path.clone(), source);
        write(&path, &text).map_err(failed)?.persist(&path).map_err(|e| failed(e.error))?;
        Self::read(path, &text)
    }

    fn read(path: PathBuf, text: &str) -> Result<Self, CaError> {
        let content = || CaError::Content(path.clone());
        let key = KeyPair::from_pem(text).map_err(|_| content())?;
        let certificate =
            CertificateDer::from_pem_slice(text.as_bytes()).map_err(|_| content())?.into_owned();
        let begin = text.find("-----BEGIN CERTIFICATE-----").ok_or_else(content)?;
        let pem = text[begin..].to_owned();
        Ok(Self { path, key, certificate, pem })
    }

    /// Returns the first 16 digits of the SHA-256 of its certificate.
    pub fn name(&self) -> String {
        hex(&self.certificate)
    }

    /// Returns its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns its certificate in PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Returns its certificate.
    pub fn der(&self) -> &[u8] {
        &self.certificate
    }

    /// Returns the authority and those that it has replaced, which machines that run may still know.
    pub(super) fn and_earlier(keys: &KeyDir) -> Result<Vec<Self>, CaError> {
        let mut all = vec![Self::open(keys)?];
        let mut earlier: Vec<PathBuf> = fs::read_dir(keys.path())
            .map_err(|source| CaError::File(keys.path().to_owned(), source))?
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with("ca-") && name.ends_with(".pem")
            })
            .collect();
        earlier.sort();
        // One that cannot be read is of no use, and in nobody's way.
        all.extend(earlier.into_iter().take(EARLIER).filter_map(|path| {
            let text = fs::read_to_string(&path).ok()?;
            Self::read(path, &text).ok()
        }));
        Ok(all)
    }

    /// Makes a certificate for the server with these addresses and names. The key is that of before.
    pub(super) fn issue(&self, addresses: &[IpAddr], names: &[String]) -> Result<Issued, CaError> {
        let path = self.path.with_file_name(SERVER_KEY);
        let text = obtain(&path, || Ok(new_key()?.serialize_pem()))?;
        let key = KeyPair::from_pem(&text).map_err(|_| CaError::Content(path))?;
        self.sign(&key, addresses, names)
    }

    /// Makes a certificate for talking to kiln-init, which knows Ed25519. Its key is new, and never on a disk.
    pub(super) fn issue_for_agents(&self, addresses: &[IpAddr]) -> Result<Issued, CaError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(CaError::Certificate)?;
        self.sign(&key, addresses, &[])
    }

    fn sign(
        &self,
        key: &KeyPair,
        addresses: &[IpAddr],
        names: &[String],
    ) -> Result<Issued, CaError> {
        let mut own = CertificateParams::new(names.to_vec()).map_err(CaError::Certificate)?;
        own.subject_alt_names.extend(addresses.iter().map(|ip| SanType::IpAddress(*ip)));
        own.distinguished_name = DistinguishedName::new();
        own.distinguished_name.push(DnType::CommonName, "Kiln");
        let last = Timestamp::now().to_zoned(TimeZone::UTC).date();
        let last = last.saturating_add(Span::new().days(DAYS));
        // Machines that have lost their clock believe that it is the year in which their firmware was made.
        own.not_before = date_time_ymd(2020, 1, 1);
        own.not_after = date_time_ymd(
            last.year().into(),
            last.month().unsigned_abs(),
            last.day().unsigned_abs(),
        );
        own.serial_number =
            Some(SerialNumber::from(Timestamp::now().as_millisecond().unsigned_abs()));
        own.use_authority_key_identifier_extension = true;
        own.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
        own.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let issuer = Issuer::new(params(&self.key)?, &self.key);
        let signed = own.signed_by(key, &issuer).map_err(CaError::Certificate)?;
        let key = PrivateKeyDer::try_from(key.serialize_der())
            .map_err(|_| CaError::Content(self.path.clone()))?;
        Ok(Issued { chain: vec![signed.der().clone(), self.certificate.clone()], key })
    }
}

/// RSA of 2048 bits: the one kind that all firmware takes.
fn new_key() -> Result<KeyPair, CaError> {
    KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).map_err(CaError::Certificate)
}

/// What the authority's certificate says. The same key gives the same name.
fn params(key: &KeyPair) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(CaError::Certificate)?;
    params.distinguished_name = DistinguishedName::new();
    let name = format!("Kiln site CA {}", hex(&key.subject_public_key_info()));
    params.distinguished_name.push(DnType::CommonName, name);
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2049, 12, 31);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn hex(bytes: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file with a private key, and makes it if there is none. When two make it at once, both get the same.
fn obtain(path: &Path, make: impl Fn() -> Result<String, CaError>) -> Result<String, CaError> {
    let failed = |source| CaError::File(path.to_owned(), source);
    loop {
        match fs::metadata(path) {
            Ok(meta) => {
                let mode = meta.permissions().mode() & 0o777;
                if mode & 0o077 != 0 {
                    return Err(CaError::Readable(path.display().to_string(), mode));
                }
                return fs::read_to_string(path).map_err(failed);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        let text = make()?;
        match write(path, &text).map_err(failed)?.persist_noclobber(path) {
            Ok(_) => {}
            Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(error.error)),
        }
    }
}

/// Writes a file beside its place, for its owner alone.
fn write(path: &Path, text: &str) -> io::Result<NamedTempFile> {
    let folder = path.parent().unwrap_or_else(|| Path::new("."));
    fs::create_dir_all(folder)?;
    let mut file = NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_authority_is_made_once_and_only_its_owner_can_read_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let keys = KeyDir::new(dir.path().join("keys"));
        let first = Authority::open(&keys).unwrap();
        let again = Authority::open(&keys).unwrap();
        assert_eq!((first.pem(), first.name()), (again.pem(), again.name()));
        assert!(!first.pem().contains("PRIVATE"), "what is exported holds no key");
        first.issue(&[IpAddr::from([10, 0, 0, 1])], &["kiln".to_owned()]).unwrap();
        assert_eq!(mode(first.path()), 0o600);
        assert_eq!(mode(&keys.path().join(SERVER_KEY)), 0o600);
        let other = Authority::rotate(&keys).unwrap();
        assert_ne!(other.name(), first.name());
        assert_eq!(mode(other.path()), 0o600);
        assert!(keys.path().join(format!("ca-{}.pem", first.name())).exists());
        fs::set_permissions(other.path(), fs::Permissions::from_mode(0o644)).unwrap();
        let error = Authority::open(&keys).unwrap_err().to_string();
        assert!(error.contains("(mode 644); `chmod 600 "), "{error}");
        fs::set_permissions(other.path(), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(other.path(), "x").unwrap();
        let error = Authority::open(&keys).unwrap_err().to_string();
        assert!(error.contains("restore it from a copy"), "{error}");
    }
}
