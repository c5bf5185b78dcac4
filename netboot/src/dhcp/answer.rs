use std::net::Ipv4Addr;

use dhcproto::v4::{DhcpOption, OptionCode, UnknownOption};
use kiln_inventory::{Asker, Decision, Sighting};
use kiln_ipxe::{BootFile, boot_file};

use super::engine::View;
use super::option;
use super::wire::Request;

/// PXE discovery control: fetch the boot file of this offer, without a menu and without asking port 4011
/// (PXE 2.1 §2.4.4, bit 3). Without it EDK2 takes a reply with option 60 for half of one.
const BOOT_FILE_IS_FINAL: [u8; 4] = [6, 1, 8, 255];
/// iPXE's `no-pxedhcp`: this server has said all, do not wait two seconds for another one.
const NO_PROXY: [u8; 3] = [0xb0, 1, 1];

/// What a reply says besides addresses.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) options: Vec<DhcpOption>,
    pub(super) next_server: Option<Ipv4Addr>,
    pub(super) file: String,
}

/// Returns what a NAK says: who sends it and whom it is for (RFC 2131 table 3, RFC 6842).
pub(super) fn nak_options(request: &Request, view: &View<'_>) -> Answer {
    let mut options = vec![DhcpOption::ServerIdentifier(view.subnet.address)];
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

/// Adds the boot file in each place where some firmware looks for it.
fn boot_options(
    request: &Request,
    view: &View<'_>,
    sighting: &Sighting,
    decision: &Decision,
    answer: &mut Answer,
) {
    let (server, file) = match boot_file(decision, sighting, view.endpoints) {
        BootFile::None => return,
        BootFile::Tftp { server, path } => (server, path),
        BootFile::Url(url) => (view.endpoints.address, url),
    };
    let options = &mut answer.options;
    options.push(DhcpOption::TFTPServerName(server.to_string().into_bytes()));
    options.push(DhcpOption::BootfileName(file.clone().into_bytes()));
    answer.next_server = Some(server);
    answer.file = file;
    if let Some(uuid) = request.option(option::CLIENT_UUID)
        && matches!((uuid.len(), uuid.first()), (17, Some(0)))
    {
        options.push(DhcpOption::ClientMachineIdentifier(uuid.to_vec()));
    }
    match sighting.asker {
        Asker::Ipxe => {
            let code = OptionCode::Unknown(option::IPXE);
            options.push(DhcpOption::Unknown(UnknownOption::new(code, NO_PROXY.to_vec())));
        }
        Asker::Firmware => {
            // Not to iPXE: it keeps the text and sends it as its own class from then on.
            let http = request
                .option(option::VENDOR_CLASS)
                .is_some_and(|class| class.starts_with(b"HTTPClient"));
            let class: &[u8] = if http { b"HTTPClient" } else { b"PXEClient" };
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
