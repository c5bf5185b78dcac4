//! Numbers of options that we read or write (RFC 8415 §24, RFC 5970, RFC 6939).

pub(super) const CLIENT_ID: u16 = 1;
pub(super) const SERVER_ID: u16 = 2;
pub(super) const IA_NA: u16 = 3;
pub(super) const IA_TA: u16 = 4;
pub(super) const IA_ADDRESS: u16 = 5;
pub(super) const PREFERENCE: u16 = 7;
pub(super) const RELAY_MESSAGE: u16 = 9;
pub(super) const STATUS: u16 = 13;
pub(super) const RAPID_COMMIT: u16 = 14;
pub(super) const USER_CLASS: u16 = 15;
pub(super) const VENDOR_CLASS: u16 = 16;
pub(super) const INTERFACE_ID: u16 = 18;
pub(super) const DNS_SERVERS: u16 = 23;
pub(super) const DOMAIN_LIST: u16 = 24;
pub(super) const IA_PD: u16 = 25;
pub(super) const REFRESH_TIME: u16 = 32;
pub(super) const BOOT_FILE_URL: u16 = 59;
pub(super) const CLIENT_ARCHITECTURE: u16 = 61;
pub(super) const LINK_LAYER: u16 = 79;
