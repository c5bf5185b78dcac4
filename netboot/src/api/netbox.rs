//! Machines from a list of devices as NetBox exports it: a dry run shows the difference, the same call without it applies
//! it, all or nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use kiln_inventory::{Machine, NewMachine};
use kiln_types::Mac;
use serde::{Deserialize, Serialize};

use super::access::{Access, Noun};
use super::change::{Dry, Preview};
use super::extract::{Body, Params};
use super::machines::refresh;
use super::peer::Caller;
use super::route::{Route, post};
use super::{Control, Fault};
use crate::import::machine_name;

/// The longest list that is read.
const MOST_BYTES: usize = 16 << 20;
/// The most devices of one import.
const MOST_DEVICES: usize = 20_000;

/// A list of devices, whole or as one page of NetBox's answer. What else NetBox says of them is passed over.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(super) enum Devices {
    /// A page of `/api/dcim/devices/`.
    Page {
        /// The devices.
        results: Vec<Device>,
        #[serde(flatten)]
        #[schema(ignore)]
        _rest: Rest,
    },
    /// The devices alone.
    List(Vec<Device>),
}

/// What else NetBox says, of which nothing is wanted. With it a type is read from an object alone, and not from a list
/// whose first item is taken for its first field.
#[derive(Clone, Copy, Debug, Deserialize)]
pub(super) struct Rest {}

/// A device.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Device {
    /// Its name, of which the first label becomes the name of the machine.
    name: Option<String>,
    /// Where it is.
    #[serde(default)]
    site: Option<Named>,
    /// The rack.
    #[serde(default)]
    rack: Option<Named>,
    /// What it is for.
    #[serde(default)]
    role: Option<Named>,
    /// Its address, with the length of the prefix.
    #[serde(default)]
    primary_ip4: Option<Address>,
    /// Its address of IPv6.
    #[serde(default)]
    primary_ip6: Option<Address>,
    /// Its interfaces, as `/api/dcim/interfaces/` has them.
    #[serde(default)]
    interfaces: Vec<Interface>,
    #[serde(flatten)]
    #[schema(ignore)]
    _rest: Rest,
}

/// Something with a name.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Named {
    /// Its short name.
    #[serde(default)]
    slug: Option<String>,
    /// Its name.
    #[serde(default)]
    name: Option<String>,
    #[serde(flatten)]
    #[schema(ignore)]
    _rest: Rest,
}

/// An address.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Address {
    /// As `10.0.0.7/24`.
    address: String,
    #[serde(flatten)]
    #[schema(ignore)]
    _rest: Rest,
}

impl Address {
    fn read<T: FromStr>(&self) -> Option<T> {
        self.address.split('/').next().and_then(|text| text.parse().ok())
    }
}

/// An interface.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Interface {
    /// Its hardware address.
    #[serde(default)]
    mac_address: Option<String>,
    /// All of them, as NetBox has them since 4.2.
    #[serde(default)]
    mac_addresses: Vec<MacAddress>,
    /// Whether it is for management only, as that of a BMC, from which no machine boots.
    #[serde(default)]
    mgmt_only: Option<bool>,
    #[serde(flatten)]
    #[schema(ignore)]
    _rest: Rest,
}

/// A hardware address of an interface that may have several.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct MacAddress {
    /// The address.
    mac_address: String,
    #[serde(flatten)]
    #[schema(ignore)]
    _rest: Rest,
}

/// What became of an import, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Import {
    /// Whether it was only tried.
    pub dry_run: bool,
    /// Machines that are as the list says already.
    pub unchanged: usize,
    /// Machines that are new or change.
    pub changes: Vec<ImportChange>,
    /// Devices that cannot be machines.
    pub skipped: Vec<Skipped>,
}

/// A machine that is new or changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct ImportChange {
    /// Its name.
    pub name: String,
    /// What is different.
    #[serde(flatten)]
    pub preview: Preview,
}

/// A device that cannot be a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Skipped {
    /// Its name, where it has one.
    pub name: String,
    /// Why.
    pub why: String,
}

pub(super) fn routes() -> Vec<Route> {
    let write = Access::Write(Noun::Machine);
    let what = "Take over machines from a list of NetBox, all or none";
    vec![
        post("/api/v1/inventory/netbox", write, what, import)
            .query::<Dry>()
            .takes::<Devices>()
            .up_to(MOST_BYTES)
            .gives::<Import>(),
    ]
}

async fn import(
    State(control): State<Arc<Control>>,
    caller: Caller,
    Params(dry): Params<Dry>,
    Body(devices): Body<Devices>,
) -> Result<Json<Import>, Fault> {
    let (Devices::Page { results: devices, .. } | Devices::List(devices)) = devices;
    if devices.len() > MOST_DEVICES {
        return Err(Fault::invalid(format!("at most {MOST_DEVICES} devices are taken at a time")));
    }
    let known = control.view.machines().await?;
    let known: HashMap<&str, &Machine> =
        known.iter().map(|machine| (machine.spec.name.as_str(), &**machine)).collect();
    let mut done = Import { dry_run: dry.dry_run, ..Import::default() };
    let mut taken: HashMap<String, usize> = HashMap::new();
    for name in devices.iter().filter_map(|device| machine_name(device.name.as_deref()?)) {
        *taken.entry(name).or_default() += 1;
    }
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    for device in devices {
        let described = named(&device, &taken).and_then(|name| {
            let now = known.get(name.as_str()).copied();
            let now = now.filter(|machine| caller.rights.sees(&machine.spec.labels));
            Ok((now, described(&device, name, now)?))
        });
        let skipped = |why| {
            let name = device.name.as_deref().unwrap_or_default().chars().take(80).collect();
            Skipped { name, why }
        };
        let (now, spec) = match described {
            Ok(described) => described,
            Err(why) => {
                done.skipped.push(skipped(why));
                continue;
            }
        };
        if now.is_some_and(|now| now.spec == spec) {
            done.unchanged += 1;
            continue;
        }
        caller.may_make(&spec)?;
        let made = match now {
            Some(now) => edit.change_machine(now.id, &spec, Some(now.revision)).await.map(drop),
            None => edit.add_machine(&spec).await.map(drop),
        };
        match made.map_err(Fault::from) {
            Ok(()) => {
                let preview = Preview::of(now.map(|now| &now.spec), Some(&spec));
                done.changes.push(ImportChange { name: spec.name, preview });
            }
            // What no machine can be is refused before anything of it is written.
            Err(fault) if fault.status() == StatusCode::BAD_REQUEST => {
                done.skipped.push(skipped(fault.detail().to_owned()));
            }
            Err(fault) => return Err(fault),
        }
    }
    if !dry.dry_run {
        edit.commit().await?;
        refresh(&control).await?;
        tracing::info!(changes = done.changes.len(), "machines taken over from NetBox");
    }
    Ok(Json(done))
}

/// Returns the name that the machine of a device is to have, where it is that of no other one of the list.
fn named(device: &Device, taken: &HashMap<String, usize>) -> Result<String, String> {
    let said = device.name.as_deref().unwrap_or_default();
    if said.is_empty() {
        return Err("it has no name".to_owned());
    }
    let name = machine_name(said).ok_or(
        "the first label of its name cannot be the name of a machine, which has letters, digits and `-`",
    )?;
    if taken.get(&name).is_some_and(|count| *count > 1) {
        return Err(format!(
            "its machine would be `{name}`, and so would that of another device of the list; rename one of them"
        ));
    }
    Ok(name)
}

/// Returns what a machine is to be after an import: what the list does not say stays.
fn described(device: &Device, name: String, now: Option<&Machine>) -> Result<NewMachine, String> {
    let mut macs = BTreeSet::new();
    let of_it = device.interfaces.iter().filter(|interface| interface.mgmt_only != Some(true));
    let told = of_it.flat_map(|interface| {
        let all = interface.mac_addresses.iter().map(|it| &it.mac_address);
        interface.mac_address.iter().chain(all)
    });
    for text in told {
        let mac = text.parse::<Mac>().ok().filter(|mac| mac.is_unicast());
        macs.insert(mac.ok_or("an interface has no MAC address of Ethernet")?);
    }
    let has_domain = device.name.as_deref().is_some_and(|said| said.contains('.'));
    let mut spec = match now {
        Some(now) if has_domain && !macs.is_empty() && macs.is_disjoint(&now.spec.macs) => {
            return Err(format!(
                "there is a machine `{name}` already, and none of its MAC addresses is one of this device: rename one \
                 of them, or, where they are the same, give the machine these addresses first"
            ));
        }
        Some(now) => now.spec.clone(),
        None if macs.is_empty() => {
            return Err("no interface has a MAC address, but for those of management".to_owned());
        }
        None => NewMachine::new(name, []),
    };
    if !macs.is_empty() {
        spec.macs = macs;
    }
    if let Some(said) = &device.primary_ip4 {
        spec.address = Some(said.read::<Ipv4Addr>().ok_or("its primary address is none of IPv4")?);
    }
    if let Some(said) = &device.primary_ip6 {
        let address = said.read::<Ipv6Addr>().ok_or("its primary address of IPv6 is none")?;
        spec.address6 = Some(address);
    }
    for (key, value) in [("site", &device.site), ("rack", &device.rack), ("role", &device.role)] {
        let value = value.as_ref().and_then(|value| value.slug.as_ref().or(value.name.as_ref()));
        if let Some(value) = value {
            spec.labels.insert(key.to_owned(), value.clone());
        }
    }
    Ok(spec)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn device(value: serde_json::Value) -> Device {
        serde_json::from_value(value).unwrap()
    }

    fn described(device: &Device, now: Option<&Machine>) -> Result<NewMachine, String> {
        super::described(device, named(device, &HashMap::new())?, now)
    }

    #[test]
    fn a_list_is_not_taken_for_an_object_by_the_order_of_its_items() {
        let read = |value| serde_json::from_value::<Devices>(value);
        for good in [json!([]), json!({"count": 1, "results": [{"id": 1, "name": "a"}]})] {
            assert!(read(good.clone()).is_ok(), "{good}");
        }
        for wrong in [
            json!([[]]),
            json!([["a", null, null, null, null, []]]),
            json!([{"name": "a", "site": ["fra1", "Frankfurt"]}]),
            json!([{"name": "a", "primary_ip4": ["10.0.0.7/24"]}]),
            json!([{"name": "a", "interfaces": [["52:54:00:00:00:01", false]]}]),
        ] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_device_becomes_a_machine_and_what_it_does_not_say_stays() {
        let one = device(json!({
            "id": 7, "name": "N1.example.org", "serial": "X", "site": {"slug": "fra1"}, "rack": {"name": "r1"},
            "role": null, "primary_ip4": {"id": 1, "address": "10.0.0.7/24"},
            "primary_ip6": {"id": 2, "address": "fd00::7/64"},
            "interfaces": [
                {"mac_address": "52:54:00:00:00:01", "mgmt_only": false, "mac_addresses": [
                    {"id": 5, "mac_address": "52:54:00:00:00:01"}, {"mac_address": "52:54:00:00:00:02"},
                ]},
                {"mac_address": "52:54:00:00:00:99", "mgmt_only": true},
                {"mac_address": null, "mgmt_only": null},
            ],
        }));
        let spec = described(&one, None).unwrap();
        let macs =
            ["52:54:00:00:00:01", "52:54:00:00:00:02"].map(|mac| mac.parse().unwrap()).into();
        assert_eq!((spec.name.as_str(), &spec.macs), ("n1", &macs));
        assert_eq!(spec.address, Some([10, 0, 0, 7].into()));
        assert_eq!(spec.address6, "fd00::7".parse().ok());
        assert_eq!((spec.labels["site"].as_str(), spec.labels["rack"].as_str()), ("fra1", "r1"));
        let mut known = Machine { id: kiln_inventory::MachineId(1), revision: 1, spec };
        known.spec.cmdline = "quiet".to_owned();
        let less = device(json!({"name": "n1", "role": {"slug": "db"}}));
        let spec = described(&less, Some(&known)).unwrap();
        assert_eq!((spec.cmdline.as_str(), spec.labels["role"].as_str()), ("quiet", "db"));
        assert_eq!(spec.macs, known.spec.macs);
    }

    #[test]
    fn a_device_that_cannot_be_a_machine_is_passed_over_with_the_reason() {
        for (wrong, why) in [
            (json!({"name": null}), "no name"),
            (json!({"name": "n1"}), "MAC address"),
            (json!({"name": "a b.example.org"}), "first label"),
            (json!({"name": "10.0.0.1"}), "first label"),
            (
                json!({"name": "n1", "interfaces": [
                    {"mac_address": "52:54:00:00:00:99", "mgmt_only": true},
                ]}),
                "but for those of management",
            ),
            (
                json!({"name": "n1", "interfaces": [{"mac_address": "01:00:5e:00:00:01"}]}),
                "MAC address",
            ),
            (json!({"name": "n1", "interfaces": [{"mac_address": "x"}]}), "MAC address"),
            (
                json!({"name": "n1", "interfaces": [{"mac_address": "52:54:00:00:00:01"}],
                "primary_ip4": {"address": "file:///etc/passwd"}}),
                "primary address",
            ),
        ] {
            assert!(described(&device(wrong), None).unwrap_err().contains(why), "{why}");
        }
    }

    #[test]
    fn a_device_of_another_domain_is_no_machine_that_is_there() {
        let of = |name: &str, macs: &[&str]| {
            let macs: Vec<_> = macs.iter().map(|mac| json!({"mac_address": mac})).collect();
            device(json!({"name": name, "interfaces": macs}))
        };
        let (one, two) = ("52:54:00:00:00:01", "52:54:00:00:00:02");
        let spec = described(&of("n1.a.example", &[one]), None).unwrap();
        let known = Machine { id: kiln_inventory::MachineId(1), revision: 1, spec };
        let other = described(&of("n1.b.example", &[two]), Some(&known)).unwrap_err();
        assert!(other.starts_with("there is a machine `n1` already"), "{other}");
        for same in [of("n1.a.example", &[one, two]), of("n1.a.example", &[]), of("n1", &[two])] {
            assert!(described(&same, Some(&known)).is_ok(), "{same:?}");
        }
    }

    #[test]
    fn devices_whose_names_become_the_same_are_passed_over_both() {
        let taken = [("n1".to_owned(), 2), ("n2".to_owned(), 1)].into();
        let named = |name: &str| named(&device(json!({"name": name})), &taken);
        for name in ["n1.a.example.org", "N1.b.example.org"] {
            assert!(named(name).unwrap_err().contains("another device of the list"), "{name}");
        }
        assert_eq!(named("n2.a.example.org").as_deref(), Ok("n2"));
    }
}
