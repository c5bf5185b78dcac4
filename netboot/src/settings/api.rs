//! `[api]`: the control plane on the network.

use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;
use toml::Spanned;

use super::https::{certificate, dns_names};
use super::{HttpsSettings, Problems};

/// The control plane on the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ApiSettings {
    /// Where it listens, and how it is encrypted; without it, there is the unix socket alone.
    pub listen: Option<(SocketAddr, HttpsSettings)>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireApi {
    listen: Option<SocketAddr>,
    certificate: Option<Spanned<PathBuf>>,
    key: Option<PathBuf>,
    #[serde(default)]
    names: Vec<Spanned<String>>,
}

impl WireApi {
    pub(super) fn check(self, problems: &mut Problems) -> ApiSettings {
        let own = certificate(self.certificate, self.key, problems);
        let names = dns_names(self.names, problems);
        let tls = |address: SocketAddr| HttpsSettings {
            port: address.port(),
            urls: None,
            own,
            client_certificates: None,
            names,
        };
        ApiSettings { listen: self.listen.map(|address| (address, tls(address))) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_network_is_closed_unless_an_address_is_named() {
        let check = |text: &str| {
            let mut problems = Vec::new();
            let settings = toml::from_str::<WireApi>(text).unwrap().check(&mut problems);
            (settings.listen.map(|(address, _)| address.to_string()), problems.len())
        };
        assert_eq!(check("names = [\"kiln\"]"), (None, 0));
        assert_eq!(check("listen = \"10.0.0.1:8444\""), (Some("10.0.0.1:8444".to_owned()), 0));
        assert_eq!(check("listen = \"[::]:1\"\nkey = \"/k\"\nnames = [\"a b\"]").1, 2);
        assert!(toml::from_str::<WireApi>("listen = \"10.0.0.1\"").is_err());
    }
}
