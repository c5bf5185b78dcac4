//! What `kiln machine add` and `kiln machine set` say of a machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::Args;
use kiln_inventory::{Identifier, NewMachine};

use super::settings_args::SettingsArgs;

/// Settings of a machine; what is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(super) struct SpecArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address reserved for it
    #[arg(long, value_name = "IPV4")]
    address: Option<Ipv4Addr>,
    /// Address of IPv6 reserved for it
    #[arg(long, value_name = "IPV6")]
    address6: Option<Ipv6Addr>,
    /// Reserve the address also for who calls itself so in DHCP: a text, or bytes as hex:0152540012ab
    #[arg(long, value_name = "ID")]
    client_id: Option<Identifier>,
    /// Reserve the address also for what is at this port of a switch, as its relay tells (option 82): a text or hex:…
    #[arg(long, value_name = "ID")]
    circuit_id: Option<Identifier>,
    /// SMBIOS UUID
    #[arg(long)]
    uuid: Option<String>,
    /// Serial number, as its firmware tells it
    #[arg(long)]
    serial: Option<String>,
    /// Number that its owner gave it, as its firmware tells it
    #[arg(long, value_name = "TEXT")]
    asset_tag: Option<String>,
    /// Label as KEY=VALUE, or KEY- to take it away; can be given several times
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label, allow_hyphen_values = true)]
    label: Vec<(String, Option<String>)>,
}

impl SpecArgs {
    /// Changes what is said, and nothing else.
    pub(super) fn apply(self, spec: &mut NewMachine) {
        fn set<T>(field: &mut Option<T>, said: Option<T>) {
            if said.is_some() {
                *field = said;
            }
        }
        let mut settings = spec.settings();
        self.settings.apply(&mut settings);
        spec.set_settings(settings);
        set(&mut spec.address, self.address);
        set(&mut spec.address6, self.address6);
        set(&mut spec.client_id, self.client_id);
        set(&mut spec.circuit_id, self.circuit_id);
        set(&mut spec.uuid, self.uuid);
        set(&mut spec.serial, self.serial);
        set(&mut spec.asset_tag, self.asset_tag);
        for (key, value) in self.label {
            match value {
                Some(value) => spec.labels.insert(key, value),
                None => spec.labels.remove(&key),
            };
        }
    }
}

/// Reads `KEY=VALUE`, or `KEY-` for a label that is taken away.
fn label(text: &str) -> Result<(String, Option<String>), String> {
    let (key, value) = match (text.split_once('='), text.strip_suffix('-')) {
        (Some((key, value)), _) => (key, Some(value.to_owned())),
        (None, Some(key)) => (key, None),
        (None, None) => return Err("write it as KEY=VALUE, or KEY- to take it away".to_owned()),
    };
    if !kiln_inventory::is_label(key) {
        return Err(format!("`{key}` cannot be a label; use letters, digits and - _ . / : + @"));
    }
    Ok((key.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn set_changes_what_is_said_of_a_machine_and_nothing_else() {
        let parse = |args: &[&str]| {
            let command = SpecArgs::augment_args(Command::new("set"));
            let whole = ["set"].into_iter().chain(args.iter().copied());
            let matches = command.try_get_matches_from(whole).map_err(|error| error.kind())?;
            Ok::<_, clap::error::ErrorKind>(SpecArgs::from_arg_matches(&matches).unwrap())
        };
        let json = r#"{"name":"n1","macs":["52:54:00:00:00:01"],"image":"web","labels":{"a":"1"}}"#;
        let mut spec: NewMachine = serde_json::from_str(json).unwrap();
        let before = spec.clone();
        parse(&["--label", "rack=r1", "-l", "a-", "-l", "gone-"]).unwrap().apply(&mut spec);
        assert_eq!(spec.labels, [("rack".to_owned(), "r1".to_owned())].into());
        assert_eq!(NewMachine { labels: before.labels.clone(), ..spec.clone() }, before);
        parse(&["--circuit-id", "eth7", "--serial", "S1"]).unwrap().apply(&mut spec);
        assert_eq!((&spec.circuit_id, spec.serial.as_deref()), (&"eth7".parse().ok(), Some("S1")));
        parse(&["--cmdline", "quiet"]).unwrap().apply(&mut spec);
        assert_eq!((spec.cmdline.as_str(), &spec.image), ("quiet", &before.image));
        assert_eq!(parse(&[]).unwrap(), SpecArgs::default());
        for bad in ["rack", "=x", "-", "a b=c", "a,b=c"] {
            assert!(parse(&["--label", bad]).is_err(), "{bad}");
        }
    }
}
