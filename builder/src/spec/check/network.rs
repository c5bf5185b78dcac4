//! The network: what each interface is, and that it can be.

use super::super::network::{LinkName, LinkSpec};
use super::super::{InitSpec, Place, Placed, Spec, SpecError};

/// IEEE 802.1Q §9.6: 0 and 4095 stand for other things.
const VLANS: std::ops::RangeInclusive<u16> = 1..=4094;
/// RFC 791, and the longest packet there is.
const MTUS: std::ops::RangeInclusive<u32> = 576..=65_535;

/// Checks the network of a whole specification.
pub(super) fn check(spec: &Spec) -> Result<(), SpecError> {
    let Some(links) = &spec.network else { return Ok(()) };
    let with_kiln = spec.init.iter().any(|entry| **entry == InitSpec::Kiln);
    if !spec.init.is_empty() && !with_kiln {
        let problem = "`network` is set up by kiln-init; add `kiln` to `init`";
        return Err(SpecError::wrong(links.place(), problem));
    }
    let names = links.iter().filter_map(|link| link.name.as_ref());
    super::unique("interface", names.map(|name| (name.as_str(), name)))?;
    for link in links.iter() {
        one(link).map_err(|(place, problem)| {
            SpecError::wrong(place.unwrap_or_else(|| link.place()), problem)
        })?;
    }
    carriers(links)
}

type Problem<'a> = (Option<&'a Place>, String);

fn one(link: &LinkSpec) -> Result<(), Problem<'_>> {
    let whole = |text: &str| Err((None, text.to_owned()));
    let given =
        [link.r#match.is_some(), link.vlan.is_some(), link.bond.is_some(), link.bridge.is_some()];
    if given.iter().filter(|given| **given).count() != 1 {
        return whole("an interface needs exactly one of `match`, `vlan`, `bond` and `bridge`");
    }
    match (&link.r#match, &link.name) {
        (Some(_), Some(name)) => {
            let problem = "`name` is for what is made; cards keep the names that the kernel gives";
            return Err((Some(name.place()), problem.to_owned()));
        }
        (None, None) => return whole("`name` is missing"),
        _ => {}
    }
    if let Some(vlan) = link.vlan.as_ref().filter(|vlan| !VLANS.contains(&vlan.id)) {
        let problem = format!("the VLAN has the number {}; they go from 1 to 4094", *vlan.id);
        return Err((Some(vlan.id.place()), problem));
    }
    let bond = link.bond.as_ref().map(|bond| &bond.interfaces);
    let ports = bond.or_else(|| link.bridge.as_ref().map(|bridge| &bridge.interfaces));
    if ports.is_some_and(Vec::is_empty) {
        return whole("`interfaces` is empty; name the cards of the bond or bridge");
    }
    if let Some(mtu) = link.mtu.as_ref().filter(|mtu| !MTUS.contains(&***mtu)) {
        let problem = format!("`mtu` is {}; it goes from 576 to 65535", **mtu);
        return Err((Some(mtu.place()), problem));
    }
    if let Some(gateway) = &link.gateway {
        let v4 = gateway.0.iter().filter(|gateway| gateway.ip().is_ipv4()).count();
        if gateway.0.is_empty() || v4 > 1 || gateway.0.len() - v4 > 1 {
            let problem = "`gateway` is one address, or one of IPv4 and one of IPv6";
            return Err((Some(gateway.place()), problem.to_owned()));
        }
    }
    for address in &link.addresses {
        if address.ip().is_unspecified() || address.ip().is_multicast() {
            let problem = format!("`{}` is not the address of a host", **address);
            return Err((Some(address.place()), problem));
        }
    }
    for route in &link.routes {
        if route.via.is_some_and(|via| via.ip().is_ipv4() != route.to.ip().is_ipv4()) {
            let problem = "network and router are one of IPv4 and one of IPv6".to_owned();
            return Err((Some(route.place()), problem));
        }
    }
    Ok(())
}

/// A VLAN must not carry itself, also not by way of others.
fn carriers(links: &[Placed<LinkSpec>]) -> Result<(), SpecError> {
    let carrier = |name: &str| -> Option<&Placed<LinkName>> {
        let of = |link: &&Placed<LinkSpec>| link.name.as_ref().is_some_and(|n| n.as_str() == name);
        links.iter().find(of)?.vlan.as_ref().map(|vlan| &vlan.on)
    };
    for link in links {
        let Some(first) = link.vlan.as_ref().map(|vlan| &vlan.on) else { continue };
        let mut on = Some(first);
        for _ in 0..=links.len() {
            on = on.and_then(|name| carrier(name.as_str()));
        }
        if on.is_some() {
            let problem = format!("`{}` would carry itself", first.as_str());
            return Err(SpecError::wrong(first.place(), problem));
        }
    }
    Ok(())
}
