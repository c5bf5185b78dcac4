use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::apply::keep_secrets;
use crate::seal::seal_secrets;
use crate::settings::{check_cmdline, check_metadata};
use crate::{Document, Seal, Selector, Settings, may_set_option};

/// Settings for machines that a selector matches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Unique name.
    pub name: String,
    /// Whose settings these are. It looks at labels of machines, which no group sets, so that groups cannot depend on
    /// each other.
    pub selector: Selector,
    /// Which group wins where several say the same: the one with the highest number, then the one whose name comes first.
    #[serde(default)]
    pub priority: i32,
    /// What its machines get, unless they say it themselves.
    #[serde(default)]
    pub settings: Settings,
}

impl Group {
    /// Orders groups, the strongest first.
    pub fn by_strength(&self, other: &Self) -> Ordering {
        other.priority.cmp(&self.priority).then_with(|| self.name.cmp(&other.name))
    }
}

impl Document for Group {
    const NOUN: &'static str = "group";

    fn name(&self) -> &str {
        &self.name
    }

    fn check(&self) -> Result<(), String> {
        let Self { name, settings, .. } = self;
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let shown: String = name.escape_debug().take(80).collect();
        if !name.bytes().next().is_some_and(plain)
            || name.len() > 63
            || !name.bytes().all(|b| plain(b) || matches!(b, b'-' | b'_' | b'.'))
        {
            return Err(format!(
                "`{shown}` cannot be the name of a group; use at most 63 lower-case letters, digits, `-`, `_` and `.`, \
                 with a letter or digit first"
            ));
        }
        check_cmdline(&settings.cmdline).map_err(|what| {
            format!("the kernel arguments of group `{name}` hold {what}, which the loader cannot pass on; leave it out")
        })?;
        if let Some(code) = settings.dhcp_options.keys().find(|code| !may_set_option(**code)) {
            return Err(format!(
                "group `{name}` cannot set DHCP option {code}, which belongs to the exchange itself"
            ));
        }
        check_metadata(&settings.metadata)
            .map_err(|what| format!("the metadata of group `{name}` {what}"))
    }

    fn keep(&mut self, now: &Self) {
        keep_secrets(&mut self.settings.metadata, &now.settings.metadata);
    }

    fn seal(&mut self, seal: &dyn Seal, now: Option<&Self>) -> Result<(), String> {
        seal_secrets(seal, &mut self.settings.metadata, now.map(|now| &now.settings.metadata))
    }

    fn hide(document: &mut Value) {
        let metadata = document.pointer_mut("/settings/metadata").and_then(Value::as_object_mut);
        if let Some(metadata) = metadata {
            metadata.remove("secrets");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_cannot_be_are_refused_and_secrets_stay_out_of_the_log() {
        let group = |name: &str, settings: &str| -> Group {
            let json = format!(r#"{{"name":{name:?},"selector":"*","settings":{settings}}}"#);
            serde_json::from_str(&json).unwrap()
        };
        assert_eq!(group("rack-1.web", r#"{"cmdline":"quiet"}"#).check(), Ok(()));
        for (name, settings, part) in [
            ("", "{}", "cannot be the name"),
            ("../x", "{}", "cannot be the name"),
            ("Web", "{}", "cannot be the name"),
            ("web", r#"{"cmdline":"a\nb"}"#, "a control character"),
            ("web", r#"{"cmdline":"${net0}"}"#, "leave it out"),
            ("web", r#"{"dhcp-options":{"53":"u8:1"}}"#, "option 53"),
        ] {
            let error = group(name, settings).check().unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        let mut shown =
            serde_json::to_value(group("a", r#"{"metadata":{"secrets":{"k":"v"},"b":1}}"#))
                .unwrap();
        Group::hide(&mut shown);
        assert_eq!(shown["settings"]["metadata"], serde_json::json!({"b": 1}));
    }
}
