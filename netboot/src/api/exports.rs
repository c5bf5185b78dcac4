//! The inventory as other programs want it: Ansible's dynamic inventory and Prometheus' service discovery.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use kiln_builder::hash::sha256;
use kiln_inventory::{Machine, MachineId, NewMachine};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use utoipa::IntoParams;

use super::access::{Access, Noun};
use super::extract::Params;
use super::page::Which;
use super::peer::Caller;
use super::route::{Route, get};
use super::{Control, Fault, leases};

type Shared = State<Arc<Control>>;

pub(super) fn routes() -> Vec<Route> {
    let read = Access::Read(Noun::Machine);
    vec![
        get("/api/v1/inventory/ansible", read, "Machines as Ansible's inventory", ansible_one)
            .query::<Which>()
            .answers("application/json", json!({"type": "object"})),
        get(
            "/api/v1/inventory/prometheus",
            read,
            "Machines as Prometheus' targets",
            prometheus_one,
        )
        .query::<Which>()
        .query::<Port>()
        .lists::<Targets>(),
    ]
}

/// Where the targets are scraped.
#[derive(Clone, Copy, Debug, Deserialize, IntoParams)]
struct Port {
    /// The port, of node_exporter unless said.
    port: Option<u16>,
}

/// A target of Prometheus (`http_sd_config`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Targets {
    /// Addresses with ports.
    pub targets: Vec<String>,
    /// Labels, all of which begin with `__meta_kiln_`.
    pub labels: BTreeMap<String, String>,
}

async fn machines(
    control: &Control,
    caller: &Caller,
    which: &Which,
) -> Result<Vec<Machine>, Fault> {
    let wanted = which.read()?;
    let machines = control.view.machines().await?;
    let seen = machines.iter().filter(|machine| {
        let spec = &machine.spec;
        caller.rights.sees(&spec.labels) && wanted.is(&spec.name, &spec.labels)
    });
    let mut machines: Vec<Machine> = seen.map(|machine| Machine::clone(machine)).collect();
    // What its groups say counts as well.
    let snapshot = control.view.snapshot();
    for Machine { id, spec, .. } in &mut machines {
        let Some(holds) = snapshot.settings_of(*id) else { continue };
        spec.image = holds.image.as_ref().map(|said| said.value.clone());
        spec.arch = holds.arch.as_ref().map(|said| said.value);
    }
    Ok(machines)
}

/// Finds where machines are reached: at the reserved address, else at that of the running boot, else at that of a lease.
/// Of each of these the one of IPv4, and that of IPv6 where there is no other.
async fn addresses(control: &Control, machines: &[Machine]) -> HashMap<MachineId, IpAddr> {
    let reserved = |spec: &NewMachine| {
        spec.address.map(IpAddr::from).or_else(|| spec.address6.map(IpAddr::from))
    };
    let (running, leased) = match machines.iter().all(|it| reserved(&it.spec).is_some()) {
        true => (HashMap::new(), HashMap::new()),
        false => (control.boots.addresses().await, leases::addresses(control)),
    };
    let of = |Machine { id, spec, .. }: &Machine| {
        let by_lease = || spec.macs.iter().filter_map(|mac| leased.get(mac)).min();
        let address = reserved(spec).or_else(|| running.get(id).or_else(by_lease).copied());
        Some((*id, address?))
    };
    machines.iter().filter_map(of).collect()
}

async fn ansible_one(
    State(control): Shared,
    caller: Caller,
    Params(which): Params<Which>,
) -> Result<Json<Value>, Fault> {
    let machines = machines(&control, &caller, &which).await?;
    let addresses = addresses(&control, &machines).await;
    Ok(Json(ansible(&machines, &addresses)))
}

async fn prometheus_one(
    State(control): Shared,
    caller: Caller,
    Params(which): Params<Which>,
    Params(Port { port }): Params<Port>,
) -> Result<Json<Vec<Targets>>, Fault> {
    let machines = machines(&control, &caller, &which).await?;
    let addresses = addresses(&control, &machines).await;
    Ok(Json(prometheus(&machines, &addresses, port.unwrap_or(9100))))
}

/// A group for each label and value, and what is known of each host.
fn ansible(machines: &[Machine], addresses: &HashMap<MachineId, IpAddr>) -> Value {
    // By what they are called, and then by what they are of: two things may be called the same.
    let mut called: BTreeMap<String, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    let mut put = |called_by: String, of: String, name| {
        called.entry(word(&called_by)).or_default().entry(of).or_default().push(name);
    };
    let (mut hosts, mut vars) = (Vec::new(), Map::new());
    for Machine { id, spec, .. } in machines {
        let name = spec.name.as_str();
        hosts.push(name);
        for (key, value) in &spec.labels {
            put(format!("{key}_{value}"), format!("{key}={value}"), name);
        }
        if let Some(image) = &spec.image {
            put(format!("image_{}", image.name()), format!("image {}", image.name()), name);
        }
        let mut known = json!({
            "kiln_id": id,
            "kiln_macs": spec.macs,
            "kiln_labels": spec.labels,
        });
        for (key, value) in [
            ("ansible_host", addresses.get(id).map(ToString::to_string)),
            ("kiln_image", spec.image.as_ref().map(ToString::to_string)),
            ("kiln_arch", spec.arch.map(|arch| arch.to_string())),
        ] {
            if let Some(value) = value {
                known[key] = value.into();
            }
        }
        vars.insert(name.to_owned(), known);
    }
    let mut all = json!({"_meta": {"hostvars": vars}});
    let groups: BTreeMap<String, Vec<&str>> = called
        .into_iter()
        .flat_map(|(called, all)| {
            let alone = all.len() == 1;
            all.into_iter().map(move |(of, hosts)| match alone {
                true => (called.clone(), hosts),
                // None of them has the name alone: whoever means one of them does not get another's machines.
                false => (format!("{called}_{:.8}", sha256(of.as_bytes()).hex()), hosts),
            })
        })
        .collect();
    let children: Vec<&String> = groups.keys().collect();
    all["all"] = json!({"hosts": hosts, "children": children});
    for (group, hosts) in groups {
        // A label cannot take the place of what Ansible itself looks for.
        let group =
            if matches!(group.as_str(), "all" | "_meta") { format!("_{group}") } else { group };
        all[group] = json!({"hosts": hosts});
    }
    all
}

/// Machines without an address are no targets.
fn prometheus(
    machines: &[Machine],
    addresses: &HashMap<MachineId, IpAddr>,
    port: u16,
) -> Vec<Targets> {
    let targets = machines.iter().filter_map(|Machine { id, spec, .. }| {
        // With brackets around one of IPv6.
        let target = SocketAddr::new(*addresses.get(id)?, port).to_string();
        let mut labels = BTreeMap::from([
            ("__meta_kiln_name".to_owned(), spec.name.clone()),
            ("__meta_kiln_id".to_owned(), id.to_string()),
        ]);
        if let Some(image) = &spec.image {
            labels.insert("__meta_kiln_image".to_owned(), image.to_string());
        }
        for (key, value) in &spec.labels {
            labels.insert(format!("__meta_kiln_label_{}", word(key)), value.clone());
        }
        Some(Targets { targets: vec![target], labels })
    });
    targets.collect()
}

/// Writes a text with the letters that names of groups and of labels have.
fn word(text: &str) -> String {
    let word: String =
        text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
    if word.starts_with(|c: char| c.is_ascii_digit()) { format!("_{word}") } else { word }
}

#[cfg(test)]
mod tests {
    use hyper::Method;

    use super::super::tests::{MACHINES, Rig, machine};
    use super::*;

    fn some() -> Vec<Machine> {
        let machine = |id, name: &str, rack: &str| {
            let mac = format!("52:54:00:00:00:0{id}").parse().unwrap();
            let mut spec = NewMachine::new(name, [mac]);
            spec.labels = [("rack".to_owned(), rack.to_owned())].into();
            spec.image = Some("web:stable".parse().unwrap());
            Machine { id: MachineId(id), revision: 1, spec }
        };
        vec![machine(1, "n1", "r-1"), machine(2, "n2", "r-1")]
    }

    fn places() -> HashMap<MachineId, IpAddr> {
        [(MachineId(1), [10, 0, 0, 7].into())].into()
    }

    #[test]
    fn ansible_finds_groups_by_label_and_image_and_how_to_reach_each_host() {
        let all = ansible(&some(), &places());
        assert_eq!(all["rack_r_1"]["hosts"], json!(["n1", "n2"]));
        assert_eq!(all["image_web"]["hosts"], json!(["n1", "n2"]));
        assert_eq!(all["all"]["hosts"], json!(["n1", "n2"]));
        assert_eq!(all["_meta"]["hostvars"]["n1"]["ansible_host"], "10.0.0.7");
        assert_eq!(all["_meta"]["hostvars"]["n2"].get("ansible_host"), None);
    }

    #[test]
    fn labels_that_ansible_would_call_the_same_are_groups_of_their_own() {
        let mut machines = some();
        machines[1].spec.labels = [("rack".to_owned(), "r_1".to_owned())].into();
        let all = ansible(&machines, &places());
        assert_eq!(all.get("rack_r_1"), None);
        let mut hosts = Vec::new();
        for group in all["all"]["children"].as_array().unwrap() {
            let name = group.as_str().unwrap();
            assert_eq!(word(name), name);
            if let Some(rest) = name.strip_prefix("rack_r_1_") {
                assert_eq!(rest.len(), 8);
                hosts.push(all[name]["hosts"].clone());
            }
        }
        hosts.sort_by_key(ToString::to_string);
        assert_eq!(hosts, [json!(["n1"]), json!(["n2"])]);
        machines.truncate(1);
        assert_eq!(ansible(&machines, &places())["rack_r_1"]["hosts"], json!(["n1"]));
    }

    #[test]
    fn prometheus_scrapes_machines_that_have_an_address() {
        let all = prometheus(&some(), &places(), 9100);
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].targets, ["10.0.0.7:9100"]);
        assert_eq!(all[0].labels["__meta_kiln_label_rack"], "r-1");
        assert_eq!(word("1-a/ü"), "_1_a__");
    }

    #[tokio::test]
    async fn a_machine_is_found_by_its_reservation_its_running_boot_or_its_lease() {
        let rig = Rig::with_ipv6().await;
        // The rig has a lease of 10.0.0.7 for n7.
        for last in 1..=8 {
            let mut new = machine(&format!("n{last}"), &format!("52:54:00:00:00:0{last}"), None);
            match last {
                1 => new["address"] = json!("10.0.0.201"),
                2 => new["address6"] = json!("fd00:7::202"),
                _ => {}
            }
            assert_eq!(rig.send(Method::POST, MACHINES, &new).await.0, 201);
        }
        let end = i64::MAX / 1000;
        let lease = |last: u8, iaid: u32, place: &str, expires: i64| {
            json!({"address": format!("fd00:7::{place}"), "duid": format!("0004aa0{last}"),
                "iaid": iaid, "mac": format!("52:54:00:00:00:0{last}"), "expires": expires})
        };
        // Beside a reservation, a boot and a lease of IPv4; two of one machine; and one that has ended by then.
        let leases = [
            lease(2, 1, "12", end),
            lease(3, 1, "13", end),
            lease(7, 1, "17", end),
            lease(5, 1, "25", end - 9),
            lease(5, 2, "15", end),
            lease(6, 1, "16", end),
        ];
        let (status, taken) = rig.send(Method::POST, "/api/v1/leases6", &json!(leases)).await;
        assert_eq!((status, &taken["taken"]), (200, &json!(6)), "{taken}");
        let ended = "/api/v1/leases/fd00:7::16";
        assert_eq!(rig.send(Method::DELETE, ended, &Value::Null).await.0, 204);
        rig.boot("n3", [10, 0, 0, 203].into()).await;
        rig.boot("n4", "fd00:7::204".parse().unwrap()).await;
        rig.boot("n1", [10, 0, 0, 99].into()).await;
        let expected = [
            ("n1", "10.0.0.201", "10.0.0.201:9100"),
            ("n2", "fd00:7::202", "[fd00:7::202]:9100"),
            ("n3", "10.0.0.203", "10.0.0.203:9100"),
            ("n4", "fd00:7::204", "[fd00:7::204]:9100"),
            ("n5", "fd00:7::15", "[fd00:7::15]:9100"),
            ("n7", "10.0.0.7", "10.0.0.7:9100"),
        ];
        let (_, ansible) = rig.get("/api/v1/inventory/ansible").await;
        let (_, targets) = rig.get("/api/v1/inventory/prometheus").await;
        let found: Vec<_> = targets.as_array().unwrap().iter().collect();
        for ((name, host, target), found) in expected.into_iter().zip(&found) {
            let known = &ansible["_meta"]["hostvars"][name];
            assert_eq!(known["ansible_host"], host, "{name}");
            let labels = &found["labels"]["__meta_kiln_name"];
            assert_eq!((labels, &found["targets"]), (&json!(name), &json!([target])), "{targets}");
        }
        assert_eq!(found.len(), expected.len(), "n6 and n8 have no address now: {targets}");
        for name in ["n6", "n8"] {
            assert_eq!(ansible["_meta"]["hostvars"][name].get("ansible_host"), None, "{ansible}");
        }
        rig.stop().await;
    }
}
