//! Machines from a list of devices as NetBox exports it: a dry run shows the difference, the same call without it applies
//! it, all or nothing.

use std::collections::{BTreeSet, HashMap};
use std::net::Ipv4Addr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
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
    },
    /// The devices alone.
    List(Vec<Device>),
}

/// A device.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Device {
    /// Its name, which becomes that of the machine.
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
    /// Its interfaces, as `/api/dcim/interfaces/` has them.
    #[serde(default)]
    interfaces: Vec<Interface>,
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
}

/// An address.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Address {
    /// As `10.0.0.7/24`.
    address: String,
}

/// An interface.
#[derive(Clone, Debug, Deserialize, utoipa::ToSchema)]
pub(super) struct Interface {
    /// Its hardware address.
    #[serde(default)]
    mac_address: Option<String>,
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
    let (Devices::Page { results: devices } | Devices::List(devices)) = devices;
    if devices.len() > MOST_DEVICES {
        return Err(Fault::invalid(format!("at most {MOST_DEVICES} devices are taken at a time")));
    }
    let known = control.view.machines().await?;
    let known: HashMap<&str, &Machine> =
        known.iter().map(|machine| (machine.spec.name.as_str(), &**machine)).collect();
    let mut done = Import { dry_run: dry.dry_run, ..Import::default() };
    let store = control.inventory.acting(&caller.name);
    let mut edit = store.edit().await?;
    for device in devices {
        let name = device.name.clone().unwrap_or_default();
        let now = known.get(name.to_ascii_lowercase().as_str()).copied();
        let now = now.filter(|machine| caller.rights.sees(&machine.spec.labels));
        let spec = match described(&device, now) {
            Ok(spec) => spec,
            Err(why) => {
                let name = name.chars().take(80).collect();
                done.skipped.push(Skipped { name, why: why.to_owned() });
                continue;
            }
        };
        if now.is_some_and(|now| now.spec == spec) {
            done.unchanged += 1;
            continue;
        }
        caller.may_make(&spec)?;
        match now {
            Some(now) => edit.change_machine(now.id, &spec, Some(now.revision)).await.map(drop)?,
            None => edit.add_machine(&spec).await.map(drop)?,
        }
        let preview = Preview::of(now.map(|now| &now.spec), Some(&spec));
        done.changes.push(ImportChange { name: spec.name, preview });
    }
    if !dry.dry_run {
        edit.commit().await?;
        refresh(&control).await?;
        tracing::info!(changes = done.changes.len(), "machines taken over from NetBox");
    }
    Ok(Json(done))
}

/// Returns what a machine is to be after an import: what the list does not say stays.
fn described(device: &Device, now: Option<&Machine>) -> Result<NewMachine, &'static str> {
    let name = device.name.as_deref().unwrap_or_default().to_ascii_lowercase();
    if name.is_empty() {
        return Err("it has no name");
    }
    let mut macs = BTreeSet::new();
    for mac in device.interfaces.iter().filter_map(|interface| interface.mac_address.as_ref()) {
        macs.insert(mac.parse::<Mac>().map_err(|_| "an interface has no MAC address of Ethernet")?);
    }
    let mut spec = match now {
        Some(now) => now.spec.clone(),
        None if macs.is_empty() => return Err("none of its interfaces has a MAC address"),
        None => NewMachine::new(name, []),
    };
    if !macs.is_empty() {
        spec.macs = macs;
    }
    if let Some(Address { address }) = &device.primary_ip4 {
        let address = address.split('/').next().unwrap_or_default().parse::<Ipv4Addr>();
        spec.address = Some(address.map_err(|_| "its primary address is none of IPv4")?);
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

    #[test]
    fn a_device_becomes_a_machine_and_what_it_does_not_say_stays() {
        let one = device(json!({
            "id": 7, "name": "N1", "serial": "X", "site": {"slug": "fra1"}, "rack": {"name": "r1"},
            "role": null, "primary_ip4": {"id": 1, "address": "10.0.0.7/24"},
            "interfaces": [{"mac_address": "52:54:00:00:00:01"}, {"mac_address": null}],
        }));
        let spec = described(&one, None).unwrap();
        assert_eq!((spec.name.as_str(), spec.macs.len()), ("n1", 1));
        assert_eq!(spec.address, Some([10, 0, 0, 7].into()));
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
}
