use std::net::Ipv6Addr;

use kiln_inventory::{Asker, Firmware, Sighting, Snapshot};
use kiln_types::Mac;

use super::wire::Request;
use crate::dhcp::classify::{by_protocol, uuid_text};

/// Class of firmware that boots by URL, which wants to find it in the answer.
pub(super) const HTTP_CLIENT: &[u8] = b"HTTPClient";
const PXE_CLIENT: &[u8] = b"PXEClient";

/// Reads from a request who asks and on what firmware, where the hardware address can be known.
pub(super) fn classify(
    request: &Request,
    source: Ipv6Addr,
    snapshot: &Snapshot,
) -> Option<Sighting> {
    let class = request.vendor_class.as_deref().unwrap_or_default();
    let http = is_http(request);
    let asker = if request.user_classes.iter().any(|text| text == b"iPXE") {
        Asker::Ipxe
    } else if http || class.starts_with(PXE_CLIENT) {
        Asker::Firmware
    } else {
        Asker::System
    };
    let uuid = uuid(request, asker);
    let told = request.architecture.map(Firmware::from_option_93);
    let firmware = if asker == Asker::Firmware { told.map(|f| by_protocol(f, http)) } else { told };
    let by_uuid = || machine_by_uuid(snapshot, uuid.as_deref()?);
    let mac = mac(request, source).or_else(by_uuid)?;
    Some(Sighting { mac, asker, firmware, uuid })
}

/// Returns whether the firmware boots by URL.
pub(super) fn is_http(request: &Request) -> bool {
    request.vendor_class.as_deref().is_some_and(|class| class.starts_with(HTTP_CLIENT))
}

/// Returns the hardware address: what the relay nearest to the client says, what the client's address is made of, or
/// what its name is made of. That one comes last: a system makes its name once, of one interface of several.
pub(super) fn mac(request: &Request, source: Ipv6Addr) -> Option<Mac> {
    let nearest = request.relays.last();
    let client = nearest.map_or(source, |relay| relay.peer);
    nearest
        .and_then(|relay| relay.mac)
        .or_else(|| Mac::from_eui64(client))
        .or_else(|| request.client.as_ref()?.mac())
}

fn machine_by_uuid(snapshot: &Snapshot, uuid: &str) -> Option<Mac> {
    snapshot.machine_by_uuid(uuid)?.spec.macs.first().copied()
}

/// Returns the SMBIOS UUID in a DUID-UUID (RFC 6355). EDK2 copies it as SMBIOS has it, with its first three groups
/// little-endian, and iPXE turns them; a system's is made up.
fn uuid(request: &Request, asker: Asker) -> Option<String> {
    let [0, 4, bytes @ ..] = request.client.as_ref()?.as_bytes() else { return None };
    let [d, c, b, a, f, e, h, g, rest @ ..] = <[u8; 16]>::try_from(bytes).ok()?;
    let turned = [a, b, c, d, e, f, g, h].into_iter().chain(rest);
    match asker {
        Asker::Firmware => uuid_text(turned),
        Asker::Ipxe => uuid_text(bytes.iter().copied()),
        Asker::System => None,
    }
}
