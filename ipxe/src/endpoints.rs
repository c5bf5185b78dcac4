use std::net::{IpAddr, SocketAddr};

/// Where a machine reaches this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Our address on the subnet of the machine; TFTP is there.
    pub address: IpAddr,
    /// Address and port of HTTP.
    pub http: SocketAddr,
    /// HTTPS, where someone is sent there.
    pub https: Option<Https>,
    /// Where the system that boots talks to us by TLS, whoever else is sent to HTTPS.
    pub agent: Option<SocketAddr>,
}

/// Who is sent to HTTPS, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Https {
    /// Address and port.
    pub at: SocketAddr,
    /// Who is told that address.
    pub of: HttpsFor,
}

/// Who is sent to HTTPS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpsFor {
    /// Firmware that boots by HTTP.
    Firmware,
    /// That firmware and iPXE, whoever started it.
    All,
}

impl Endpoints {
    /// Names an address and the port of HTTP on it; there is no HTTPS.
    pub fn new(address: impl Into<IpAddr>, http: u16) -> Self {
        let address = address.into();
        Self { address, http: SocketAddr::new(address, http), https: None, agent: None }
    }

    /// Names the port of HTTPS, by which the system that boots reports and asks.
    #[must_use]
    pub fn with_agents_at(self, https: Option<SocketAddr>) -> Self {
        Self { agent: https, ..self }
    }

    /// Returns how the URLs begin that firmware is told, without a slash at the end.
    pub fn for_firmware(&self) -> String {
        match self.https {
            Some(https) => format!("https://{}", https.at),
            None => self.for_system(),
        }
    }

    /// Returns how the URLs begin that iPXE is told.
    pub fn for_loader(&self) -> String {
        match self.https {
            Some(https) if https.of == HttpsFor::All => format!("https://{}", https.at),
            _ => self.for_system(),
        }
    }

    /// Returns how the URLs begin that the booted system is told, for programs in it that trust nobody in particular.
    pub fn for_system(&self) -> String {
        format!("http://{}", self.http)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn each_is_sent_where_it_can_go() {
        let address = Ipv4Addr::new(10, 0, 0, 1);
        let plain = Endpoints::new(address, 8080);
        let with = |of| {
            let https = Some(Https { at: SocketAddr::new(address.into(), 8443), of });
            Endpoints { https, ..plain }
        };
        let (http, https) = ("http://10.0.0.1:8080", "https://10.0.0.1:8443");
        for (at, expected) in [
            (plain, [http, http, http]),
            (with(HttpsFor::Firmware), [https, http, http]),
            (with(HttpsFor::All), [https, https, http]),
        ] {
            assert_eq!([at.for_firmware(), at.for_loader(), at.for_system()], expected);
        }
    }
}
