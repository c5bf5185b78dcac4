#![warn(clippy::indexing_slicing)]

use std::net::Ipv4Addr;

use dhcproto::v4::{
    Architecture, DhcpOption, DhcpOptions, Flags, Message, MessageType, OptionCode, UnknownOption,
};
use dhcproto::{Decodable as _, Encodable as _};
use kiln_types::Mac;

use super::ClientError;
use crate::dhcp::option;
use crate::dhcp::wire::COOKIE;

/// Where the options begin, after the fixed fields and the cookie.
const OPTIONS_AT: usize = 240;
/// Relays and old servers want at least a BOOTP packet (RFC 1542 §2.1).
const MIN: usize = 300;
/// Bytes of one option that are looked at, joined from its parts.
const LONGEST: usize = 1024;

/// Which program of a machine asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// UEFI firmware of a 64-bit PC, by PXE.
    Firmware,
    /// iPXE, which the firmware has loaded.
    Ipxe,
}

/// One machine, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Asker {
    /// Its hardware address.
    pub mac: Mac,
    /// Number that the answers repeat.
    pub xid: u32,
    /// What runs on it.
    pub program: Program,
    /// The relay that passes its packets on, if one does.
    pub relay: Option<Ipv4Addr>,
}

/// What a server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AnswerKind {
    /// This address is there for you.
    Offer,
    /// It is yours.
    Ack,
    /// Not that address.
    Nak,
}

/// One answer of a server, as far as a machine that boots looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// What it says.
    pub kind: AnswerKind,
    /// Number of the question.
    pub xid: u32,
    /// Hardware address that it is for.
    pub mac: Mac,
    /// Address for the machine. A server that only names boot files gives none.
    pub address: Option<Ipv4Addr>,
    /// What the server calls itself.
    pub server: Option<Ipv4Addr>,
    /// Where the boot file is.
    pub next_server: Option<Ipv4Addr>,
    /// The boot file: option 67, else the field `file`.
    pub boot_file: Option<String>,
    /// Whether there are PXE options.
    pub pxe: bool,
    /// For how many seconds the address is given.
    pub lease: Option<u32>,
}

impl Asker {
    /// Which addresses and boot files are there?
    ///
    /// # Errors
    ///
    /// When dhcproto does not compose it.
    pub fn discover(&self) -> Result<Vec<u8>, ClientError> {
        self.compose(MessageType::Discover, Ipv4Addr::UNSPECIFIED, [])
    }

    /// May I have the address of this offer?
    ///
    /// # Errors
    ///
    /// When dhcproto does not compose it.
    pub fn request(&self, offer: &Answer) -> Result<Vec<u8>, ClientError> {
        let address = offer.address.map(DhcpOption::RequestedIpAddress);
        let server = offer.server.map(DhcpOption::ServerIdentifier);
        let chosen = address.into_iter().chain(server);
        self.compose(MessageType::Request, Ipv4Addr::UNSPECIFIED, chosen)
    }

    /// I have this address; what else is there?
    ///
    /// # Errors
    ///
    /// When dhcproto does not compose it.
    pub fn inform(&self, address: Ipv4Addr) -> Result<Vec<u8>, ClientError> {
        self.compose(MessageType::Inform, address, [])
    }

    fn compose(
        &self,
        kind: MessageType,
        own: Ipv4Addr,
        more: impl IntoIterator<Item = DhcpOption>,
    ) -> Result<Vec<u8>, ClientError> {
        let mut message = Message::default();
        message.set_xid(self.xid).set_chaddr(&self.mac.octets()).set_ciaddr(own);
        match self.relay {
            Some(relay) => message.set_giaddr(relay).set_hops(1),
            // Firmware of UEFI asks for a broadcast, and whoever asks for a machine that is not there has to.
            None => message.set_flags(Flags::default().set_broadcast()),
        };
        message.set_opts(self.options(kind, more));
        let mut packet = message.to_vec().map_err(ClientError::Compose)?;
        packet.resize(packet.len().max(MIN), 0);
        Ok(packet)
    }

    fn options(
        &self,
        kind: MessageType,
        more: impl IntoIterator<Item = DhcpOption>,
    ) -> DhcpOptions {
        let wanted = [
            option::SUBNET_MASK,
            option::ROUTER,
            option::DNS,
            option::VENDOR_SPECIFIC,
            option::SERVER_IDENTIFIER,
            option::VENDOR_CLASS,
            option::TFTP_SERVER,
            option::BOOT_FILE,
        ];
        let mut options: DhcpOptions = more.into_iter().collect();
        let class = b"PXEClient:Arch:00007:UNDI:003000".to_vec();
        for option in [
            DhcpOption::MessageType(kind),
            DhcpOption::ParameterRequestList(wanted.map(OptionCode::from).to_vec()),
            DhcpOption::MaxMessageSize(1472),
            DhcpOption::ClassIdentifier(class),
            DhcpOption::ClientSystemArchitecture(Architecture::X64),
            DhcpOption::ClientNetworkInterface(1, 3, 0),
        ] {
            options.insert(option);
        }
        if self.program == Program::Ipxe {
            options.insert(DhcpOption::UserClass(b"iPXE".to_vec()));
            // HTTP, TFTP, bzImage and EFI, of which each is a number with the value 1.
            let can =
                [0x13, 0x15, 0x18, 0x24].iter().flat_map(|feature| [*feature, 1, 1]).collect();
            let code = OptionCode::from(option::IPXE);
            options.insert(DhcpOption::Unknown(UnknownOption::new(code, can)));
        }
        options
    }
}

impl Answer {
    /// Reads one packet.
    ///
    /// # Errors
    ///
    /// Returns why it is no answer of a server. Damaged options are no reason; they are left out.
    pub fn decode(packet: &[u8]) -> Result<Self, ClientError> {
        let message = Message::from_bytes(&guarded(packet)?).map_err(ClientError::Damaged)?;
        let options = message.opts();
        let kind = match options.msg_type() {
            Some(MessageType::Offer) => AnswerKind::Offer,
            Some(MessageType::Ack) => AnswerKind::Ack,
            Some(MessageType::Nak) => AnswerKind::Nak,
            _ => return Err(ClientError::NoKind),
        };
        let mac = packet.get(28..).and_then(<[u8]>::first_chunk).copied();
        let said = |address: Ipv4Addr| Some(address).filter(|address| !address.is_unspecified());
        let named = match options.get(OptionCode::BootfileName) {
            Some(DhcpOption::BootfileName(name)) => Some(name.as_slice()),
            _ => message.fname(),
        };
        let text =
            named.map(|name| String::from_utf8_lossy(name).trim_end_matches('\0').to_owned());
        let server = match options.get(OptionCode::ServerIdentifier) {
            Some(DhcpOption::ServerIdentifier(server)) => said(*server),
            _ => None,
        };
        let lease = match options.get(OptionCode::AddressLeaseTime) {
            Some(DhcpOption::AddressLeaseTime(seconds)) => Some(*seconds),
            _ => None,
        };
        Ok(Self {
            kind,
            xid: message.xid(),
            mac: Mac::new(mac.ok_or(ClientError::Short(packet.len()))?),
            address: said(message.yiaddr()),
            server,
            next_server: said(message.siaddr()),
            boot_file: text.filter(|name| !name.is_empty()),
            pxe: options.contains(OptionCode::VendorExtensions),
            lease,
        })
    }
}

/// Returns a packet that says the same as one from the wire, as far as we look at it, and that dhcproto reads whole.
fn guarded(packet: &[u8]) -> Result<Vec<u8>, ClientError> {
    let fixed = packet.get(..OPTIONS_AT - 4).ok_or(ClientError::Short(packet.len()))?;
    let area = packet.get(OPTIONS_AT..).ok_or(ClientError::Short(packet.len()))?;
    if !fixed.starts_with(&[2, 1, 6]) {
        return Err(ClientError::NotAnAnswer);
    }
    if packet.get(OPTIONS_AT - 4..OPTIONS_AT) != Some(&COOKIE) {
        return Err(ClientError::NoCookie);
    }
    let mut found = Vec::new();
    walk(area, &mut found);
    let overload = joined(&found, option::OVERLOAD).first().copied().unwrap_or(0);
    let mut safe = [fixed, &COOKIE].concat();
    // RFC 2131 §4.1: when option 52 says so, `file` and then `sname` hold options, and no names.
    for (bit, from, to) in [(1, 108, 236), (2, 44, 108)] {
        if overload & bit != 0 {
            walk(packet.get(from..to).unwrap_or_default(), &mut found);
            if let Some(field) = safe.get_mut(from..to) {
                field.fill(0);
            }
        }
    }
    for (code, lengths) in LOOKED_AT {
        let value = joined(&found, code);
        if lengths.contains(&value.len()) {
            for part in value.chunks(255) {
                safe.extend([code, u8::try_from(part.len()).unwrap_or(u8::MAX)]);
                safe.extend(part);
            }
        }
    }
    safe.push(option::END);
    Ok(safe)
}

/// The options that are handed on, with the lengths that they may have.
const LOOKED_AT: [(u8, std::ops::RangeInclusive<usize>); 5] = [
    (option::VENDOR_SPECIFIC, 1..=LONGEST),
    (option::LEASE_TIME, 4..=4),
    (option::MESSAGE_TYPE, 1..=1),
    (option::SERVER_IDENTIFIER, 4..=4),
    (option::BOOT_FILE, 1..=LONGEST),
];

/// Finds the options of an area. What is cut off ends it.
fn walk<'a>(mut rest: &'a [u8], found: &mut Vec<(u8, &'a [u8])>) {
    while let Some((&code, tail)) = rest.split_first() {
        rest = match code {
            option::PAD => tail,
            option::END => return,
            _ => {
                let Some((&length, body)) = tail.split_first() else { return };
                let Some((value, after)) = body.split_at_checked(length.into()) else { return };
                found.push((code, value));
                after
            }
        }
    }
}

/// Joins the parts of an option (RFC 3396).
fn joined(found: &[(u8, &[u8])], wanted: u8) -> Vec<u8> {
    found
        .iter()
        .filter(|(code, _)| *code == wanted)
        .flat_map(|(_, value)| *value)
        .copied()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::replay;
    use crate::dhcp::{Kind, Request};

    const ASKER: Asker = Asker {
        mac: Mac::new([2, 0, 0, 0, 0, 7]),
        xid: 77,
        program: Program::Firmware,
        relay: None,
    };

    fn answer(options: &[u8]) -> Vec<u8> {
        let mut packet = vec![0; OPTIONS_AT];
        packet[..4].copy_from_slice(&[2, 1, 6, 0]);
        packet[7] = 77;
        packet[16..20].copy_from_slice(&[10, 0, 0, 9]);
        packet[28..34].copy_from_slice(&ASKER.mac.octets());
        packet[108..113].copy_from_slice(b"file\0");
        packet[236..240].copy_from_slice(&COOKIE);
        packet.extend(options);
        packet
    }

    #[test]
    fn our_server_reads_what_is_asked_here() {
        let read = |packet: Result<Vec<u8>, ClientError>| {
            let packet = packet.unwrap();
            assert!(packet.len() >= MIN);
            Request::decode(&packet).unwrap()
        };
        let discover = read(ASKER.discover());
        assert_eq!((discover.kind, discover.xid, discover.flags), (Kind::Discover, 77, 0x8000));
        assert_eq!((discover.mac, discover.architecture()), (ASKER.mac, Some(7)));
        assert_eq!(discover.option(94), Some(&[1, 3, 0][..]));
        let relay = Some(Ipv4Addr::new(10, 0, 0, 2));
        let ipxe = Asker { program: Program::Ipxe, relay, ..ASKER };
        let discover = read(ipxe.discover());
        assert_eq!((Some(discover.giaddr), discover.flags), (relay, 0));
        assert!(discover.ipxe_can(0x13) && !discover.ipxe_can(0x14));
        let offer = Answer::decode(&answer(&[53, 1, 2, 54, 4, 10, 0, 0, 1])).unwrap();
        let request = read(ASKER.request(&offer));
        assert_eq!(request.requested(), Some([10, 0, 0, 9].into()));
        assert_eq!(request.server(), Some([10, 0, 0, 1].into()));
        let inform = read(ASKER.inform([10, 0, 0, 9].into()));
        assert_eq!((inform.kind, inform.ciaddr), (Kind::Inform, [10, 0, 0, 9].into()));
    }

    #[test]
    fn an_answer_is_read_whatever_else_is_wrong_with_it() {
        // Each of these stops or kills a reader that trusts lengths: 12 that is no text, 80, 81, 93, 94 and 151 too
        // short, an option that is cut off.
        let bad = [12, 1, 0xff, 80, 1, 1, 81, 1, 0, 93, 1, 0, 94, 1, 1, 151, 0, 52, 0];
        let good = [0, 53, 1, 2, 54, 4, 10, 0, 0, 1, 51, 4, 0, 0, 0, 60, 67, 1, b'a', 43, 1, 255];
        let packet = answer(&[&bad[..], &good, &bad, &[67, 2, b'b', 0, 9, 200]].concat());
        let read = Answer::decode(&packet).unwrap();
        let expected = Answer {
            kind: AnswerKind::Offer,
            xid: 77,
            mac: ASKER.mac,
            address: Some([10, 0, 0, 9].into()),
            server: Some([10, 0, 0, 1].into()),
            next_server: None,
            boot_file: Some("ab".into()),
            pxe: true,
            lease: Some(60),
        };
        assert_eq!(read, expected);
        let plain = Answer::decode(&answer(&[53, 1, 5])).unwrap();
        assert_eq!((plain.kind, plain.boot_file.as_deref()), (AnswerKind::Ack, Some("file")));
        let mut overloaded = answer(&[52, 1, 1, 53, 1, 2]);
        overloaded[108..113].copy_from_slice(&[67, 2, b'x', b'y', 255]);
        assert_eq!(Answer::decode(&overloaded).unwrap().boot_file.as_deref(), Some("xy"));
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        let change = |at: usize, byte: u8| {
            let mut packet = answer(&[53, 1, 2]);
            packet[at] = byte;
            Answer::decode(&packet).unwrap_err()
        };
        assert!(matches!(change(0, 1), ClientError::NotAnAnswer));
        assert!(matches!(change(2, 17), ClientError::NotAnAnswer));
        assert!(matches!(change(236, 0), ClientError::NoCookie));
        assert!(matches!(change(242, 1), ClientError::NoKind));
        assert!(matches!(Answer::decode(&[2; 239]), Err(ClientError::Short(239))));
    }

    #[test]
    fn no_damage_to_an_answer_makes_it_panic() {
        let mut random = replay::Random::new(0x6f66_6665);
        let options: Vec<u8> = (1..=255_u8).flat_map(|code| [code, 3, 1, 2, 3]).collect();
        let whole = answer(&[&[53, 1, 2][..], &options].concat());
        for _ in 0..replay::rounds(2000) {
            let mut packet = whole.clone();
            for _ in 0..random.below(40) {
                let at = random.below(packet.len());
                packet[at] = random.byte();
            }
            // Most damage is to be behind the cookie.
            packet[236..240].copy_from_slice(&COOKIE);
            packet.truncate(random.below(packet.len() * 2).max(1));
            let _ = Answer::decode(&packet);
        }
    }
}
