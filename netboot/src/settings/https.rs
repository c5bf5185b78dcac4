//! `[https]`: the boot plane with encryption.

use std::path::PathBuf;

use kiln_ipxe::HttpsFor;
use serde::Deserialize;
use toml::Spanned;

use super::Problems;

/// The boot plane with encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpsSettings {
    /// TCP port, on the address of every subnet. 0 lets the kernel choose.
    pub port: u16,
    /// Who is sent there. Others may come by themselves.
    pub urls: Option<HttpsFor>,
    /// A certificate that somebody else has made.
    pub own: Option<OwnCertificate>,
    /// A file with the authorities of clients. Only who has a certificate of theirs is served there.
    pub client_certificates: Option<PathBuf>,
    /// Names of this server, beside that of the host.
    pub names: Vec<String>,
}

/// A certificate that somebody else has made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnCertificate {
    /// The certificate, and what is between it and its root (PEM).
    pub certificate: PathBuf,
    /// Its private key (PEM).
    pub key: PathBuf,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireHttps {
    port: Option<u16>,
    #[serde(default)]
    urls: WireUrls,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<PathBuf>,
    client_certificates: Option<PathBuf>,
    #[serde(default)]
    names: Vec<Spanned<String>>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum WireUrls {
    #[default]
    Http,
    Firmware,
    Https,
}

impl WireHttps {
    /// Returns nothing without a port.
    pub(super) fn check(self, problems: &mut Problems) -> Option<HttpsSettings> {
        let own = certificate(self.certificate, self.key, problems);
        let names = dns_names(self.names, problems);
        Some(HttpsSettings {
            port: self.port?,
            urls: match self.urls {
                WireUrls::Http => None,
                WireUrls::Firmware => Some(HttpsFor::Firmware),
                WireUrls::Https => Some(HttpsFor::All),
            },
            own,
            client_certificates: self.client_certificates,
            names,
        })
    }
}

/// Takes a certificate that somebody else has made, which is of no use without its key.
pub(super) fn certificate(
    certificate: Option<Spanned<PathBuf>>,
    key: Option<PathBuf>,
    problems: &mut Problems,
) -> Option<OwnCertificate> {
    let span = certificate.as_ref().map(Spanned::span);
    match (certificate.map(Spanned::into_inner), key) {
        (Some(certificate), Some(key)) => Some(OwnCertificate { certificate, key }),
        (None, None) => None,
        _ => {
            let message = "certificate and key go together; give both or neither".to_owned();
            problems.push((span, message));
            None
        }
    }
}

/// Takes names of this server, which are names of DNS.
pub(super) fn dns_names(names: Vec<Spanned<String>>, problems: &mut Problems) -> Vec<String> {
    for name in &names {
        if rustls::pki_types::DnsName::try_from(name.get_ref().as_str()).is_err() {
            let message = format!("`{}` is not a DNS name", name.get_ref());
            problems.push((Some(name.span()), message));
        }
    }
    names.into_iter().map(Spanned::into_inner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (Option<HttpsSettings>, Vec<String>) {
        let mut problems = Vec::new();
        let wire: WireHttps = toml::from_str(text).unwrap();
        let settings = wire.check(&mut problems);
        (settings, problems.into_iter().map(|(_, text)| text).collect())
    }

    #[test]
    fn https_is_there_when_it_has_a_port() {
        assert_eq!(check("urls = \"https\"\n"), (None, vec![]));
        let (settings, problems) = check("port = 8443\nurls = \"firmware\"\nnames = [\"boot\"]\n");
        let settings = settings.unwrap();
        assert_eq!((settings.port, settings.urls), (8443, Some(HttpsFor::Firmware)));
        assert!(problems.is_empty());
        assert_eq!(check("port = 1\n").0.unwrap().urls, None);
    }

    #[test]
    fn a_certificate_has_a_key_and_a_name_is_a_name() {
        let (_, problems) = check("port = 1\ncertificate = \"/c.pem\"\nnames = [\"a b\", \"\"]\n");
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("go together"));
        assert!(problems[1].contains("`a b` is not a DNS name"));
    }
}
