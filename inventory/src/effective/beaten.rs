//! What groups say of a machine and does not count, because something stronger says otherwise.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{Effective, Origin, SettingRow};
use crate::{Group, Machine};

/// A setting that is said and does not count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct BeatenRow {
    /// Its name.
    pub setting: String,
    /// The value that does not count; what is secret is not shown.
    pub value: String,
    /// Who says it: `group NAME`.
    pub from: String,
    /// Who says otherwise or takes it away: `machine` or `group NAME`.
    pub by: String,
}

/// Returns what does not count for a machine, by the order of the settings' names, of each what is strongest first.
pub(crate) fn beaten(groups: &[Group], machine: &Machine) -> Vec<BeatenRow> {
    let labels = &machine.spec.labels;
    let mut groups: Vec<&Group> =
        groups.iter().filter(|group| group.selector.matches(labels)).collect();
    groups.sort_by(|a, b| b.by_strength(a));
    let layers = groups
        .into_iter()
        .map(|group| (group.settings.layer(), Origin::Group(group.name.as_str().into())))
        .chain([(machine.spec.layer(), Origin::Machine)]);

    let default = Origin::Default.to_string();
    let mut all = Effective::default();
    let mut before: Vec<SettingRow> = Vec::new();
    let mut beaten = Vec::new();
    for (layer, by) in layers {
        all.apply(&layer, &by);
        let after = all.rows();
        let counts: HashSet<_> = after.iter().map(|row| (&row.setting, &row.from)).collect();
        for row in before {
            if row.from != default && !counts.contains(&(&row.setting, &row.from)) {
                let SettingRow { setting, value, from } = row;
                beaten.push(BeatenRow { setting, value, from, by: by.to_string() });
            }
        }
        before = after;
    }
    beaten.reverse();
    beaten.sort_by(|a, b| a.setting.cmp(&b.setting));
    beaten
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::{group, machine};
    use super::*;

    fn rows(groups: &[Group], machine: &Machine) -> Vec<String> {
        let rows = beaten(groups, machine).into_iter();
        rows.map(|it| format!("{}={} of {}, by {}", it.setting, it.value, it.from, it.by)).collect()
    }

    #[test]
    fn what_does_not_count_is_told_with_who_is_stronger() {
        let groups = [
            group(
                "all",
                "*",
                0,
                json!({"image": "base", "cmdline": "quiet", "loader": "uki",
                       "metadata": {"ntp": "a", "disk": {"size": 1, "kind": "ssd"},
                                    "secrets": {"key": "hidden"}},
                       "dhcp-options": {"42": "u8:1", "43": "u8:2"}}),
            ),
            group(
                "web",
                "role=web",
                10,
                json!({"image": "web", "cmdline": "a=1", "unset": ["cmdline", "dhcp-options.42"],
                       "metadata": {"disk": {"size": 2}, "ntp": null}}),
            ),
            group("db", "role=db", 20, json!({"image": "db"})),
        ];
        let own = json!({"image": "base", "metadata": {"secrets": {"key": "mine"}}});
        assert_eq!(
            rows(&groups, &machine(&[("role", "web")], own)),
            [
                "cmdline=quiet of group all, by group web",
                "dhcp-options.42=u8:1 of group all, by group web",
                "image=web of group web, by machine",
                "image=base of group all, by group web",
                "metadata.disk.size=1 of group all, by group web",
                "metadata.ntp=\"a\" of group all, by group web",
                "metadata.secrets.key=(secret) of group all, by machine",
            ]
        );
        assert_eq!(
            rows(&groups, &machine(&[], json!({"loader": "auto"}))),
            ["loader=uki of group all, by machine"]
        );
        assert_eq!(rows(&groups, &machine(&[], json!({}))), [""; 0]);
    }
}
