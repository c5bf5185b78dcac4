//! A server elsewhere: its address, the token for it, and a connection that is encrypted.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use hyper::Uri;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The longest file of a token.
const LONGEST_TOKEN: u64 = 4096;

/// A server elsewhere.
#[derive(Clone, Debug)]
pub(super) struct Remote {
    url: String,
    token_file: Option<PathBuf>,
    ca: Option<PathBuf>,
}

impl Remote {
    pub(super) fn new(url: &str, token_file: Option<&Path>, ca: Option<&Path>) -> Self {
        let own = |path: Option<&Path>| path.map(Path::to_owned);
        Self { url: url.to_owned(), token_file: own(token_file), ca: own(ca) }
    }

    /// Returns its address as it was given.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns its host, with the port where it is not the usual one.
    fn place(&self) -> anyhow::Result<(String, u16)> {
        let wrong = || anyhow!("`{}` is no address of a server; write https://HOST:PORT", self.url);
        let uri: Uri = self.url.parse().map_err(|_| wrong())?;
        if uri.scheme_str() == Some("http") {
            bail!("a token is not sent in the clear; write https:// in front of the server");
        }
        if uri.scheme_str() != Some("https") || !matches!(uri.path(), "" | "/") {
            return Err(wrong());
        }
        let host = uri.host().ok_or_else(wrong)?;
        Ok((host.to_owned(), uri.port_u16().unwrap_or(443)))
    }

    /// Returns what belongs in the header `Host`.
    pub(super) fn host(&self) -> anyhow::Result<String> {
        self.place().map(|(host, port)| format!("{host}:{port}"))
    }

    /// Reads the token.
    pub(super) fn token(&self) -> anyhow::Result<Option<String>> {
        let Some(path) = &self.token_file else { return Ok(None) };
        let read = || -> std::io::Result<String> {
            if std::fs::metadata(path)?.len() > LONGEST_TOKEN {
                return Err(std::io::Error::other("it is too long for a token"));
            }
            std::fs::read_to_string(path)
        };
        let token =
            read().with_context(|| format!("cannot read the token in {}", path.display()))?;
        let token = token.trim();
        if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            bail!("there is no token in {}", path.display());
        }
        Ok(Some(token.to_owned()))
    }

    /// Opens a connection to a server that can show who it is.
    pub(super) async fn connect(&self) -> anyhow::Result<TlsStream<TcpStream>> {
        let (host, port) = self.place()?;
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare.clone())
            .map_err(|_| anyhow!("`{bare}` is no name of a server"))?;
        let stream = TcpStream::connect((bare.as_str(), port))
            .await
            .with_context(|| format!("no server at {}", self.url))?;
        let _ = stream.set_nodelay(true);
        let connector = TlsConnector::from(Arc::new(self.trusting()?));
        connector.connect(name, stream).await.with_context(|| {
            format!(
                "{} cannot be trusted; name its authority with --ca (`kiln ca export`)",
                self.url
            )
        })
    }

    fn trusting(&self) -> anyhow::Result<ClientConfig> {
        let mut roots = RootCertStore::empty();
        match &self.ca {
            Some(path) => {
                let text = std::fs::read(path)
                    .with_context(|| format!("cannot read {}", path.display()))?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    let certificate = certificate
                        .with_context(|| format!("{} has no certificates (PEM)", path.display()))?;
                    roots.add(certificate)?;
                }
                if roots.is_empty() {
                    bail!("{} has no certificates (PEM)", path.display());
                }
            }
            None => {
                // One that cannot be read is as one that is not there.
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        let crypto = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(crypto)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_and_nothing_but_a_host() {
        let place = |url: &str| Remote::new(url, None, None).place();
        assert_eq!(place("https://kiln.example:8444").unwrap(), ("kiln.example".to_owned(), 8444));
        assert_eq!(place("https://[fd00::1]/").unwrap(), ("[fd00::1]".to_owned(), 443));
        for wrong in
            ["http://kiln.example", "kiln.example:1", "https://kiln.example/api", "", "https://"]
        {
            assert!(place(wrong).is_err(), "{wrong}");
        }
        assert!(place("http://kiln").unwrap_err().to_string().contains("in the clear"));
    }

    #[test]
    fn a_token_is_one_word_of_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        let read = |text: &[u8]| {
            std::fs::write(&path, text).unwrap();
            Remote::new("https://a", Some(&path), None).token()
        };
        assert_eq!(read(b"kiln_1234\n").unwrap().as_deref(), Some("kiln_1234"));
        for wrong in [&b""[..], b" \n", b"a b", b"a\nb", b"\xff", &[b'a'; 5000]] {
            assert!(read(wrong).is_err(), "{wrong:?}");
        }
        assert!(Remote::new("https://a", Some(&dir.path().join("no")), None).token().is_err());
    }
}
