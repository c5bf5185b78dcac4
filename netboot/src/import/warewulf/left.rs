//! What nodes and profiles say and Kiln has no place for. Values are not shown: some are passwords.

use std::collections::BTreeMap;

use super::super::{Page, short};
use super::file::{Device, Node};

/// Tells of what there is no place for.
pub(super) fn others(node: &Node, line: Option<usize>, page: &mut Page) {
    if node.discoverable.as_ref().is_some_and(|value| *value == true || *value == "true") {
        page.note(
            line,
            "`discoverable` is left out: name machines whose hardware address is not known yet with \
             `kiln discovery expected add`",
        );
    }
    let kernel = node.kernel.iter().flat_map(|kernel| kernel.rest.keys());
    for key in kernel {
        page.note(line, left(&format!("kernel {key}")));
    }
    let devices = node.devices.iter().flat_map(BTreeMap::values).flatten();
    for key in devices.flat_map(|Device { rest, .. }| rest.keys()) {
        page.note(
            line,
            format!(
                "`{}` of a network is left out: what DHCP gives is set by the `[[subnet]]` in kiln.toml, and the rest by \
                 `network` of the image",
                short(key)
            ),
        );
    }
    for key in node.rest.keys() {
        page.note(line, left(key));
    }
}

/// Says of a key what becomes of it.
pub(super) fn left(key: &str) -> String {
    let why = match key {
        "kernel override" | "kernel version" | "init" | "root" => "the image says it",
        "ipmi" => "Kiln does not switch machines on",
        "disks" | "filesystems" => "Kiln writes to no disk but that of `state-disk`",
        "runtime overlay" | "system overlay" => {
            "put the files into the image, as templates where they differ by machine"
        }
        "ipxe template" => "Kiln writes the script of iPXE itself",
        _ if key.starts_with("ipmi ") => "Kiln does not switch machines on",
        _ => "Kiln has nothing of the kind",
    };
    format!("`{}` is left out: {why}", short(key))
}
