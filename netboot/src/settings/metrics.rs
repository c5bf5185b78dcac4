//! `[metrics]` and `[log]`: what the server shows and says of itself.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::{Problems, parse_duration};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireMetrics {
    listen: Option<Spanned<Listen>>,
    late_after: Option<Spanned<String>>,
}

/// For how long a machine may boot, or have failed to, where the settings do not say.
const LATE_AFTER: Duration = Duration::from_secs(15 * 60);

/// A port, which is then that of the loopback, or an address with one.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listen {
    Port(u16),
    Address(String),
}

impl WireMetrics {
    /// Returns for how long a machine may boot, or have failed to, before it counts as late.
    pub(super) fn late_after(&self, problems: &mut Problems) -> Duration {
        let Some(text) = &self.late_after else { return LATE_AFTER };
        parse_duration(text.get_ref())
            .inspect_err(|message| problems.push((Some(text.span()), message.clone())))
            .unwrap_or(LATE_AFTER)
    }

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

/// What the log looks like, and where it goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// How each line is written.
    pub format: LogFormat,
    /// The collector of OpenTelemetry that is told of boots and gets the log too, without a slash at its end.
    pub otlp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct WireLog {
    format: LogFormat,
    otlp: Option<Spanned<String>>,
}

impl WireLog {
    pub(super) fn check(self, problems: &mut Problems) -> LogSettings {
        let otlp = self.otlp.and_then(|text| {
            let checked = collector(text.get_ref());
            checked.map_err(|message| problems.push((Some(text.span()), message))).ok()
        });
        LogSettings { format: self.format, otlp }
    }
}

/// Reads where a collector is.
fn collector(text: &str) -> Result<String, String> {
    if !cfg!(feature = "otel") {
        let message = "this kiln was built without OpenTelemetry; remove `otlp`, or build kiln with `--features otel`";
        return Err(message.to_owned());
    }
    let url = text.trim_end_matches('/');
    let good = url.parse::<hyper::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.authority().is_some_and(|it| !it.as_str().contains('@'))
            && uri.query().is_none()
    });
    if good && !url.contains('#') {
        return Ok(url.to_owned());
    }
    Err(format!(
        "`{text}` is not where a collector is; write it as \"http://127.0.0.1:4318\": OTLP over HTTP, without /v1/traces"
    ))
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
            log: WireLog,
        }
        let only = toml::from_str::<Only>(text).unwrap_or_default();
        only.log.check(&mut Problems::default())
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
    fn a_machine_is_late_after_a_quarter_of_an_hour_unless_another_time_is_named() {
        let check = |text: &str| {
            let mut problems = Problems::default();
            let late = toml::from_str::<WireMetrics>(text).unwrap().late_after(&mut problems);
            (late.as_secs(), problems.len())
        };
        assert_eq!(check(""), (900, 0));
        assert_eq!(check("late-after = \"2h\""), (7200, 0));
        assert_eq!(check("late-after = \"soon\""), (900, 1));
    }

    #[test]
    fn a_collector_is_a_url_and_needs_a_kiln_that_can_export() {
        let check = |text: &str| {
            let mut problems = Problems::default();
            let wire: WireLog = toml::from_str(&format!("otlp = {text:?}")).unwrap();
            let otlp = wire.check(&mut problems).otlp;
            (otlp, problems.into_iter().map(|(_, message)| message).collect::<String>())
        };
        let (otlp, problem) = check("http://127.0.0.1:4318/");
        if cfg!(feature = "otel") {
            assert_eq!((otlp.as_deref(), problem.as_str()), (Some("http://127.0.0.1:4318"), ""));
            assert_eq!(check("https://[::1]/otlp").0.as_deref(), Some("https://[::1]/otlp"));
            for wrong in ["", "localhost:4318", "ftp://a", "http://u:p@a", "http://a/?x", "http://"]
            {
                let (otlp, problem) = check(wrong);
                assert!(otlp.is_none() && problem.contains("write it as"), "{wrong}: {problem}");
            }
        } else {
            assert_eq!(otlp, None);
            assert!(problem.contains("built without OpenTelemetry"), "{problem}");
        }
    }

    #[test]
    fn the_format_of_the_log_is_known_before_the_rest_is_understood() {
        let format = |text| LogSettings::peek(text).format;
        assert_eq!(format("[log]\nformat = \"json\"\n[nonsense]\nx = 1"), LogFormat::Json);
        assert_eq!(format("[log]\nformat = \"xml\""), LogFormat::Text);
        assert_eq!(format("no toml"), LogFormat::Text);
    }
}
