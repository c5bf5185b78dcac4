//! Where the server is, and how it is talked to.

use std::fmt;
use std::net::SocketAddr;

use crate::config::{Machine, Secure};
use crate::console::say;
use crate::hex;
use crate::tls::Trust;

/// The server of this machine.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    address: SocketAddr,
    /// Without it nothing is encrypted.
    trust: Option<Trust>,
}

impl Server {
    /// Returns the server that a machine was told of. Where it was told how to encrypt, it talks in no other way: what is
    /// wrong with that is said, and then there is no server.
    pub(crate) fn of(machine: &Machine) -> Option<Self> {
        let server = match &machine.secure {
            Some(secure) => Self::encrypted(secure),
            None => address_of("http://", 80, &machine.server).map(Self::plain).ok_or_else(|| {
                format!("the server {:?} is not http://ADDRESS:PORT", machine.server)
            }),
        };
        server.inspect_err(|why| say(why)).ok()
    }

    const fn plain(address: SocketAddr) -> Self {
        Self { address, trust: None }
    }

    fn encrypted(secure: &Secure) -> Result<Self, String> {
        let address = address_of("https://", 443, &secure.server)
            .ok_or_else(|| format!("the server {:?} is not https://ADDRESS:PORT", secure.server))?;
        let authority = hex::bytes(&secure.authority)
            .ok_or("the certificate of the site's authority has not arrived")?;
        let trust = Trust::new(&authority, secure.time).map_err(|error| {
            format!("the certificate of the site's authority is no good: {error}")
        })?;
        Ok(Self { address, trust: Some(trust) })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) const fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.trust.is_some() { "encrypted" } else { "not encrypted" };
        write!(f, "{}, {how}", self.address)
    }
}

#[cfg(test)]
impl Server {
    pub(crate) fn trusting(address: SocketAddr, trust: Trust) -> Self {
        Self { address, trust: Some(trust) }
    }
}

#[cfg(test)]
impl From<SocketAddr> for Server {
    fn from(address: SocketAddr) -> Self {
        Self::plain(address)
    }
}

/// Reads `http://ADDRESS:PORT`. There is no resolver this early, so the server is told by address.
fn address_of(scheme: &str, port: u16, server: &str) -> Option<SocketAddr> {
    let host = server.strip_prefix(scheme)?.trim_end_matches('/');
    host.parse().ok().or_else(|| Some(SocketAddr::new(host.parse().ok()?, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(json: &str) -> Machine {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn the_address_of_the_server_is_read() {
        let http = |text| address_of("http://", 80, text);
        assert_eq!(http("http://10.0.0.1:8080"), "10.0.0.1:8080".parse().ok());
        assert_eq!(http("http://10.0.0.1/"), "10.0.0.1:80".parse().ok());
        assert_eq!(http("https://10.0.0.1"), None);
        assert_eq!(http("http://server:80"), None);
        assert_eq!(
            address_of("https://", 443, "https://[fd00::1]:8443"),
            "[fd00::1]:8443".parse().ok()
        );
    }

    #[test]
    fn who_was_told_to_encrypt_and_cannot_talks_to_nobody() {
        let plain = machine(r#"{"server":"http://10.0.0.1:8080","boot":1,"token":"t"}"#);
        assert!(Server::of(&plain).is_some_and(|server| server.trust().is_none()));
        for secure in [
            r#"{"server":"https://10.0.0.1:8443","authority":"zz","time":0}"#,
            r#"{"server":"https://10.0.0.1:8443","authority":"3003020100","time":0}"#,
            r#"{"server":"http://10.0.0.1:8443","authority":"","time":0}"#,
            "{}",
        ] {
            let text = format!(
                r#"{{"server":"http://10.0.0.1:8080","boot":1,"token":"t","secure":{secure}}}"#
            );
            assert!(Server::of(&machine(&text)).is_none(), "{secure}");
        }
    }
}
