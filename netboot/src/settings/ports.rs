//! One port is one listener's: two settings that name the same one keep the server from starting.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use serde::Deserialize;
use serde::de::IgnoredAny;
use toml::Spanned;

use super::{Dhcp6Mode, DhcpMode, Problems, Settings};

/// Who listens.
struct Listener {
    /// The setting that says so.
    setting: &'static str,
    transport: &'static str,
    addresses: Vec<IpAddr>,
    port: u16,
}

impl Listener {
    /// Returns the address of one port that both want.
    fn clash(&self, other: &Self) -> Option<SocketAddr> {
        if self.port == 0 || (self.transport, self.port) != (other.transport, other.port) {
            return None;
        }
        // What listens at every address of IPv6 does so at those of IPv4 too.
        let covers = |all: IpAddr, one: IpAddr| {
            all == one || all.is_unspecified() && (all.is_ipv6() || one.is_ipv4())
        };
        self.addresses.iter().find_map(|one| {
            let with =
                other.addresses.iter().find(|it| covers(*one, **it) || covers(**it, *one))?;
            Some(SocketAddr::new(if one.is_unspecified() { *with } else { *one }, self.port))
        })
    }
}

/// Returns all that listens as the settings say.
fn listeners(settings: &Settings) -> Vec<Listener> {
    let four = settings.subnets.iter();
    let six = settings.subnets6.iter();
    let own: Vec<IpAddr> = four
        .clone()
        .map(|subnet| subnet.address.into())
        .chain(six.clone().map(|subnet| subnet.address.into()))
        .collect();
    let dhcp = four.clone().filter(|subnet| subnet.dhcp != DhcpMode::Off);
    let proxy = four.filter(|subnet| subnet.dhcp == DhcpMode::Proxy);
    let dhcp6 = six.filter(|subnet| subnet.dhcp != Dhcp6Mode::Off);
    let (tcp, udp) = ("TCP", "UDP");
    let mut all = Vec::new();
    let mut add = |setting, transport, addresses: Vec<IpAddr>, port: Option<u16>| {
        let listener = |port| Listener { setting, transport, addresses, port };
        all.extend(port.map(listener));
    };
    add("[[subnet]] dhcp", udp, dhcp.map(|it| it.address.into()).collect(), Some(67));
    add("[[subnet]] dhcp", udp, proxy.map(|it| it.address.into()).collect(), Some(4011));
    add("[[subnet6]] dhcp", udp, dhcp6.map(|it| it.address.into()).collect(), Some(547));
    add("[http] port", tcp, own.clone(), Some(settings.http_port));
    add("[https] port", tcp, own.clone(), settings.https.as_ref().map(|https| https.port));
    let mut at = |setting, address: Option<SocketAddr>| {
        let addresses = address.iter().map(SocketAddr::ip).collect();
        add(setting, tcp, addresses, address.map(|address| address.port()));
    };
    at("[api] listen", settings.api.listen.as_ref().map(|(address, _)| *address));
    at("[metrics] listen", settings.metrics);
    add("[tftp] port", udp, own.clone(), Some(settings.tftp_port));
    add("[syslog] port", udp, own.clone(), settings.hear.syslog);
    add("[netconsole] port", udp, own, settings.hear.netconsole);
    all
}

/// Finds listeners that would have the same port.
pub(super) fn check(settings: &Settings, text: &str, problems: &mut Problems) {
    let (all, written) = (listeners(settings), Written::of(text));
    for (number, second) in all.iter().enumerate() {
        for first in all.iter().take(number) {
            let Some(at) = first.clash(second) else { continue };
            let (one, other) = (first.setting, second.setting);
            problems.push((
                written.place(other).or_else(|| written.place(one)),
                format!(
                    "`{one}` and `{other}` both are {} {at}; give one of them another port",
                    second.transport
                ),
            ));
        }
    }
}

/// Where the file names ports.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Written {
    http: Place,
    https: Place,
    api: Place,
    metrics: Place,
    tftp: Place,
    syslog: Place,
    netconsole: Place,
}

#[derive(Default, Deserialize)]
struct Place {
    port: Option<Spanned<IgnoredAny>>,
    listen: Option<Spanned<IgnoredAny>>,
}

impl Written {
    fn of(text: &str) -> Self {
        toml::from_str(text).unwrap_or_default()
    }

    fn place(&self, setting: &str) -> Option<Range<usize>> {
        let place = match setting {
            "[http] port" => &self.http,
            "[https] port" => &self.https,
            "[api] listen" => &self.api,
            "[metrics] listen" => &self.metrics,
            "[tftp] port" => &self.tftp,
            "[syslog] port" => &self.syslog,
            "[netconsole] port" => &self.netconsole,
            _ => return None,
        };
        place.port.as_ref().or(place.listen.as_ref()).map(Spanned::span)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const SUBNET: &str = "[[subnet]]\nnetwork = \"10.0.0.0/24\"\ninterface = \"lo\"\n\
                          address = \"10.0.0.1\"\npool = [\"10.0.0.10-10.0.0.20\"]\n";

    fn wrong(text: &str) -> Option<String> {
        let parsed = Settings::parse(Path::new("kiln.toml"), &format!("{text}{SUBNET}"));
        parsed.err().map(|error| error.to_string())
    }

    #[test]
    fn two_listeners_of_one_port_are_named_with_their_place() {
        for (text, expected) in [
            (
                "[https]\nport = 8080\n",
                "kiln.toml:2:8: `[http] port` and `[https] port` both are TCP 10.0.0.1:8080; give one of them another port",
            ),
            (
                "[api]\nlisten = \"0.0.0.0:8080\"\n",
                "kiln.toml:2:10: `[http] port` and `[api] listen` both are TCP 10.0.0.1:8080",
            ),
            (
                "[metrics]\nlisten = \"[::]:8080\"\n",
                "`[http] port` and `[metrics] listen` both are TCP 10.0.0.1:8080",
            ),
            (
                "[metrics]\nlisten = 9000\n[api]\nlisten = \"127.0.0.1:9000\"\n",
                "`[api] listen` and `[metrics] listen` both are TCP 127.0.0.1:9000",
            ),
            (
                "[syslog]\nlisten = true\nport = 69\n",
                "kiln.toml:3:8: `[tftp] port` and `[syslog] port` both are UDP 10.0.0.1:69",
            ),
            (
                "[tftp]\nport = 67\n",
                "kiln.toml:2:8: `[[subnet]] dhcp` and `[tftp] port` both are UDP 10.0.0.1:67",
            ),
            (
                "[syslog]\nlisten = true\n[netconsole]\nlisten = true\nport = 514\n",
                "`[syslog] port` and `[netconsole] port` both are UDP 10.0.0.1:514",
            ),
        ] {
            let problem = wrong(text).unwrap_or_default();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
    }

    #[test]
    fn a_port_may_be_had_at_other_addresses_by_the_other_transport_or_of_the_kernels_choice() {
        for text in [
            "",
            "[metrics]\nlisten = 8080\n",
            "[http]\nport = 69\n",
            "[http]\nport = 0\n[https]\nport = 0\n[tftp]\nport = 0\n",
            "[api]\nlisten = \"10.0.0.2:8080\"\n",
            "[syslog]\nlisten = false\nport = 69\n",
        ] {
            assert_eq!(wrong(text), None, "{text}");
        }
    }
}
