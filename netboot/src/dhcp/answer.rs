use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, OptionCode, UnknownOption};
use kiln_inventory::{Asker, Decision, Sighting};
use kiln_ipxe::{BootFile, boot_file};

use super::engine::{View, server_id};
use super::option;
use super::wire::Request;

/// PXE discovery control: fetch the boot file of this offer, without a menu and without asking port 4011
/// (PXE 2.1 §2.4.4, bit 3). Without it EDK2 takes a reply with option 60 for half of one.
const BOOT_FILE_IS_FINAL: [u8; 4] = [6, 1, 8, 255];
/// iPXE's `no-pxedhcp`: this server has said all, do not wait two seconds for another one.
const NO_PROXY: [u8; 3] = [0xb0, 1, 1];

/// Classes of option 60, which firmware wants to find in the answer.
const PXE_CLIENT: &[u8] = b"PXEClient";
const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// What a reply says besides addresses.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) options: Vec<DhcpOption>,
    pub(super) next_server: Option<Ipv4Addr>,
    pub(super) file: String,
}

/// Returns what a NAK says: who sends it and whom it is for (RFC 2131 table 3, RFC 6842).
pub(super) fn nak_options(request: &Request, view: &View<'_>) -> Answer {
    let mut options = vec![DhcpOption::ServerIdentifier(server_id(request, view))];
    options.extend(client_identifier(request));
    Answer { options, ..Answer::default() }
}

/// Returns what an OFFER or ACK says. It is the same in both: EDK2 boots from what the ACK repeats.
///
/// Without an address, the reply is to an INFORM and speaks of no lease.
pub(super) fn options(
    request: &Request,
    view: &View<'_>,
    sighting: &Sighting,
    decision: &Decision,
    address: Option<Ipv4Addr>,
) -> Answer {
    let subnet = view.subnet;
    let mut answer = nak_options(request, view);
    let options = &mut answer.options;
    options.push(DhcpOption::SubnetMask(subnet.network.mask()));
    options.push(DhcpOption::BroadcastAddr(subnet.network.broadcast()));
    if address.is_some() {
        let seconds = u32::try_from(subnet.lease_time.as_secs()).unwrap_or(u32::MAX);
        options.push(DhcpOption::AddressLeaseTime(seconds));
        options.push(DhcpOption::Renewal(seconds / 2));
        options.push(DhcpOption::Rebinding(seconds / 8 * 7));
    }
    if !subnet.router.is_empty() {
        options.push(DhcpOption::Router(subnet.router.clone()));
    }
    if !subnet.dns.is_empty() {
        options.push(DhcpOption::DomainNameServer(subnet.dns.clone()));
    }
    if let Some(domain) = &subnet.domain {
        options.push(DhcpOption::DomainName(domain.clone()));
    }
    if let Some(machine) = &decision.machine {
        options.push(DhcpOption::Hostname(machine.spec.name.clone()));
    }
    boot_options(request, view, sighting, decision, &mut answer);
    answer
}

/// Returns what a proxy says: who it is, and the boot file.
pub(super) fn boot_only(
    request: &Request,
    view: &View<'_>,
    sighting: &Sighting,
    decision: &Decision,
) -> Answer {
    let mut answer = nak_options(request, view);
    boot_options(request, view, sighting, decision, &mut answer);
    // Of a proxy, iPXE as well takes only what names the class; alone, it is told nothing that it would repeat.
    let named = |option: &DhcpOption| matches!(option, DhcpOption::ClassIdentifier(_));
    if answer.next_server.is_some() && !answer.options.iter().any(named) {
        answer.options.push(DhcpOption::ClassIdentifier(PXE_CLIENT.to_vec()));
    }
    answer
}

/// Returns what sends a client to port 4011: who we are, without a boot file and without option 43, so that EDK2
/// counts it among those that have to be asked.
pub(super) fn referral(request: &Request, view: &View<'_>) -> Answer {
    let mut answer = nak_options(request, view);
    answer.options.push(DhcpOption::ClassIdentifier(PXE_CLIENT.to_vec()));
    answer.options.extend(machine_identifier(request));
    answer.next_server = Some(view.subnet.address);
    answer
}

/// Returns whether firmware asks by PXE: HTTP Boot knows no port 4011.
pub(super) fn is_pxe(request: &Request, sighting: &Sighting) -> bool {
    sighting.asker == Asker::Firmware && !is_http(request)
}

fn is_http(request: &Request) -> bool {
    request.option(option::VENDOR_CLASS).is_some_and(|class| class.starts_with(HTTP_CLIENT))
}

/// Returns option 97 as it came: some firmware takes no answer without it.
fn machine_identifier(request: &Request) -> Option<DhcpOption> {
    let uuid = request.option(option::CLIENT_UUID)?;
    matches!((uuid.len(), uuid.first()), (17, Some(0)))
        .then(|| DhcpOption::ClientMachineIdentifier(uuid.to_vec()))
}

/// Adds the boot file in each place where some firmware looks for it.
fn boot_options(
    request: &Request,
    view: &View<'_>,
    sighting: &Sighting,
    decision: &Decision,
    answer: &mut Answer,
) {
    let file = match boot_file(decision, sighting, view.endpoints) {
        BootFile::None => return,
        BootFile::Tftp { path, .. } => path,
        BootFile::Url(url) => url,
    };
    let server = view.subnet.address;
    let options = &mut answer.options;
    options.push(DhcpOption::TFTPServerName(server.to_string().into_bytes()));
    options.push(DhcpOption::BootfileName(file.clone().into_bytes()));
    answer.next_server = Some(server);
    answer.file = file;
    options.extend(machine_identifier(request));
    match sighting.asker {
        Asker::Ipxe => {
            let code = OptionCode::Unknown(option::IPXE);
            options.push(DhcpOption::Unknown(UnknownOption::new(code, NO_PROXY.to_vec())));
        }
        Asker::Firmware => {
            // Not to iPXE: it keeps the text and sends it as its own class from then on.
            let http = is_http(request);
            let class = if http { HTTP_CLIENT } else { PXE_CLIENT };
            options.push(DhcpOption::ClassIdentifier(class.to_vec()));
            if !http {
                options.push(DhcpOption::VendorExtensions(BOOT_FILE_IS_FINAL.to_vec()));
            }
        }
        Asker::System => {}
    }
}

fn client_identifier(request: &Request) -> Option<DhcpOption> {
    let bytes = request.option(option::CLIENT_IDENTIFIER)?;
    Some(DhcpOption::ClientIdentifier(bytes.to_vec()))
}
