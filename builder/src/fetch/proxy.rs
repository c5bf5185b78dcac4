//! Which proxy leads to an address: that of the environment, else that of apt.

use std::path::Path;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

use super::apt_conf::AptSettings;

const APT: &str = "/etc/apt";
const VARIABLES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The proxies of this host.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

impl Proxies {
    /// Reads the environment (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`); where it names none, the apt
    /// configuration (`Acquire::http::Proxy`, `Acquire::https::Proxy`, and hosts that are `DIRECT` below these).
    pub(super) fn of_host() -> Self {
        let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match VARIABLES.iter().any(named) {
            true => Self(Matcher::from_env()),
            false => Self::of_apt(Path::new(APT)),
        }
    }

    fn of_apt(dir: &Path) -> Self {
        let settings = AptSettings::read(dir).unwrap_or_else(|(path, error)| {
            tracing::warn!(path = %path.display(), %error, "cannot read the proxy of apt");
            AptSettings::default()
        });
        let proxy = |scheme: &str| {
            let value = settings.get(&format!("Acquire::{scheme}::Proxy"));
            value.unwrap_or_default().to_owned()
        };
        let (http, https) = (proxy("http"), proxy("https"));
        // Like apt, https goes the way of http unless it has one of its own.
        let https = if https.is_empty() { http.clone() } else { https };
        let mut no: Vec<_> = std::env::var("no_proxy").into_iter().collect();
        for scheme in ["http", "https"] {
            let name = format!("Acquire::{scheme}::Proxy");
            let hosts = settings.below(&name);
            no.extend(hosts.filter(|(_, proxy)| is_direct(proxy)).map(|(host, _)| host.to_owned()));
        }
        let (http, https) = (direct(http), direct(https));
        Self(Matcher::builder().http(http).https(https).no(no.join(",")).build())
    }

    /// One proxy for everything.
    #[cfg(test)]
    pub(super) fn of(proxy: &str) -> Self {
        Self(Matcher::builder().all(proxy).build())
    }

    /// Returns the proxy that leads there, if one does.
    pub(super) fn find(&self, to: &Uri) -> Option<Intercept> {
        self.0.intercept(to)
    }
}

/// `DIRECT` is apt's word for no proxy.
fn is_direct(value: &str) -> bool {
    value.eq_ignore_ascii_case("direct") || value.eq_ignore_ascii_case("false")
}

fn direct(value: String) -> String {
    if is_direct(&value) { String::new() } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_of_apt_leads_to_mirrors() {
        let dir = tempfile::tempdir().unwrap();
        let find = |url: &str| {
            let found = Proxies::of_apt(dir.path()).find(&url.parse().unwrap());
            found.map(|it| it.uri().to_string())
        };
        assert_eq!(find("http://mirror.example/debian"), None);
        std::fs::create_dir(dir.path().join("apt.conf.d")).unwrap();
        let text = "// x\nAcquire::http::Proxy \"http://127.0.0.1:3142\";\n";
        std::fs::write(dir.path().join("apt.conf.d/01proxy"), text).unwrap();
        assert_eq!(find("http://mirror.example/debian").unwrap(), "http://127.0.0.1:3142/");
        assert_eq!(find("https://mirror.example/debian").unwrap(), "http://127.0.0.1:3142/");
        std::fs::write(dir.path().join("apt.conf"), "Acquire::https::Proxy \"DIRECT\";\n").unwrap();
        assert_eq!(find("https://mirror.example/debian"), None);
        let text = "Acquire { http { Proxy \"http://127.0.0.1:8\"; Proxy::near.example \"DIRECT\"; }; };\n";
        std::fs::write(dir.path().join("apt.conf"), text).unwrap();
        assert_eq!(find("http://mirror.example/debian").unwrap(), "http://127.0.0.1:8/");
        assert_eq!(find("http://near.example/debian"), None);
    }
}
