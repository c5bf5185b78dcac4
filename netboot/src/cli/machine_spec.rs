//! What `kiln machine add` and `kiln machine set` say of a machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::Args;
use kiln_inventory::{Identifier, NewMachine, is_uuid};

use super::settings_args::{OrNone, SettingsArgs, set};

/// Settings of a machine; what is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(super) struct SpecArgs {
    #[command(flatten)]
    settings: SettingsArgs,
    /// Address reserved for it; '' for none
    #[arg(long, value_name = "IPV4")]
    address: Option<OrNone<Ipv4Addr>>,
    /// Address of IPv6 reserved for it; '' for none
    #[arg(long, value_name = "IPV6")]
    address6: Option<OrNone<Ipv6Addr>>,
    /// Reserve the address also for who calls itself so in DHCP: a text, or bytes as hex:0152540012ab; '' for nobody
    #[arg(long, value_name = "ID")]
    client_id: Option<OrNone<Identifier>>,
    /// Reserve the address also for what is at this port of a switch, as its relay tells (option 82): a text or hex:…;
    /// '' for none
    #[arg(long, value_name = "ID")]
    circuit_id: Option<OrNone<Identifier>>,
    /// SMBIOS UUID, as 4c4c4544-0042-3510-8052-b4c04f4a3132; '' for none
    #[arg(long, value_parser = uuid)]
    uuid: Option<OrNone<String>>,
    /// Serial number, as its firmware tells it; '' for none
    #[arg(long)]
    serial: Option<OrNone<String>>,
    /// Number that its owner gave it, as its firmware tells it; '' for none
    #[arg(long, value_name = "TEXT")]
    asset_tag: Option<OrNone<String>>,
    /// Label as KEY=VALUE, or KEY- to take it away; can be given several times
    #[arg(short, long, value_name = "KEY=VALUE", value_parser = label, allow_hyphen_values = true)]
    label: Vec<(String, Option<String>)>,
}

impl SpecArgs {
    /// Changes what is said, and nothing else.
    pub(super) fn apply(self, spec: &mut NewMachine) {
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

/// Reads a UUID, or nothing.
fn uuid(text: &str) -> Result<OrNone<String>, String> {
    if text.is_empty() || is_uuid(text) {
        return Ok(OrNone(Some(text.to_owned()).filter(|text| !text.is_empty())));
    }
    Err("it is no UUID; write it as 4c4c4544-0042-3510-8052-b4c04f4a3132".to_owned())
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
        let uuid = "4c4c4544-0042-3510-8052-b4c04f4a3132";
        let says = ["--address", "10.0.0.7", "--address6", "fd00::7", "--client-id", "x"];
        let names = ["--uuid", uuid, "--asset-tag", "A7"];
        let before = spec.clone();
        parse(&[&says[..], &names].concat()).unwrap().apply(&mut spec);
        assert_eq!((spec.address, spec.uuid.as_deref()), ("10.0.0.7".parse().ok(), Some(uuid)));
        let back =
            ["address", "address6", "client-id", "circuit-id", "uuid", "serial", "asset-tag"];
        let back: Vec<String> = back.iter().map(|field| format!("--{field}=")).collect();
        parse(&back.iter().map(String::as_str).collect::<Vec<_>>()).unwrap().apply(&mut spec);
        assert_eq!(spec, NewMachine { circuit_id: None, serial: None, ..before });
        assert!(parse(&["--uuid", "4c4c4544"]).is_err() && parse(&["--address", "x"]).is_err());
        assert_eq!(parse(&[]).unwrap(), SpecArgs::default());
        for bad in ["rack", "=x", "-", "a b=c", "a,b=c"] {
            assert!(parse(&["--label", bad]).is_err(), "{bad}");
        }
    }
}
