//! Numbers of the options that we read or write (RFC 2132 and the registry "BOOTP Vendor Extensions").

pub(super) const PAD: u8 = 0;
pub(super) const SUBNET_MASK: u8 = 1;
pub(super) const ROUTER: u8 = 3;
pub(super) const DNS: u8 = 6;
pub(super) const HOST_NAME: u8 = 12;
pub(super) const DOMAIN: u8 = 15;
pub(super) const MTU: u8 = 26;
pub(super) const BROADCAST: u8 = 28;
pub(super) const NTP: u8 = 42;
pub(super) const VENDOR_SPECIFIC: u8 = 43;
pub(super) const REQUESTED_ADDRESS: u8 = 50;
pub(super) const LEASE_TIME: u8 = 51;
pub(super) const OVERLOAD: u8 = 52;
pub(super) const MESSAGE_TYPE: u8 = 53;
pub(super) const SERVER_IDENTIFIER: u8 = 54;
pub(super) const MAX_MESSAGE_SIZE: u8 = 57;
pub(super) const RENEWAL_TIME: u8 = 58;
pub(super) const REBINDING_TIME: u8 = 59;
pub(super) const VENDOR_CLASS: u8 = 60;
pub(super) const CLIENT_IDENTIFIER: u8 = 61;
pub(super) const TFTP_SERVER: u8 = 66;
pub(super) const BOOT_FILE: u8 = 67;
pub(super) const USER_CLASS: u8 = 77;
pub(super) const RELAY_AGENT: u8 = 82;
/// RFC 4578 §2.1.
pub(super) const CLIENT_ARCHITECTURE: u8 = 93;
/// RFC 4578 §2.3.
pub(super) const CLIENT_UUID: u8 = 97;
/// RFC 3397.
pub(super) const DOMAIN_SEARCH: u8 = 119;
/// RFC 3442.
pub(super) const CLASSLESS_ROUTES: u8 = 121;
/// Registered for Etherboot; iPXE speaks of its features there.
pub(super) const IPXE: u8 = 175;
pub(super) const END: u8 = 255;

/// Sub-options of option 43, as PXE uses it (PXE 2.1 table 2-1).
pub(super) mod pxe {
    /// How the boot file is found.
    pub(in crate::dhcp) const DISCOVERY_CONTROL: u8 = 6;
    /// Which kind of boot server is asked, and for which part of what it has.
    pub(in crate::dhcp) const BOOT_ITEM: u8 = 71;
}

/// Sub-options of option 82.
pub(super) mod relay {
    /// RFC 3046 §3.1.
    pub(in crate::dhcp) const CIRCUIT_ID: u8 = 1;
    /// RFC 3527 §3.
    pub(in crate::dhcp) const LINK_SELECTION: u8 = 5;
    /// RFC 5107 §4.
    pub(in crate::dhcp) const SERVER_IDENTIFIER_OVERRIDE: u8 = 11;
}
