use std::net::Ipv4Addr;
use std::time::Duration;

use kiln_inventory::{Asker, Decision, Firmware, Machine, Sighting, may_set_option};
use kiln_ipxe::{BootFile, boot_file};

use super::board::PI_MENU;
use super::encode::ReplyOption;
use super::engine::{View, server_id};
use super::option;
use super::rules::Hostnames;
use super::subnet::Subnet;
use super::wire::Request;

/// PXE discovery control: fetch the boot file of this offer, without a menu and without asking port 4011
/// (PXE 2.1 §2.4.4, bit 3). Without it EDK2 takes a reply with option 60 for half of one.
const BOOT_FILE_IS_FINAL: [u8; 4] = [option::pxe::DISCOVERY_CONTROL, 1, 8, option::END];
/// iPXE's `no-pxedhcp`: this server has said all, do not wait two seconds for another one.
const NO_PROXY: [u8; 3] = [0xb0, 1, 1];

/// Classes of option 60, which firmware wants to find in the answer.
const PXE_CLIENT: &[u8] = b"PXEClient";
const HTTP_CLIENT: &[u8] = b"HTTPClient";

/// What a reply says besides addresses.
#[derive(Debug, Default)]
pub(super) struct Answer {
    pub(super) options: Vec<ReplyOption>,
    pub(super) next_server: Option<Ipv4Addr>,
    pub(super) file: String,
}

/// Returns what a NAK says: who sends it and whom it is for (RFC 2131 table 3, RFC 6842).
pub(super) fn nak_options(request: &Request, view: &View<'_>) -> Answer {
    let mut options =
        vec![ReplyOption::addresses(option::SERVER_IDENTIFIER, &[server_id(request, view)])];
    options.extend(client_identifier(request));
    Answer { options, ..Answer::default() }
}

/// For whom and for how long a full answer is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Given<'a> {
    /// The machine whose name and options the client gets.
    pub(super) owner: Option<&'a Machine>,
    /// The address, and for how long. Without one, the reply is to an INFORM and speaks of no lease.
    pub(super) lease: Option<(Ipv4Addr, Duration)>,
}

/// Returns what an OFFER or ACK says. It is the same in both: EDK2 boots from what the ACK repeats.
pub(super) fn options(
    request: &Request,
    view: &View<'_>,
    sighting: &Sighting,
    decision: &Decision,
    given: Given<'_>,
) -> Answer {
    let subnet = view.subnet;
    let mut answer = nak_options(request, view);
    let options = &mut answer.options;
    if let Some((_, time)) = given.lease {
        let seconds = u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        options.push(ReplyOption::number(option::LEASE_TIME, seconds));
        options.push(ReplyOption::number(option::RENEWAL_TIME, seconds / 2));
        options.push(ReplyOption::number(option::REBINDING_TIME, seconds / 8 * 7));
    }
    options.push(ReplyOption::addresses(option::SUBNET_MASK, &[subnet.network.mask()]));
    options.push(ReplyOption::addresses(option::BROADCAST, &[subnet.network.broadcast()]));
    let lists = [
        (option::ROUTER, &subnet.router),
        (option::DNS, &subnet.dns),
        (option::NTP, &subnet.rules.ntp),
    ];
    for (code, addresses) in lists.into_iter().filter(|(_, addresses)| !addresses.is_empty()) {
        options.push(ReplyOption::addresses(code, addresses));
    }
    if let Some(domain) = &subnet.domain {
        options.push(ReplyOption::new(option::DOMAIN, domain.as_bytes()));
    }
    if let Some(name) = host_name(subnet.rules.hostnames, given) {
        options.push(ReplyOption::new(option::HOST_NAME, name));
    }
    told(subnet, options);
    let settings = given.owner.and_then(|machine| view.snapshot.settings_of(machine.id));
    let own = settings.into_iter().flat_map(|settings| &settings.dhcp_options);
    let own = own.map(|(code, said)| (code, &said.value));
    for (code, value) in subnet.rules.options.iter().chain(own) {
        // The inventory may hold others, from a time when they were not refused.
        if may_set_option(*code) {
            put(options, ReplyOption::new(*code, value.bytes()));
        }
    }
    boot_options(request, view, sighting, decision, &mut answer);
    answer
}

/// Adds what fewer clients look at.
fn told(subnet: &Subnet, options: &mut Vec<ReplyOption>) {
    let rules = &subnet.rules;
    if let Some(mtu) = rules.mtu {
        options.push(ReplyOption::new(option::MTU, mtu.to_be_bytes()));
    }
    if !rules.routes.is_empty() {
        let routes = super::rules::routes(&rules.routes, subnet.router.first());
        options.push(ReplyOption::new(option::CLASSLESS_ROUTES, routes));
    }
    if !rules.search.is_empty() {
        options.push(ReplyOption::new(option::DOMAIN_SEARCH, super::rules::search(&rules.search)));
    }
}

fn host_name(rule: Hostnames, given: Given<'_>) -> Option<String> {
    let machine = || given.owner.map(|machine| machine.spec.name.clone());
    let by_address = || {
        let (address, _) = given.lease?;
        Some(format!("ip-{}", address.to_string().replace('.', "-")))
    };
    match rule {
        Hostnames::Machines => machine(),
        Hostnames::All => machine().or_else(by_address),
        Hostnames::None => None,
    }
}

/// Adds an option, in the place of one with the same number.
fn put(options: &mut Vec<ReplyOption>, option: ReplyOption) {
    match options.iter_mut().find(|old| old.code == option.code) {
        Some(old) => *old = option,
        None => options.push(option),
    }
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
    let named = |option: &ReplyOption| option.code == option::VENDOR_CLASS;
    if answer.next_server.is_some() && !answer.options.iter().any(named) {
        answer.options.push(ReplyOption::new(option::VENDOR_CLASS, PXE_CLIENT));
    }
    answer
}

/// Returns what sends a client to port 4011: who we are, without a boot file and without option 43, so that EDK2
/// counts it among those that have to be asked.
pub(super) fn referral(request: &Request, view: &View<'_>) -> Answer {
    let mut answer = nak_options(request, view);
    answer.options.push(ReplyOption::new(option::VENDOR_CLASS, PXE_CLIENT));
    answer.options.extend(machine_identifier(request));
    answer.next_server = Some(view.subnet.address);
    answer
}

/// Returns what firmware is told that asks a boot server for one item of a menu: which item it gets (PXE 2.1 §2.2.3).
pub(super) fn boot_item((kind, layer): (u16, u16)) -> ReplyOption {
    let [a, b] = kind.to_be_bytes();
    let [c, d] = layer.to_be_bytes();
    let item = option::pxe::BOOT_ITEM;
    ReplyOption::new(option::VENDOR_SPECIFIC, [item, 4, a, b, c, d, option::END])
}

/// Returns whether firmware asks by PXE: HTTP Boot knows no port 4011.
pub(super) fn is_pxe(request: &Request, sighting: &Sighting) -> bool {
    sighting.asker == Asker::Firmware && !is_http(request)
}

fn is_http(request: &Request) -> bool {
    request.option(option::VENDOR_CLASS).is_some_and(|class| class.starts_with(HTTP_CLIENT))
}

/// Returns option 97 as it came: some firmware takes no answer without it.
fn machine_identifier(request: &Request) -> Option<ReplyOption> {
    let uuid = request.option(option::CLIENT_UUID)?;
    matches!((uuid.len(), uuid.first()), (17, Some(0)))
        .then(|| ReplyOption::new(option::CLIENT_UUID, uuid))
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
    put(options, ReplyOption::new(option::TFTP_SERVER, server.to_string()));
    put(options, ReplyOption::new(option::BOOT_FILE, file.clone()));
    answer.next_server = Some(server);
    answer.file = file;
    options.extend(machine_identifier(request));
    match sighting.asker {
        Asker::Ipxe => {
            put(options, ReplyOption::new(option::IPXE, NO_PROXY));
        }
        Asker::Firmware => {
            // Not to iPXE: it keeps the text and sends it as its own class from then on.
            let http = is_http(request);
            let class = if http { HTTP_CLIENT } else { PXE_CLIENT };
            put(options, ReplyOption::new(option::VENDOR_CLASS, class));
            if sighting.firmware == Some(Firmware::RaspberryPi) {
                put(options, ReplyOption::new(option::VENDOR_SPECIFIC, PI_MENU));
            } else if !http {
                put(options, ReplyOption::new(option::VENDOR_SPECIFIC, BOOT_FILE_IS_FINAL));
            }
        }
        Asker::System => {}
    }
}

fn client_identifier(request: &Request) -> Option<ReplyOption> {
    let bytes = request.option(option::CLIENT_IDENTIFIER)?;
    Some(ReplyOption::new(option::CLIENT_IDENTIFIER, bytes))
}
