//! What no machine can be, whatever the others are.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::labels::MAX_TEXT;
use crate::settings::{check_cmdline, check_metadata};
use crate::{NewMachine, StoreError, is_label, is_label_value, is_uuid};

/// Bounds of what is said of one machine.
const MAX_LABELS: usize = 256;

/// Refuses what no machine can be.
pub(in crate::store) fn check(machine: &NewMachine) -> Result<(), StoreError> {
    let name = &machine.name;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = name.bytes().next().is_some_and(plain) && name.bytes().last().is_some_and(plain);
    if !ends || name.len() > 63 || !name.bytes().all(|b| plain(b) || b == b'-') {
        return Err(StoreError::Name(name.chars().take(80).collect()));
    }
    if machine.macs.is_empty() {
        return Err(StoreError::NoMac(name.clone()));
    }
    if let Some(&mac) = machine.macs.iter().find(|mac| !mac.is_unicast()) {
        return Err(StoreError::GroupMac(mac));
    }
    if let Some(address) = machine.address.filter(|address| !can_be_reserved(*address)) {
        return Err(StoreError::Address(address.into()));
    }
    if let Some(address) = machine.address6.filter(|address| !can_be_reserved6(*address)) {
        return Err(StoreError::Address(address.into()));
    }
    if let Err(what) = check_cmdline(&machine.cmdline) {
        let cmdline = machine.cmdline.escape_debug().take(80).collect();
        return Err(StoreError::Cmdline(cmdline, what));
    }
    check_metadata(&machine.metadata).map_err(|what| StoreError::Metadata(name.clone(), what))?;
    if let Some(key) = machine.labels.keys().find(|key| !is_label(key)) {
        let key: String = key.escape_debug().take(MAX_TEXT).collect();
        return Err(StoreError::Invalid(format!(
            "machine `{name}`: `{key}` cannot be the name of a label; use letters, digits and - _ . / : + @"
        )));
    }
    if machine.labels.len() > MAX_LABELS {
        let text = format!("machine `{name}` has more than {MAX_LABELS} labels; remove some");
        return Err(StoreError::Invalid(text));
    }
    let labels = machine.labels.iter().flat_map(|(key, value)| {
        let what = || format!("label `{}`", key.chars().take(80).collect::<String>());
        [(what(), key), (what(), value)]
    });
    let numbers = numbers(machine).map(|(what, text)| Some(((*what).to_owned(), text.as_ref()?)));
    match labels.chain(numbers.into_iter().flatten()).find(|(_, text)| !is_label_value(text)) {
        Some((what, _)) => Err(StoreError::Invalid(format!(
            "machine `{name}`: its {what} is longer than {MAX_TEXT} bytes or has a control character"
        ))),
        None => Ok(()),
    }
}

/// By what firmware names a machine.
const fn numbers(machine: &NewMachine) -> [(&'static str, &Option<String>); 3] {
    [("UUID", &machine.uuid), ("serial number", &machine.serial), ("asset tag", &machine.asset_tag)]
}

/// Refuses what no firmware tells as the UUID, serial number or asset tag of a machine. What an older Kiln let a machine
/// have stays until it is changed.
pub(in crate::store) fn check_numbers(
    machine: &NewMachine,
    now: Option<&NewMachine>,
) -> Result<(), StoreError> {
    let name = &machine.name;
    let before = now.map(numbers);
    for (index, (what, text)) in numbers(machine).into_iter().enumerate() {
        let Some(text) = text else { continue };
        if before.is_some_and(|before| before[index].1.as_ref() == Some(text)) {
            continue;
        }
        if text.trim().is_empty() {
            let text = format!("machine `{name}`: its {what} is empty; leave it out");
            return Err(StoreError::Invalid(text));
        }
        if index == 0 && !is_uuid(text) {
            let shown: String = text.escape_debug().take(80).collect();
            return Err(StoreError::Invalid(format!(
                "machine `{name}`: `{shown}` is no UUID; write it as 4c4c4544-0042-3510-8052-b4c04f4a3132"
            )));
        }
    }
    Ok(())
}

fn can_be_reserved6(address: Ipv6Addr) -> bool {
    let embeds_ipv4 = address.to_ipv4_mapped().is_some();
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_unicast_link_local()
        || embeds_ipv4)
}

fn can_be_reserved(address: Ipv4Addr) -> bool {
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240)
}
