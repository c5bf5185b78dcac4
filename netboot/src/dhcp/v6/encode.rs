use std::net::{Ipv6Addr, SocketAddrV6};

use kiln_inventory::Duid;

use super::option;
use super::wire::{Other, OtherKind, Relay};

const RELAY_REPLY: u8 = 13;
/// The status codes that we use (RFC 8415 §21.13).
pub(super) mod status {
    pub(in crate::dhcp::v6) const SUCCESS: u16 = 0;
    pub(in crate::dhcp::v6) const NO_ADDRESSES: u16 = 2;
    pub(in crate::dhcp::v6) const NO_BINDING: u16 = 3;
    pub(in crate::dhcp::v6) const NOT_ON_LINK: u16 = 4;
    pub(in crate::dhcp::v6) const NO_PREFIXES: u16 = 6;
}

/// What a server sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyKind {
    /// This is what you would get.
    Advertise,
    /// This is what you have.
    Reply,
}

/// One message to a client, with the way back to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// What it is.
    pub kind: ReplyKind,
    /// Number of the request.
    pub xid: [u8; 3],
    /// Options in the order in which they are sent.
    pub(super) options: Options,
    /// Relays, the one nearest to us first.
    pub relays: Vec<Relay>,
    /// Where the packet goes.
    pub to: SocketAddrV6,
}

impl Reply {
    /// Returns the packet.
    pub fn encode(&self) -> Vec<u8> {
        let [a, b, c] = self.xid;
        let kind = match self.kind {
            ReplyKind::Advertise => 2,
            ReplyKind::Reply => 7,
        };
        let mut message = vec![kind, a, b, c];
        message.extend_from_slice(&self.options.0);
        for relay in self.relays.iter().rev() {
            let mut options = Options::default();
            if let Some(id) = &relay.interface_id {
                options.put(option::INTERFACE_ID, id);
            }
            options.put(option::RELAY_MESSAGE, &message);
            message = vec![RELAY_REPLY, relay.hops];
            message.extend(relay.link.octets());
            message.extend(relay.peer.octets());
            message.extend_from_slice(&options.0);
        }
        message
    }
}

/// Options as they are written, one after the other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Options(pub(super) Vec<u8>);

impl Options {
    /// Adds one. Nothing that we write comes near the length that does not fit; such would be left out.
    pub(super) fn put(&mut self, code: u16, value: &[u8]) {
        let Ok(length) = u16::try_from(value.len()) else { return };
        self.0.extend(code.to_be_bytes());
        self.0.extend(length.to_be_bytes());
        self.0.extend_from_slice(value);
    }

    pub(super) fn identifier(&mut self, code: u16, duid: &Duid) {
        self.put(code, duid.as_bytes());
    }

    pub(super) fn status(&mut self, code: u16, message: &str) {
        self.put(option::STATUS, &[&code.to_be_bytes(), message.as_bytes()].concat());
    }

    /// Adds an association. Its client renews it after half of the time and asks every server after four fifths.
    pub(super) fn association(&mut self, iaid: u32, seconds: u32, inside: &Self) {
        let times = [seconds / 2, seconds / 5 * 4];
        let mut value = iaid.to_be_bytes().to_vec();
        value.extend(times.iter().flat_map(|time| time.to_be_bytes()));
        value.extend_from_slice(&inside.0);
        self.put(option::IA_NA, &value);
    }

    /// Adds an association with what we do not give: nothing is in it but why.
    pub(super) fn refused(&mut self, other: Other, code: u16, message: &str) {
        let mut inside = Self::default();
        inside.status(code, message);
        let iaid = other.iaid.to_be_bytes();
        match other.of {
            // It has no times (RFC 8415 §21.5).
            OtherKind::Temporary => self.put(option::IA_TA, &[&iaid[..], &inside.0].concat()),
            OtherKind::Prefixes => {
                self.put(option::IA_PD, &[&iaid[..], &[0; 8], &inside.0].concat());
            }
        }
    }

    /// Adds an address to an association, good for so many seconds; with none, its client gives it up.
    pub(super) fn address(&mut self, address: Ipv6Addr, seconds: u32) {
        let time = seconds.to_be_bytes();
        self.put(option::IA_ADDRESS, &[&address.octets()[..], &time, &time].concat());
    }

    pub(super) fn addresses(&mut self, code: u16, addresses: &[Ipv6Addr]) {
        let bytes: Vec<u8> = addresses.iter().flat_map(|address| address.octets()).collect();
        self.put(code, &bytes);
    }

    /// Adds a domain name as labels of DNS (RFC 1035 §3.1).
    pub(super) fn domain(&mut self, name: &str) {
        let mut value = Vec::with_capacity(name.len() + 2);
        for label in name.split('.') {
            let Ok(length) = u8::try_from(label.len()) else { return };
            value.push(length);
            value.extend_from_slice(label.as_bytes());
        }
        value.push(0);
        self.put(option::DOMAIN_LIST, &value);
    }

    /// Adds a vendor class with one text.
    pub(super) fn vendor_class(&mut self, enterprise: u32, text: &[u8]) {
        let Ok(length) = u16::try_from(text.len()) else { return };
        let value = [&enterprise.to_be_bytes()[..], &length.to_be_bytes(), text].concat();
        self.put(option::VENDOR_CLASS, &value);
    }
}
