//! `[webhooks]`: where events may be sent.

use serde::Deserialize;
use toml::Spanned;

use super::{Problems, parse_duration};
use crate::webhook::{Reach, WebhookSettings};

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireWebhooks {
    #[serde(default)]
    allow: Vec<Spanned<String>>,
    #[serde(default)]
    plain_http: bool,
    disable_after: Option<Spanned<String>>,
}

impl WireWebhooks {
    pub(super) fn check(self, problems: &mut Problems) -> WebhookSettings {
        let mut settings = WebhookSettings::default();
        let mut allow = Vec::new();
        for text in self.allow {
            match text.get_ref().parse() {
                Ok(network) => allow.push(network),
                Err(error) => problems.push((Some(text.span()), format!("{error}"))),
            }
        }
        settings.reach = Reach { allow, plain_http: self.plain_http };
        if let Some(text) = self.disable_after {
            match parse_duration(text.get_ref()) {
                Ok(time) => settings.disable_after = time,
                Err(message) => problems.push((Some(text.span()), message)),
            }
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_networks_are_named_and_mistakes_are_told() {
        let check = |text: &str| {
            let mut problems = Vec::new();
            let settings = toml::from_str::<WireWebhooks>(text).unwrap().check(&mut problems);
            (settings, problems.len())
        };
        assert_eq!(check(""), (WebhookSettings::default(), 0));
        let (settings, problems) = check("allow = [\"10.0.0.0/8\"]\ndisable-after = \"12h\"");
        assert_eq!(
            (settings.reach.allow.len(), settings.disable_after.as_secs(), problems),
            (1, 43200, 0)
        );
        assert_eq!(check("allow = [\"10.0.0.0\", \"x\"]\ndisable-after = \"soon\"").1, 3);
    }
}
