#![warn(clippy::indexing_slicing)]

use std::net::Ipv6Addr;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IANA, Message, MessageType, ORO, OptionCode, Status, UnknownOption,
};
use dhcproto::{Decodable as _, Encodable as _};
use kiln_types::Mac;

use super::ClientError;
use crate::dhcp::v6::option;

/// Bytes of one option that are looked at.
const LONGEST: usize = 1024;

/// One machine that asks by DHCPv6, as UEFI firmware does for PXE.
#[derive(Clone, Copy, Debug)]
pub struct Asker6 {
    /// Its hardware address, of which its DUID is made (RFC 8415 §11.4).
    pub mac: Mac,
    /// Number that the answers repeat.
    pub xid: [u8; 3],
}

/// One answer of a server, as far as a machine that boots looks at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer6 {
    /// Number of the question.
    pub xid: [u8; 3],
    /// What the server calls itself.
    pub server: Vec<u8>,
    /// Address for the machine.
    pub address: Option<Ipv6Addr>,
    /// The boot file (RFC 5970 §3.1).
    pub boot_file: Option<String>,
}

impl Asker6 {
    /// Which servers are there, and which addresses?
    ///
    /// # Errors
    ///
    /// When dhcproto does not compose it.
    pub fn solicit(&self) -> Result<Vec<u8>, ClientError> {
        let address = IANA { id: 1, t1: 0, t2: 0, opts: DhcpOptions::new() };
        self.compose(MessageType::Solicit, Some(DhcpOption::IANA(address)))
    }

    /// I have an address, or need none; what else is there?
    ///
    /// # Errors
    ///
    /// When dhcproto does not compose it.
    pub fn inform(&self) -> Result<Vec<u8>, ClientError> {
        self.compose(MessageType::InformationRequest, None)
    }

    fn compose(&self, kind: MessageType, more: Option<DhcpOption>) -> Result<Vec<u8>, ClientError> {
        let mut message = Message::new_with_id(kind, self.xid);
        let duid = [&[0, 3, 0, 1][..], &self.mac.octets()].concat();
        // dhcproto writes a wrong length for this one: as bytes of our own. 343 is Intel, as firmware says.
        let class = [&[0, 0, 1, 87, 0, 9][..], b"PXEClient"].concat();
        let wanted = [option::BOOT_FILE_URL, option::DNS_SERVERS].map(OptionCode::from).to_vec();
        let raw = |code: u16, bytes| {
            DhcpOption::Unknown(UnknownOption::new(OptionCode::from(code), bytes))
        };
        let all = [
            DhcpOption::ClientId(duid),
            DhcpOption::ElapsedTime(0),
            DhcpOption::ORO(ORO { opts: wanted }),
            raw(option::VENDOR_CLASS, class),
            raw(option::CLIENT_ARCHITECTURE, vec![0, 7]),
        ];
        for option in all.into_iter().chain(more) {
            message.opts_mut().insert(option);
        }
        message.to_vec().map_err(ClientError::Compose)
    }
}

impl Answer6 {
    /// Reads one packet.
    ///
    /// # Errors
    ///
    /// Returns why it is no answer of a server. Damaged options are no reason; they are left out.
    pub fn decode(packet: &[u8]) -> Result<Self, ClientError> {
        let (head, area) = packet.split_at_checked(4).ok_or(ClientError::Short(packet.len()))?;
        let safe = [head, &guarded(area, &ANYWHERE)].concat();
        let message = Message::from_bytes(&safe).map_err(ClientError::Damaged)?;
        if !matches!(message.msg_type(), MessageType::Advertise | MessageType::Reply) {
            return Err(ClientError::NotAnAnswer);
        }
        let mut answer =
            Self { xid: message.xid(), server: Vec::new(), address: None, boot_file: None };
        let mut refused = false;
        for option in message.opts().iter() {
            match option {
                DhcpOption::ServerId(duid) => answer.server.clone_from(duid),
                DhcpOption::IANA(association) => {
                    let address = association.opts.iter().find_map(|option| match option {
                        DhcpOption::IAAddr(given) => Some(given.addr),
                        _ => None,
                    });
                    answer.address = answer.address.or(address);
                }
                DhcpOption::StatusCode(status) => refused |= status.status != Status::Success,
                DhcpOption::Unknown(bytes) => {
                    answer.boot_file = Some(String::from_utf8_lossy(bytes.data()).into_owned());
                }
                _ => {}
            }
        }
        answer.address = answer.address.filter(|_| !refused);
        if answer.server.is_empty() { Err(ClientError::NoKind) } else { Ok(answer) }
    }
}

/// An option that is handed on: its number, its shortest and longest length, and how much of it comes before options
/// that it holds, which are looked through in the same way.
type Allowed = (u16, usize, usize, Option<usize>);

const ANYWHERE: [Allowed; 5] = [
    (option::CLIENT_ID, 1, 130, None),
    (option::SERVER_ID, 1, 130, None),
    (option::IA_NA, 12, LONGEST, Some(12)),
    (option::STATUS, 2, LONGEST, None),
    (option::BOOT_FILE_URL, 1, LONGEST, None),
];
const IN_ASSOCIATION: [Allowed; 1] = [(option::IA_ADDRESS, 24, LONGEST, Some(24))];

/// Returns the options of an area that we look at and that dhcproto can read. What is cut off ends it.
fn guarded(mut rest: &[u8], allowed: &[Allowed]) -> Vec<u8> {
    let mut safe = Vec::new();
    while let Some((&[a, b, c, d], body)) = rest.split_first_chunk() {
        let (code, length) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        let Some((value, after)) = body.split_at_checked(length.into()) else { break };
        rest = after;
        let known = allowed.iter().find(|known| known.0 == code);
        let Some((_, shortest, longest, before)) = known else { continue };
        if !(*shortest..=*longest).contains(&value.len()) {
            continue;
        }
        let value = match *before {
            // An address holds no options that we look at, an association holds addresses.
            Some(before) => {
                let (fixed, inner) = value.split_at_checked(before).unwrap_or((value, &[]));
                let inner_allowed = if code == option::IA_NA { &IN_ASSOCIATION[..] } else { &[] };
                [fixed, &guarded(inner, inner_allowed)].concat()
            }
            // Its text, which may be no text, says nothing that the number does not.
            None if code == option::STATUS => value.iter().take(2).copied().collect(),
            None => value.to_vec(),
        };
        safe.extend(code.to_be_bytes());
        safe.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        safe.extend(value);
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dhcp::replay;
    use crate::dhcp::v6::{Kind, Request};

    const ASKER: Asker6 = Asker6 { mac: Mac::new([2, 0, 0, 0, 0, 7]), xid: [1, 2, 3] };

    fn answer() -> Vec<u8> {
        let mut packet = vec![2, 1, 2, 3, 0, 2, 0, 3, 9, 9, 9, 0, 59, 0, 4];
        packet.extend(b"tftp");
        packet.extend([0, 3, 0, 40, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 24]);
        packet.extend("fd77::9".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend([0, 0, 0, 60, 0, 0, 0, 90]);
        packet
    }

    #[test]
    fn our_server_reads_what_is_asked_here() {
        let solicit = Request::decode(&ASKER.solicit().unwrap()).unwrap();
        assert_eq!((solicit.kind, solicit.xid), (Kind::Solicit, [1, 2, 3]));
        assert_eq!(solicit.associations.len(), 1);
        assert_eq!(solicit.architecture, Some(7));
        assert_eq!(solicit.vendor_class.as_deref(), Some(&b"PXEClient"[..]));
        let inform = Request::decode(&ASKER.inform().unwrap()).unwrap();
        assert_eq!((inform.kind, inform.associations.len()), (Kind::Inform, 0));
    }

    #[test]
    fn an_answer_is_read_whatever_else_is_wrong_with_it() {
        let address = Some("fd77::9".parse().unwrap());
        let expected = Answer6 {
            xid: [1, 2, 3],
            server: vec![9, 9, 9],
            address,
            boot_file: Some("tftp".into()),
        };
        assert_eq!(Answer6::decode(&answer()).unwrap(), expected);
        // Lengths that underflow, a status that is no text, one that is cut off.
        let bad = [&[0, 13, 0, 1, 0, 0, 16, 0, 0, 0, 17, 0, 1, 1, 0, 3, 0, 2, 1, 1][..], &[0, 25]];
        let packet =
            [&answer()[..4], &bad.concat(), &[0, 0], &answer()[4..], &[0, 2, 9, 9]].concat();
        assert_eq!(Answer6::decode(&packet).unwrap(), expected);
        let refused = [&answer()[..], &[0, 13, 0, 3, 0, 2, 0xff]].concat();
        assert_eq!(Answer6::decode(&refused).unwrap().address, None);
        assert!(matches!(Answer6::decode(&answer()[..4]), Err(ClientError::NoKind)));
        assert!(matches!(Answer6::decode(&[1; 3]), Err(ClientError::Short(3))));
        let mut question = answer();
        question[0] = 1;
        assert!(matches!(Answer6::decode(&question), Err(ClientError::NotAnAnswer)));
    }

    #[test]
    fn no_damage_to_an_answer_makes_it_panic() {
        let mut random = replay::Random::new(0x7265_706c);
        for _ in 0..replay::rounds(2000) {
            let mut packet = answer();
            for _ in 0..random.below(12) {
                let at = random.below(packet.len());
                packet[at] = random.byte();
            }
            packet.truncate(random.below(packet.len() * 2).max(1));
            let _ = Answer6::decode(&packet);
        }
    }
}
