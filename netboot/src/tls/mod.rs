//! HTTPS: the site's authority, the server's certificate, and how a connection becomes encrypted.

mod agents;
mod authority;
mod firmware;

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use kiln_builder::trust::KeyDir;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{Acceptor, WebPkiClientVerifier};
use rustls::{AlertDescription, RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use self::agents::Agents;
use self::authority::Issued;
pub use self::authority::{Authority, CaError};
use crate::settings::{HttpsSettings, OwnCertificate};

/// How often the certificate is made or read anew, long before it ends.
const RENEWAL: Duration = Duration::from_secs(12 * 3600);

/// What somebody is told who talks HTTP to the port of HTTPS.
pub(crate) const NOT_ENCRYPTED: &[u8] = b"HTTP/1.1 400 Bad Request\r\n\
    Content-Type: text/plain; charset=utf-8\r\nContent-Length: 37\r\nConnection: close\r\n\r\n\
    this port is for HTTPS; use https://\n";

/// HTTPS cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// The site's authority cannot be used.
    #[error("cannot use the site's certificate authority")]
    Authority(#[source] CaError),
    /// A file of the settings cannot be read.
    #[error("cannot read {}", .0.display())]
    Read(PathBuf, #[source] io::Error),
    /// A file of the settings has not what it should have.
    #[error("there is no {what} (PEM) in {}", path.display())]
    Content {
        /// What should be there.
        what: &'static str,
        /// Where.
        path: PathBuf,
    },
    /// Key and certificate do not go together, or are of a kind that nobody takes.
    #[error("the certificate cannot be used")]
    Certificate(#[source] rustls::Error),
}

/// Why a connection was not encrypted.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What came was no TLS.
    #[error("no TLS: {0}")]
    NotTls(io::Error),
    /// It saw the certificate and did not want it.
    #[error(
        "the machine does not trust the certificate of this server ({0}); enrol the site's CA in its firmware (`kiln ca export`)"
    )]
    Untrusted(String),
    /// kiln-init was told of another authority when it booted.
    #[error(
        "the system of the machine trusts another authority than this site's ({0}); start the machine anew"
    )]
    OtherAuthority(String),
    /// The two sides have nothing in common, or the other one is not who may come.
    #[error("the machine and this server cannot agree on encryption: {0}")]
    Incompatible(String),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(io::Error),
}

impl Failure {
    /// Returns whether this is worth telling the operator: a machine that wants to boot and cannot.
    pub const fn is_refusal(&self) -> bool {
        matches!(self, Self::Untrusted(_) | Self::OtherAuthority(_) | Self::Incompatible(_))
    }

    /// Reads what became of a handshake after the client has said hello.
    fn after_hello(error: io::Error) -> Self {
        use AlertDescription as Alert;
        let known = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match known {
            Some(rustls::Error::AlertReceived(
                alert @ (Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::CertificateExpired
                | Alert::UnsupportedCertificate
                | Alert::AccessDenied),
            )) => Self::Untrusted(format!("{alert:?}")),
            Some(error) => Self::Incompatible(error.to_string()),
            // EDK2 says nothing and goes away.
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::BrokenPipe => {
                    Self::Untrusted("it broke off when it saw it".to_owned())
                }
                _ => Self::Broken(error),
            },
        }
    }
}

/// How connections become encrypted; the certificate changes while it is in use.
#[derive(Debug)]
pub struct Tls {
    configs: ArcSwap<Configs>,
    source: Source,
}

/// What holds until the certificates are made anew.
#[derive(Debug)]
struct Configs {
    /// For firmware, loaders, browsers and whoever else comes.
    others: Arc<ServerConfig>,
    agents: Agents,
}

/// Where the certificate comes from.
#[derive(Debug)]
struct Source {
    settings: HttpsSettings,
    keys: KeyDir,
    addresses: Vec<IpAddr>,
    names: Vec<String>,
}

impl Tls {
    /// Reads or makes what is needed for these addresses of the server.
    ///
    /// # Errors
    ///
    /// Fails when a file cannot be read or made, or has something else in it.
    pub fn new(
        settings: &HttpsSettings,
        keys: &KeyDir,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, TlsError> {
        let mut names = settings.names.clone();
        let own = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        // A host whose name is no DNS name can be reached by its addresses.
        let fit = |name: &String| rustls::pki_types::DnsName::try_from(name.clone()).is_ok();
        names.extend(own.filter(fit).filter(|name| !settings.names.contains(name)));
        let source = Source { settings: settings.clone(), keys: keys.clone(), addresses, names };
        Ok(Self { configs: ArcSwap::from_pointee(source.configs()?), source })
    }

    /// Returns the certificate (DER) of the site's authority, which signs for talking to kiln-init.
    pub(crate) fn authority(&self) -> Arc<[u8]> {
        self.configs.load().agents.authority.clone()
    }

    /// Reads or makes the certificate anew from time to time, until told to stop.
    pub async fn renew(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RENEWAL) => {}
            }
            let tls = Arc::clone(&self);
            match tokio::task::spawn_blocking(move || tls.source.configs()).await {
                Ok(Ok(configs)) => self.configs.store(Arc::new(configs)),
                Ok(Err(error)) => {
                    let error = &error as &dyn std::error::Error;
                    tracing::error!(error, "the certificate is not renewed; the old one stays");
                }
                Err(_) => return,
            }
        }
    }

    /// Agrees with a client on how to encrypt.
    ///
    /// # Errors
    ///
    /// Says who did not want what.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the connection is lost.
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, Failure> {
        let start = LazyConfigAcceptor::new(Acceptor::default(), stream);
        let start = start.await.map_err(Failure::NotTls)?;
        let configs = self.configs.load_full();
        let is_agent = agents::is_agent(&start.client_hello());
        let config = if is_agent { &configs.agents.config } else { &configs.others };
        let accepted = start.into_stream(Arc::clone(config)).await;
        accepted.map_err(|error| match Failure::after_hello(error) {
            Failure::Untrusted(why) if is_agent => Failure::OtherAuthority(why),
            failure => failure,
        })
    }
}

impl Source {
    fn configs(&self) -> Result<Configs, TlsError> {
        let agents = Agents::new(&self.keys, &self.addresses)?;
        Ok(Configs { others: Arc::new(self.config()?), agents })
    }

    fn config(&self) -> Result<ServerConfig, TlsError> {
        let crypto = Arc::new(firmware::crypto());
        let Issued { chain, key } = match &self.settings.own {
            Some(own) => given(own)?,
            None => Authority::open(&self.keys)
                .and_then(|authority| authority.issue(&self.addresses, &self.names))
                .map_err(TlsError::Authority)?,
        };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&crypto))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Certificate)?;
        let builder = match &self.settings.client_certificates {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let content =
                    || TlsError::Content { what: "certificate of a CA", path: path.clone() };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|_| content())?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), crypto)
                    .build()
                    .map_err(|_| content())?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        builder.with_single_cert(chain, key).map_err(TlsError::Certificate)
    }
}

fn given(own: &OwnCertificate) -> Result<Issued, TlsError> {
    let chain = certificates(&own.certificate)?;
    let text = std::fs::read(&own.key).map_err(|e| TlsError::Read(own.key.clone(), e))?;
    let key = PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| TlsError::Content { what: "private key", path: own.key.clone() })?;
    Ok(Issued { chain, key })
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = || TlsError::Content { what: "certificate", path: path.to_owned() };
    let text = std::fs::read(path).map_err(|e| TlsError::Read(path.to_owned(), e))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    all.ok().filter(|all| !all.is_empty()).ok_or_else(content)
}

#[cfg(test)]
mod tests;
