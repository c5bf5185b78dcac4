//! Names and addresses.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::spec::text::{as_text, short};

/// Name of a network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkName(String);

/// Address of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostAddress(IpAddr);

/// Address and length of the network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    ip: IpAddr,
    prefix: u8,
}

/// Name of a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DomainName(String);

impl LinkName {
    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl HostAddress {
    /// Returns the address.
    pub const fn ip(self) -> IpAddr {
        self.0
    }
}

impl Cidr {
    /// Returns the address.
    pub const fn ip(self) -> IpAddr {
        self.ip
    }
}

impl FromStr for LinkName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        // `dev_valid_name` of the kernel, and what sysctl has other things under.
        let good = (1..=15).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b'%'))
            && !matches!(name, "." | ".." | "all" | "default" | "lo");
        if good {
            return Ok(Self(name.to_owned()));
        }
        Err(format!(
            "`{}` cannot be the name of a network interface; use letters, digits, `-`, `_` and `.`, at most 15",
            short(name)
        ))
    }
}

impl FromStr for HostAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ip = text.parse().ok();
        let ip = ip.filter(|ip: &IpAddr| !ip.is_unspecified() && !ip.is_multicast());
        ip.map(Self).ok_or_else(|| format!("`{}` is not the address of a host", short(text)))
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "`{}` is not an address with the length of its prefix, such as `10.0.0.5/24`",
                short(text)
            )
        };
        let (ip, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong())?;
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.parse().ok().filter(|prefix| *prefix <= longest).ok_or_else(wrong)?;
        Ok(Self { ip, prefix })
    }
}

impl FromStr for DomainName {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        if name.len() <= 253 && name.split('.').all(label) {
            return Ok(Self(name.to_owned()));
        }
        Err(format!("`{}` is not the name of a domain", short(name)))
    }
}

impl fmt::Display for LinkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for HostAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

impl fmt::Display for DomainName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

as_text!(LinkName HostAddress Cidr DomainName);
