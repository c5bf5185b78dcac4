//! Which proxy leads to an address: that of the environment, else that of apt.

use std::path::Path;

use hyper::Uri;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};

const APT: &str = "/etc/apt";
const VARIABLES: [&str; 6] =
    ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"];

/// The proxies of this host.
#[derive(Debug)]
pub(super) struct Proxies(Matcher);

impl Proxies {
    /// Reads the environment (`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`); where it names none, the apt
    /// configuration (`Acquire::http::Proxy`, `Acquire::https::Proxy`).
    pub(super) fn of_host() -> Self {
        let named = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        match VARIABLES.iter().any(named) {
            true => Self(Matcher::from_env()),
            false => Self::of_apt(Path::new(APT)),
        }
    }

    fn of_apt(dir: &Path) -> Self {
        let mut files: Vec<_> = std::fs::read_dir(dir.join("apt.conf.d"))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        files.sort();
        files.push(dir.join("apt.conf"));
        let (mut http, mut https) = (String::new(), String::new());
        for text in files.iter().filter_map(|path| std::fs::read_to_string(path).ok()) {
            for line in text.lines().map(str::trim) {
                for (key, value) in [("http", &mut http), ("https", &mut https)] {
                    if let Some(found) = setting(line, key) {
                        *value = found;
                    }
                }
            }
        }
        // Like apt, https goes the way of http unless it has one of its own.
        let https = if https.is_empty() { http.clone() } else { https };
        let no = std::env::var("no_proxy").unwrap_or_default();
        Self(Matcher::builder().http(direct(http)).https(direct(https)).no(no).build())
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
fn direct(value: String) -> String {
    if value.eq_ignore_ascii_case("direct") || value.eq_ignore_ascii_case("false") {
        return String::new();
    }
    value
}

/// Returns the value in `Acquire::http::Proxy "…";`.
fn setting(line: &str, scheme: &str) -> Option<String> {
    let rest = line.strip_prefix("Acquire::")?.strip_prefix(scheme)?.strip_prefix("::Proxy")?;
    let value = rest.strip_prefix([' ', '\t', '"'])?;
    Some(value.trim_matches(|c: char| c.is_whitespace() || c == '"' || c == ';').to_owned())
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
        // What is said for one host only is not said for all.
        assert_eq!(setting("Acquire::http::Proxy::mirror.example \"x\";", "http"), None);
    }
}
