//! The suites that belong to a release: its own, its updates and its security updates.

use super::apt_config::AptConfig;
use super::error::DebError;
use crate::fetch::FetchError;

/// Suites that are always the newest there is: nothing is kept beside them.
const ROLLING: [&str; 4] = ["unstable", "sid", "experimental", "rc-buggy"];

/// A suite that adds to the one that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Extra {
    /// The base address of its archive.
    pub(super) mirror: String,
    /// Its name.
    pub(super) suite: String,
    /// Whether it is that of security updates.
    pub(super) security: bool,
    /// Whether the apt configuration names it, so that it has to be there.
    pub(super) sure: bool,
}

/// Returns the suites to use beside the one that was asked for.
///
/// Security updates are in an archive of their own, whose address the apt configuration of the host names. When a
/// mirror was named to us instead, they are looked for where mirrors usually have them: beside the main archive.
pub(super) fn extras(mirror: &str, suite: &str, host: &AptConfig) -> Vec<Extra> {
    if ROLLING.contains(&suite) || suite.contains(['-', '/']) {
        return Vec::new();
    }
    let updates = Extra {
        mirror: mirror.to_owned(),
        suite: format!("{suite}-updates"),
        security: false,
        sure: false,
    };
    let own = host.mirror.as_deref() == Some(mirror);
    let configured = host.security.as_ref().filter(|_| own);
    let security = Extra {
        mirror: configured.map_or_else(|| format!("{mirror}-security"), |it| it.mirror.clone()),
        suite: format!("{suite}-security"),
        security: true,
        sure: configured.is_some_and(|it| {
            it.suites
                .iter()
                .any(|name| name.split_once(['-', '/']).is_some_and(|(base, _)| base == suite))
        }),
    };
    vec![updates, security]
}

/// Returns whether an error only says that there is no such suite, as far as is known.
pub(super) fn is_missing(error: &DebError) -> bool {
    // The cache has every suite that was there when the mirror was asked.
    if matches!(error, DebError::Offline { .. }) {
        return true;
    }
    // Servers that hide what they do not have answer 403.
    let DebError::Fetch(FetchError::Status { status, .. }) = error else { return false };
    matches!(status.as_u16(), 403 | 404 | 410)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::deb::apt_config::Security;

    #[test]
    fn security_updates_come_from_where_the_host_has_them_or_from_beside_the_mirror() {
        let security = Security {
            mirror: "http://security.example/d".to_owned(),
            suites: vec!["trixie-security".to_owned()],
        };
        let host = AptConfig {
            mirror: Some("http://mirror.example/debian".to_owned()),
            security: Some(security),
            check_dates: true,
        };
        let places = |mirror, suite| {
            let all = extras(mirror, suite, &host);
            all.into_iter().map(|it| (it.mirror, it.suite, it.sure)).collect::<Vec<_>>()
        };
        let text = |text: &str| text.to_owned();
        assert_eq!(
            places("http://mirror.example/debian", "trixie"),
            [
                (text("http://mirror.example/debian"), text("trixie-updates"), false),
                (text("http://security.example/d"), text("trixie-security"), true),
            ]
        );
        // For another release the place is known, but not whether there are any.
        let forky = &places("http://mirror.example/debian", "forky")[1];
        assert_eq!(*forky, (text("http://security.example/d"), text("forky-security"), false));
        let named = &places("http://other.example/debian", "trixie")[1];
        assert_eq!(
            *named,
            (text("http://other.example/debian-security"), text("trixie-security"), false)
        );
        for suite in ["sid", "trixie-backports", "bullseye/updates"] {
            assert!(places("http://mirror.example/debian", suite).is_empty());
        }
    }
}
