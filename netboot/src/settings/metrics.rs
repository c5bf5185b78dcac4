//! `[metrics]` and `[log]`: what the server shows and says of itself.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Deserialize;
use toml::Spanned;

use super::Problems;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireMetrics {
    listen: Option<Spanned<Listen>>,
}

/// A port, which is then that of the loopback, or an address with one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listen {
    Port(u16),
    Address(String),
}

impl WireMetrics {
    pub(super) fn check(self, problems: &mut Problems) -> Option<SocketAddr> {
        let listen = self.listen?;
        let span = listen.span();
        match listen.into_inner() {
            Listen::Port(port) => Some((Ipv4Addr::LOCALHOST, port).into()),
            Listen::Address(text) => text
                .parse()
                .inspect_err(|_| {
                    let message = format!(
                        "`{text}` is not an address with a port; write it as \"127.0.0.1:9867\", or the port alone"
                    );
                    problems.push((Some(span), message));
                })
                .ok(),
        }
    }
}

/// What the log looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogSettings {
    /// How each line is written.
    pub format: LogFormat,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object for each line, for programs.
    Json,
}

impl LogSettings {
    /// Reads them from the text of a file before anything else of it is looked at: what is wrong with the rest is
    /// told by the log.
    pub fn peek(text: &str) -> Self {
        #[derive(Default, Deserialize)]
        struct Only {
            #[serde(default)]
            log: LogSettings,
        }
        toml::from_str::<Only>(text).unwrap_or_default().log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_off_and_on_the_loopback_unless_an_address_is_named() {
        let check = |text: &str| {
            let mut problems = Problems::default();
            let checked = toml::from_str::<WireMetrics>(text).unwrap().check(&mut problems);
            (checked.map(|address| address.to_string()), problems.len())
        };
        assert_eq!(check(""), (None, 0));
        assert_eq!(check("listen = 9867"), (Some("127.0.0.1:9867".to_owned()), 0));
        assert_eq!(check("listen = \"[::1]:80\""), (Some("[::1]:80".to_owned()), 0));
        assert_eq!(check("listen = \"localhost\""), (None, 1));
    }

    #[test]
    fn the_format_of_the_log_is_known_before_the_rest_is_understood() {
        let format = |text| LogSettings::peek(text).format;
        assert_eq!(format("[log]\nformat = \"json\"\n[nonsense]\nx = 1"), LogFormat::Json);
        assert_eq!(format("[log]\nformat = \"xml\""), LogFormat::Text);
        assert_eq!(format("no toml"), LogFormat::Text);
    }
}
