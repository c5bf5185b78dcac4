//! Numbers of options that we read or write (RFC 8415 §24, RFC 5970, RFC 6939).

pub(in crate::dhcp) const CLIENT_ID: u16 = 1;
pub(in crate::dhcp) const SERVER_ID: u16 = 2;
pub(in crate::dhcp) const IA_NA: u16 = 3;
pub(in crate::dhcp) const IA_TA: u16 = 4;
pub(in crate::dhcp) const IA_ADDRESS: u16 = 5;
pub(in crate::dhcp) const PREFERENCE: u16 = 7;
pub(in crate::dhcp) const RELAY_MESSAGE: u16 = 9;
pub(in crate::dhcp) const STATUS: u16 = 13;
pub(in crate::dhcp) const RAPID_COMMIT: u16 = 14;
pub(in crate::dhcp) const USER_CLASS: u16 = 15;
pub(in crate::dhcp) const VENDOR_CLASS: u16 = 16;
pub(in crate::dhcp) const INTERFACE_ID: u16 = 18;
pub(in crate::dhcp) const DNS_SERVERS: u16 = 23;
pub(in crate::dhcp) const DOMAIN_LIST: u16 = 24;
pub(in crate::dhcp) const IA_PD: u16 = 25;
pub(in crate::dhcp) const REFRESH_TIME: u16 = 32;
pub(in crate::dhcp) const BOOT_FILE_URL: u16 = 59;
pub(in crate::dhcp) const CLIENT_ARCHITECTURE: u16 = 61;
pub(in crate::dhcp) const LINK_LAYER: u16 = 79;
