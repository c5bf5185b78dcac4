//! Devices of a container, and the limits of its control group, which name devices too.

use serde::Serialize;

use crate::spec::{Container, DeviceKind, DeviceRule, DeviceSpec, ResourcesSpec};

/// Read, write and make.
const EVERYTHING: &str = "rwm";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Device<'a> {
    path: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    major: i64,
    minor: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    file_mode: Option<u32>,
}

/// The limits, and a rule for every device that the container has.
#[derive(Serialize)]
pub(super) struct Resources<'a> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    devices: Vec<DeviceRule>,
    #[serde(flatten)]
    others: Others<'a>,
}

/// Everything but the rules for devices.
struct Others<'a>(&'a ResourcesSpec);

impl Serialize for Others<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ResourcesSpec { devices: None, ..self.0.clone() }.serialize(serializer)
    }
}

pub(super) fn devices(container: &Container) -> Vec<Device<'_>> {
    let single = container.devices.iter().filter(|device| !device.is_all());
    single
        .map(|device| Device {
            path: &device.path,
            kind: letter(device).unwrap_or_default(),
            major: device.major,
            minor: device.minor,
            file_mode: device.mode.map(|mode| mode.bits()),
        })
        .collect()
}

pub(super) fn resources(container: &Container) -> Resources<'_> {
    let given = container.resources.devices.iter().flatten().cloned();
    let own = container.devices.iter().map(|device| {
        let number = |number: i64| (!device.is_all()).then_some(number);
        DeviceRule {
            allow: true,
            kind: letter(device).map(str::to_owned),
            major: number(device.major),
            minor: number(device.minor),
            access: Some(EVERYTHING.to_owned()),
        }
    });
    Resources { devices: given.chain(own).collect(), others: Others(&container.resources) }
}

fn letter(device: &DeviceSpec) -> Option<&'static str> {
    Some(match device.kind? {
        DeviceKind::A => "a",
        DeviceKind::B => "b",
        DeviceKind::C => "c",
        DeviceKind::U => "u",
        DeviceKind::P => "p",
    })
}
