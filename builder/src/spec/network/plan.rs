//! The plan that kiln-init reads, in which everything has one form.

use serde_json::{Map, Value, json};

use super::{Dhcp6, LinkMatch, LinkSpec};
use crate::spec::place::Placed;

/// How often a bond looks for a cable, in milliseconds.
const MIIMON: u32 = 100;

/// Returns the network as kiln-init reads it.
pub fn plan(links: &[Placed<LinkSpec>]) -> Value {
    links.iter().map(|link| one(link)).collect()
}

/// Returns the kernel modules that make what it asks for.
pub fn modules(links: &[Placed<LinkSpec>]) -> Vec<&'static str> {
    let some = |is: fn(&LinkSpec) -> bool| links.iter().any(|link| is(link));
    let kinds = [
        ("8021q", some(|link| link.vlan.is_some())),
        ("bonding", some(|link| link.bond.is_some())),
        ("bridge", some(|link| link.bridge.is_some())),
    ];
    kinds.into_iter().filter(|(_, wanted)| *wanted).map(|(module, _)| module).collect()
}

fn one(link: &LinkSpec) -> Value {
    let mut plan = Map::new();
    let mut put = |key: &str, value: Value| {
        plan.insert(key.to_owned(), value);
    };
    if let Some(name) = &link.name {
        put("name", json!(name));
    }
    if let Some(cards) = &link.r#match {
        put("match", card(cards));
    }
    if let Some(vlan) = &link.vlan {
        put("vlan", json!({"id": vlan.id, "on": vlan.on}));
    }
    if let Some(bond) = &link.bond {
        let cards: Value = bond.interfaces.iter().map(card).collect();
        let miimon = bond.miimon.unwrap_or(MIIMON);
        put("bond", json!({"mode": bond.mode, "miimon": miimon, "interfaces": cards}));
    }
    if let Some(bridge) = &link.bridge {
        put("bridge", bridge.interfaces.iter().map(card).collect());
    }
    let own = link.addresses.iter().any(|address| address.ip().is_ipv4());
    put("dhcp4", json!(link.dhcp4.unwrap_or(!own)));
    let dhcp6 = match link.dhcp6.unwrap_or_default() {
        Dhcp6::Auto => "auto",
        Dhcp6::Always => "always",
        Dhcp6::Never => "never",
    };
    put("dhcp6", json!(dhcp6));
    put("ra", json!(link.ra.unwrap_or(true)));
    if let Some(gateway) = &link.gateway {
        put("gateway", json!(gateway.0));
    }
    for (key, list, empty) in [
        ("addresses", json!(link.addresses), link.addresses.is_empty()),
        ("routes", json!(link.routes), link.routes.is_empty()),
        ("dns", json!(link.dns), link.dns.is_empty()),
        ("search", json!(link.search), link.search.is_empty()),
    ] {
        if !empty {
            put(key, list);
        }
    }
    if let Some(mtu) = &link.mtu {
        put("mtu", json!(mtu));
    }
    if let Some(required) = link.required {
        put("required", json!(required));
    }
    Value::Object(plan)
}

fn card(cards: &LinkMatch) -> Value {
    match cards {
        LinkMatch::Boot => json!({"boot": true}),
        LinkMatch::Cards(cards) => json!(cards),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_has_one_form_in_the_plan() {
        let yaml = "network:\n- {match: boot, mtu: 9000}\n\
                    - {match: {mac: '52:54:00:00:00:01'}, addresses: [10.0.0.5/24], gateway: 10.0.0.1}\n\
                    - {name: web, vlan: {id: 20, on: eth1}, dhcp6: true, ra: false, required: true}\n\
                    - {name: bond0, bond: {interfaces: [boot, eth1]}, dns: ['2001:db8::1'], search: [lab]}\n";
        let spec = crate::spec::parse("a.yml", yaml).unwrap();
        let links = spec.network.unwrap();
        assert_eq!(
            plan(&links),
            json!([
                {"match": {"boot": true}, "dhcp4": true, "dhcp6": "auto", "ra": true, "mtu": 9000},
                {"match": {"mac": "52:54:00:00:00:01"}, "dhcp4": false, "dhcp6": "auto", "ra": true,
                 "addresses": ["10.0.0.5/24"], "gateway": ["10.0.0.1"]},
                {"name": "web", "vlan": {"id": 20, "on": "eth1"}, "dhcp4": true, "dhcp6": "always",
                 "ra": false, "required": true},
                {"name": "bond0", "dhcp4": true, "dhcp6": "auto", "ra": true, "dns": ["2001:db8::1"],
                 "search": ["lab"], "bond": {"mode": "active-backup", "miimon": 100,
                 "interfaces": [{"boot": true}, {"name": "eth1"}]}},
            ])
        );
        assert_eq!(modules(&links), ["8021q", "bonding"]);
        assert!(modules(&[]).is_empty());
    }
}
