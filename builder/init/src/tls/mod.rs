//! TLS to the server of the site, by a certificate of the site's authority and by nothing else.
//!
//! The authority's certificate comes in the machine's own segment, with the server's address. No other authority counts:
//! there is no list of them here. TLS 1.3 only, because the other end is ours.

mod provider;
mod signatures;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::verify_tls13_signature;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::time_provider::TimeProvider;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, DistinguishedName,
    Error, RootCertStore, SignatureScheme, version,
};

use crate::clock::uptime;

/// How the server tells this program from firmware and people with browsers.
const PROTOCOL: &[u8] = b"kiln-agent";

/// What is needed to talk to the server, made once.
#[derive(Debug, Clone)]
pub(crate) struct Trust(Arc<ClientConfig>);

impl Trust {
    /// Trusts one authority. `booted` is what the server's clock showed when this boot began, in seconds since 1970.
    pub(crate) fn new(authority: &[u8], booted: u64) -> Result<Self, Error> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(authority))?;
        let site = Site { names: roots.subjects(), roots };
        let provider = Arc::new(provider::provider());
        let clock = Arc::new(ServersClock(booted));
        let mut config = ClientConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(site))
            .with_no_client_auth();
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        // Connections are seldom, and what would be kept for the next one takes memory.
        config.resumption = Resumption::disabled();
        Ok(Self(Arc::new(config)))
    }

    /// Begins a connection to the server, whose certificate has to name this address.
    pub(crate) fn connection(&self, server: SocketAddr) -> Result<ClientConnection, Error> {
        ClientConnection::new(Arc::clone(&self.0), ServerName::from(server.ip().to_canonical()))
    }
}

/// Says in a sentence why a server is not talked to.
pub(crate) fn refusal(error: &Error) -> &'static str {
    use CertificateError as Bad;
    match error {
        Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            "its certificate is not of this site's authority"
        }
        Error::InvalidCertificate(Bad::NotValidForName | Bad::NotValidForNameContext { .. }) => {
            "its certificate is for another address"
        }
        Error::InvalidCertificate(
            Bad::Expired
            | Bad::ExpiredContext { .. }
            | Bad::NotValidYet
            | Bad::NotValidYetContext { .. },
        ) => "its certificate is not valid now",
        Error::InvalidCertificate(_) => "its certificate is no good",
        Error::InvalidMessage(_) => "it does not speak TLS",
        Error::AlertReceived(_) => "it does not want to",
        _ => "nothing can be agreed on with it",
    }
}

/// The time by which a certificate is valid or not: what the server told when the boot began, and how long the kernel runs.
/// The clock of the machine may show anything.
#[derive(Debug)]
struct ServersClock(u64);

impl TimeProvider for ServersClock {
    fn current_time(&self) -> Option<UnixTime> {
        let booted = Duration::from_secs(self.0);
        Some(UnixTime::since_unix_epoch(booted.saturating_add(uptime())))
    }
}

/// Takes certificates of the site's authority.
#[derive(Debug)]
struct Site {
    roots: RootCertStore,
    /// Tells the server which authority is known here, in case that the site has a new one.
    names: Vec<DistinguishedName>,
}

impl ServerCertVerifier for Site {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        between: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let certificate = ParsedCertificate::try_from(certificate)?;
        let kinds = signatures::ALL.all;
        verify_server_cert_signed_by_trust_anchor(&certificate, &self.roots, between, now, kinds)?;
        verify_server_name(&certificate, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(rustls::PeerIncompatible::ServerDoesNotSupportTls12Or13))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &signatures::ALL)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        signatures::ALL.supported_schemes()
    }

    fn root_hint_subjects(&self) -> Option<&[DistinguishedName]> {
        Some(&self.names)
    }
}

#[cfg(test)]
mod tests;
