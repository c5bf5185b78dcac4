//! TLS for kiln-init: a certificate of the site's own authority for it alone, whatever other clients get.
//!
//! kiln-init knows one way to encrypt (docs/adr/0017) and names itself when it says hello. It proves itself by the token of
//! its boot, so that no certificate is asked of it.

use std::net::IpAddr;
use std::sync::Arc;

use kiln_builder::trust::KeyDir;
use rustls::crypto::aws_lc_rs as provider;
use rustls::pki_types::CertificateDer;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{DistinguishedName, RootCertStore, ServerConfig, version};

use super::TlsError;
use super::authority::Authority;

/// What kiln-init asks for (`builder/init/src/tls`).
const PROTOCOL: &[u8] = b"kiln-agent";

/// Says whether this is kiln-init.
pub(super) fn is_agent(hello: &ClientHello<'_>) -> bool {
    hello.alpn().is_some_and(|mut names| names.any(|name| name == PROTOCOL))
}

#[derive(Debug)]
pub(super) struct Agents {
    pub(super) config: Arc<ServerConfig>,
    /// The certificate of the authority that machines are told to trust.
    pub(super) authority: Arc<[u8]>,
}

impl Agents {
    pub(super) fn new(keys: &KeyDir, addresses: &[IpAddr]) -> Result<Self, TlsError> {
        let authorities = Authority::and_earlier(keys).map_err(TlsError::Authority)?;
        let authority = authorities.first().map(|first| first.der().into()).unwrap_or_default();
        let mut by_authority = Vec::new();
        for authority in &authorities {
            let issued = authority.issue_for_agents(addresses).map_err(TlsError::Authority)?;
            let key = provider::sign::any_supported_type(&issued.key);
            let key = key.map_err(TlsError::Certificate)?;
            let mut roots = RootCertStore::empty();
            let certificate = CertificateDer::from(authority.der().to_vec());
            roots.add(certificate).map_err(TlsError::Certificate)?;
            by_authority.push((roots.subjects(), Arc::new(CertifiedKey::new(issued.chain, key))));
        }
        let crypto = Arc::new(provider::default_provider());
        let mut config = ServerConfig::builder_with_provider(crypto)
            .with_protocol_versions(&[&version::TLS13])
            .map_err(TlsError::Certificate)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(ByAuthority(by_authority)));
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Self { config: Arc::new(config), authority })
    }
}

/// Chooses by the authority that the machine says it knows: after `kiln ca rotate` machines that run know the one before.
#[derive(Debug)]
struct ByAuthority(Vec<(Vec<DistinguishedName>, Arc<CertifiedKey>)>);

impl ResolvesServerCert for ByAuthority {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let known = hello.certificate_authorities().unwrap_or_default();
        let fits = |(names, _): &&(Vec<DistinguishedName>, _)| {
            known.iter().any(|one| names.iter().any(|name| name.as_ref() == one.as_ref()))
        };
        let found = self.0.iter().find(fits).or_else(|| self.0.first());
        found.map(|(_, key)| Arc::clone(key))
    }
}
