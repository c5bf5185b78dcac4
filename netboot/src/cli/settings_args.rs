//! What can be said of a machine and of a group alike.

use std::str::FromStr;

use clap::Args;
use kiln_inventory::{
    BootFrom, LoaderChoice, OptionValue, Setting, Settings, StateDisk, may_set_option,
};
use kiln_types::{Arch, ImageRef};
use serde_json::{Map, Value};

/// What is said of something: a value, or by an empty text that it is to have none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OrNone<T>(pub(super) Option<T>);

impl<T: FromStr> FromStr for OrNone<T> {
    type Err = T::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() { Ok(Self(None)) } else { text.parse().map(Some).map(Self) }
    }
}

/// Changes a field of which something was said.
pub(super) fn set<T>(field: &mut Option<T>, said: Option<OrNone<T>>) {
    if let Some(OrNone(value)) = said {
        *field = value;
    }
}

/// Settings; what is not given stays as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub(super) struct SettingsArgs {
    /// Image that is run: NAME or NAME:CHANNEL, or '' for none of its own. Without one nothing boots
    #[arg(long)]
    image: Option<OrNone<ImageRef>>,
    /// Image that is run while a machine is in maintenance, or '' for none of its own
    #[arg(long, value_name = "IMAGE")]
    maintenance_image: Option<OrNone<ImageRef>>,
    /// Refuse machines that turn out to be another architecture; '' refuses none
    #[arg(long)]
    arch: Option<OrNone<Arch>>,
    /// DHCP option by number, instead of the subnet's: 42=ip:10.0.0.9, 252=text:…, 43=hex:…; without a value, no longer.
    /// May be given several times
    #[arg(long = "dhcp-option", value_name = "CODE=TYPE:VALUE", value_parser = dhcp_option)]
    dhcp_options: Vec<(u8, Option<OptionValue>)>,
    /// Kernel arguments, after those of the image and of groups with a lower priority; '' for none
    #[arg(long, value_name = "TEXT")]
    cmdline: Option<String>,
    /// One entry of the metadata, as KEY=VALUE or KEY.KEY=VALUE; the value is JSON, or else a text. What is below
    /// `secrets` is given to the machine itself only
    #[arg(long, value_name = "KEY=VALUE", value_parser = entry)]
    metadata: Vec<(String, Value)>,
    /// Forget the metadata first
    #[arg(long)]
    no_metadata: bool,
    /// Disk on which an empty state partition may be made: serial:…, wwn:… or path:…. Without one no disk of a machine
    /// is ever written to
    #[arg(long, value_name = "DISK")]
    state_disk: Option<OrNone<StateDisk>>,
    /// Say no disk to write to, as --state-disk '' does; a state partition that is there is used as before
    #[arg(long, conflicts_with = "state_disk")]
    no_state_disk: bool,
    /// What UEFI loads first: auto (iPXE), ipxe, uki (one file with everything) or grub (shim and GRUB, signed by Debian);
    /// '' says nothing about it any more
    #[arg(long)]
    loader: Option<OrNone<LoaderChoice>>,
    /// Where to boot from: net (the image) or disk (what is on the machine's own disk); '' says nothing about it any more
    #[arg(long, value_name = "FROM")]
    boot: Option<OrNone<BootFrom>>,
    /// Have no such setting, even where a group with a lower priority says it: image, cmdline, dhcp-options.42,
    /// metadata.KEY, … May be given several times
    #[arg(long, value_name = "SETTING")]
    unset: Vec<Setting>,
    /// Say nothing about a setting any more, so that groups decide. May be given several times
    #[arg(long, value_name = "SETTING")]
    clear: Vec<Setting>,
}

impl SettingsArgs {
    /// Changes what is said, and nothing else.
    pub(super) fn apply(self, settings: &mut Settings) {
        for setting in &self.clear {
            clear(settings, setting);
            settings.unset.remove(setting);
        }
        for setting in self.unset {
            clear(settings, &setting);
            settings.unset.insert(setting);
        }
        set(&mut settings.image, self.image);
        set(&mut settings.maintenance_image, self.maintenance_image);
        set(&mut settings.arch, self.arch);
        for (code, value) in self.dhcp_options {
            match value {
                Some(value) => settings.dhcp_options.insert(code, value),
                None => settings.dhcp_options.remove(&code),
            };
        }
        if let Some(cmdline) = self.cmdline {
            settings.cmdline = cmdline;
        }
        set(&mut settings.loader, self.loader);
        set(&mut settings.boot, self.boot);
        if self.no_metadata {
            settings.metadata.clear();
        }
        for (path, value) in self.metadata {
            put(&mut settings.metadata, &path, value);
        }
        let no_disk = self.no_state_disk.then_some(OrNone(None));
        set(&mut settings.state_disk, self.state_disk.or(no_disk));
    }
}

fn clear(settings: &mut Settings, setting: &Setting) {
    match setting {
        Setting::Arch => settings.arch = None,
        Setting::Image => settings.image = None,
        Setting::MaintenanceImage => settings.maintenance_image = None,
        Setting::Cmdline => settings.cmdline.clear(),
        Setting::DhcpOptions => settings.dhcp_options.clear(),
        Setting::DhcpOption(code) => {
            settings.dhcp_options.remove(code);
        }
        Setting::StateDisk => settings.state_disk = None,
        Setting::Loader => settings.loader = None,
        Setting::Boot => settings.boot = None,
        Setting::Metadata => settings.metadata.clear(),
        Setting::MetadataAt(keys) => put(&mut settings.metadata, &keys.join("."), Value::Null),
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
    if value.is_null() && !map.get(key).is_some_and(Value::is_object) {
        return;
    }
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

    fn parse(args: &[&str]) -> Result<SettingsArgs, clap::error::ErrorKind> {
        let command = SettingsArgs::augment_args(Command::new("set"));
        let whole = ["set"].into_iter().chain(args.iter().copied());
        let matches = command.try_get_matches_from(whole).map_err(|error| error.kind())?;
        Ok(SettingsArgs::from_arg_matches(&matches).unwrap())
    }

    #[test]
    fn set_changes_what_is_said_and_nothing_else() {
        let mut spec: Settings =
            serde_json::from_str(r#"{"image":"web","cmdline":"quiet"}"#).unwrap();
        let before = spec.clone();
        let mut say = |args: &[&str]| {
            parse(args).unwrap().apply(&mut spec);
            spec.clone()
        };
        assert_eq!(say(&["--state-disk", "serial:ABC"]).state_disk, "serial:ABC".parse().ok());
        say(&["--image", "web:edge"]);
        let now = say(&["--cmdline", ""]);
        assert_eq!((now.image, now.cmdline.as_str()), ("web:edge".parse().ok(), ""));
        assert_eq!(now.state_disk, "serial:ABC".parse().ok());
        let now = say(&["--no-state-disk"]);
        assert_eq!(now, Settings { image: now.image.clone(), cmdline: String::new(), ..before });
        say(&["--loader", "uki"]);
        let now = say(&["--boot", "disk"]);
        assert_eq!((now.loader, now.boot), (Some(LoaderChoice::Uki), Some(BootFrom::Disk)));
        assert!(parse(&["--loader", "lilo"]).is_err() && parse(&["--boot", "cd"]).is_err());
        say(&["--metadata", "role=db", "--metadata", "disk.size=7", "--metadata", "a=[\"b=c\"]"]);
        let now = say(&["--metadata", "disk.name=x", "--metadata", "a=null"]);
        let expected = serde_json::json!({"role": "db", "disk": {"size": 7, "name": "x"}});
        assert_eq!(Value::from(now.metadata), expected);
        assert!(say(&["--no-metadata"]).metadata.is_empty());
        for wrong in ["role", "=x", "a..b=x"] {
            assert!(parse(&["--metadata", wrong]).is_err(), "{wrong}");
        }
        assert_eq!(parse(&[]).unwrap(), SettingsArgs::default());
        let now = say(&["--dhcp-option", "42=ip:10.0.0.9"]);
        assert_eq!(now.dhcp_options.get(&42).map(OptionValue::bytes), Some(&[10, 0, 0, 9][..]));
        assert!(say(&["--dhcp-option", "42="]).dhcp_options.is_empty());
        for bad in ["53=u8:1", "42", "42=10.0.0.9", "0=u8:1", "256=u8:1"] {
            assert!(parse(&["--dhcp-option", bad]).is_err(), "{bad}");
        }
        let now = say(&["--state-disk", "wwn:0x5", "--arch", "arm64", "--maintenance-image", "m"]);
        assert!(now.state_disk.is_some() && now.arch.is_some() && now.maintenance_image.is_some());
        let (state_disk, maintenance) = (["--state-disk", ""], ["--maintenance-image", ""]);
        let rest = ["--image", "", "--arch", "", "--loader", "", "--boot", ""];
        assert_eq!(say(&[&state_disk[..], &maintenance, &rest].concat()), Settings::default());
        assert!(parse(&["--state-disk", "sda"]).is_err());
        assert!(parse(&["--state-disk", "serial:a", "--no-state-disk"]).is_err());
    }

    #[test]
    fn unset_takes_it_from_groups_too_and_clear_leaves_it_to_them() {
        let mut spec: Settings = serde_json::from_str(
            r#"{"image":"web","cmdline":"quiet","metadata":{"a":{"b":1}},"unset":["arch"]}"#,
        )
        .unwrap();
        let args = ["--unset", "image", "--unset", "metadata.a.b", "--clear", "cmdline"];
        parse(&args).unwrap().apply(&mut spec);
        let unset: Vec<String> = spec.unset.iter().map(ToString::to_string).collect();
        assert_eq!(unset, ["arch", "image", "metadata.a.b"]);
        assert_eq!((spec.image.as_ref(), spec.cmdline.as_str()), (None, ""));
        assert_eq!(Value::from(spec.metadata.clone()), serde_json::json!({"a": {}}));
        let args = ["--clear", "image", "--clear", "arch", "--clear", "metadata.x.y"];
        parse(&args).unwrap().apply(&mut spec);
        assert_eq!(spec.unset.len(), 1);
        assert!(parse(&["--unset", "name"]).is_err());
    }
}
