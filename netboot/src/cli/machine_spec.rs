//! What `kiln machine add` and `kiln machine set` say of a machine.

use std::net::{Ipv4Addr, Ipv6Addr};

use clap::Args;
use kiln_inventory::{
    BootFrom, Identifier, LoaderChoice, NewMachine, OptionValue, StateDisk, may_set_option,
};
use kiln_types::{Arch, ImageRef};
use serde_json::{Map, Value};

/// Settings of a machine; what is not given stays as it is.
#[derive(Debug, Default, PartialEq, Eq, Args)]
pub(super) struct SpecArgs {
    /// Image it runs: NAME or NAME:CHANNEL. Without one it boots nothing
    #[arg(long)]
    image: Option<ImageRef>,
    /// Refuse it when it turns out to be another architecture
    #[arg(long)]
    arch: Option<Arch>,
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
    /// DHCP option by number, instead of its subnet's: 42=ip:10.0.0.9, 252=text:…, 43=hex:…; without a value, no longer.
    /// May be given several times
    #[arg(long = "dhcp-option", value_name = "CODE=TYPE:VALUE", value_parser = dhcp_option)]
    dhcp_options: Vec<(u8, Option<OptionValue>)>,
    /// Kernel arguments, after those of the image
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// One entry of its metadata, as KEY=VALUE or KEY.KEY=VALUE; the value is JSON, or else a text. What is below
    /// `secrets` is given to the machine itself only
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    metadata: Vec<(String, Value)>,
    /// Forget its metadata first
    #[arg(long)]
    no_metadata: bool,
    /// Disk on which an empty state partition may be made: serial:…, wwn:… or path:…. Without one no disk of the machine
    /// is ever written to
    #[arg(long, value_name = "DISK")]
    state_disk: Option<StateDisk>,
    /// Write to no disk of the machine; a state partition that is there is used as before
    #[arg(long, conflicts_with = "state_disk")]
    no_state_disk: bool,
    /// What UEFI loads first: auto (iPXE), ipxe, uki (one file with everything) or grub (shim and GRUB, signed by Debian)
    #[arg(long)]
    loader: Option<LoaderChoice>,
    /// Where it boots from: net (its image) or disk (what is on its own disk)
    #[arg(long, value_name = "FROM")]
    boot: Option<BootFrom>,
}

impl SpecArgs {
    /// Changes what is said, and nothing else.
    pub(super) fn apply(self, spec: &mut NewMachine) {
        fn set<T>(field: &mut Option<T>, said: Option<T>) {
            if said.is_some() {
                *field = said;
            }
        }
        set(&mut spec.image, self.image);
        set(&mut spec.arch, self.arch);
        set(&mut spec.address, self.address);
        set(&mut spec.address6, self.address6);
        set(&mut spec.client_id, self.client_id);
        set(&mut spec.circuit_id, self.circuit_id);
        for (code, value) in self.dhcp_options {
            match value {
                Some(value) => spec.dhcp_options.insert(code, value),
                None => spec.dhcp_options.remove(&code),
            };
        }
        if let Some(cmdline) = self.cmdline {
            spec.cmdline = cmdline;
        }
        spec.loader = self.loader.unwrap_or(spec.loader);
        spec.boot = self.boot.unwrap_or(spec.boot);
        if self.no_metadata {
            spec.metadata.clear();
        }
        for (path, value) in self.metadata {
            put(&mut spec.metadata, &path, value);
        }
        if self.state_disk.is_some() || self.no_state_disk {
            spec.state_disk = self.state_disk;
        }
    }
}

/// Reads `CODE=TYPE:VALUE`, or `CODE=` for an option that is no longer set.
fn dhcp_option(text: &str) -> Result<(u8, Option<OptionValue>), String> {
    let (code, value) = text.split_once('=').ok_or("write it as CODE=TYPE:VALUE")?;
    let code = code.parse().ok().filter(|code| may_set_option(*code)).ok_or_else(|| {
        format!("`{code}` is no number of an option that can be set; it is one from 1 to 254, without those of the exchange itself")
    })?;
    let value = (!value.is_empty()).then(|| value.parse()).transpose();
    value
        .map(|value| (code, value))
        .map_err(|error: kiln_inventory::ParseOptionError| error.to_string())
}

/// Reads one entry of the metadata.
fn entry(text: &str) -> Result<(String, Value), String> {
    let (path, value) = text.split_once('=').ok_or("write it as KEY=VALUE")?;
    if path.split('.').any(str::is_empty) {
        return Err(format!("`{path}` is no key; write it as KEY or KEY.KEY"));
    }
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((path.to_owned(), value))
}

/// Puts a value where its keys lead, in place of what is in the way. `null` takes away what is there.
fn put(map: &mut Map<String, Value>, path: &str, value: Value) {
    let Some((key, rest)) = path.split_once('.') else {
        if value.is_null() {
            map.remove(path);
        } else {
            map.insert(path.to_owned(), value);
        }
        return;
    };
    let inside = map.entry(key).or_insert_with(|| Value::Object(Map::new()));
    if !inside.is_object() {
        *inside = Value::Object(Map::new());
    }
    if let Value::Object(inside) = inside {
        put(inside, rest, value);
    }
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::*;

    #[test]
    fn set_changes_what_is_said_and_nothing_else() {
        let parse = |args: &[&str]| {
            let command = SpecArgs::augment_args(Command::new("set"));
            let whole = ["set"].into_iter().chain(args.iter().copied());
            let matches = command.try_get_matches_from(whole).map_err(|error| error.kind())?;
            Ok::<_, clap::error::ErrorKind>(SpecArgs::from_arg_matches(&matches).unwrap())
        };
        let json = r#"{"name":"n1","macs":["52:54:00:00:00:01"],"image":"web","cmdline":"quiet"}"#;
        let mut spec: NewMachine = serde_json::from_str(json).unwrap();
        let before = spec.clone();
        parse(&["--state-disk", "serial:ABC"]).unwrap().apply(&mut spec);
        assert_eq!(spec.state_disk, "serial:ABC".parse().ok());
        parse(&["--image", "web:edge"]).unwrap().apply(&mut spec);
        parse(&["--cmdline", ""]).unwrap().apply(&mut spec);
        assert_eq!(
            (spec.image.as_ref(), spec.cmdline.as_str()),
            ("web:edge".parse().ok().as_ref(), "")
        );
        assert_eq!(spec.state_disk, "serial:ABC".parse().ok());
        parse(&["--no-state-disk"]).unwrap().apply(&mut spec);
        assert_eq!(
            spec,
            NewMachine { image: spec.image.clone(), cmdline: String::new(), ..before }
        );
        parse(&["--loader", "uki"]).unwrap().apply(&mut spec);
        parse(&["--boot", "disk"]).unwrap().apply(&mut spec);
        assert_eq!((spec.loader, spec.boot), (LoaderChoice::Uki, BootFrom::Disk));
        assert!(parse(&["--loader", "lilo"]).is_err() && parse(&["--boot", "cd"]).is_err());
        let entries =
            ["--metadata", "role=db", "--metadata", "disk.size=7", "--metadata", "a=[\"b=c\"]"];
        parse(&entries).unwrap().apply(&mut spec);
        parse(&["--metadata", "disk.name=x", "--metadata", "a=null"]).unwrap().apply(&mut spec);
        let expected = serde_json::json!({"role": "db", "disk": {"size": 7, "name": "x"}});
        assert_eq!(Value::from(spec.metadata.clone()), expected);
        parse(&["--no-metadata"]).unwrap().apply(&mut spec);
        assert!(spec.metadata.is_empty());
        for wrong in ["role", "=x", "a..b=x"] {
            assert!(parse(&["--metadata", wrong]).is_err(), "{wrong}");
        }
        assert_eq!(parse(&[]).unwrap(), SpecArgs::default());
        parse(&["--dhcp-option", "42=ip:10.0.0.9", "--circuit-id", "eth7"])
            .unwrap()
            .apply(&mut spec);
        assert_eq!(spec.dhcp_options.get(&42).map(OptionValue::bytes), Some(&[10, 0, 0, 9][..]));
        parse(&["--dhcp-option", "42="]).unwrap().apply(&mut spec);
        assert!(spec.dhcp_options.is_empty());
        assert_eq!(spec.circuit_id, "eth7".parse().ok());
        for bad in ["53=u8:1", "42", "42=10.0.0.9", "0=u8:1", "256=u8:1"] {
            assert!(parse(&["--dhcp-option", bad]).is_err(), "{bad}");
        }
        assert!(parse(&["--state-disk", "sda"]).is_err());
        assert!(parse(&["--state-disk", "serial:a", "--no-state-disk"]).is_err());
    }
}
