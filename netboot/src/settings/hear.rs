//! `[syslog]` and `[netconsole]`: whether what machines say is heard.

use serde::Deserialize;

/// The port of syslog (RFC 5426), and the one that the kernel's netconsole sends to.
const SYSLOG: u16 = 514;
const NETCONSOLE: u16 = 6666;

/// Where machines are heard, by UDP on the addresses of the subnets; nowhere unless it is set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HearSettings {
    /// The port of syslog.
    pub syslog: Option<u16>,
    /// The port of netconsole.
    pub netconsole: Option<u16>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct WireHear {
    #[serde(default)]
    listen: bool,
    port: Option<u16>,
}

impl WireHear {
    fn port(self, usual: u16) -> Option<u16> {
        self.listen.then(|| self.port.unwrap_or(usual))
    }
}

pub(super) fn check(syslog: WireHear, netconsole: WireHear) -> HearSettings {
    HearSettings { syslog: syslog.port(SYSLOG), netconsole: netconsole.port(NETCONSOLE) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_heard_unless_that_is_set() {
        let read = |text: &str| toml::from_str::<WireHear>(text).unwrap();
        assert_eq!(check(read(""), read("port = 7000")), HearSettings::default());
        let both = check(read("listen = true"), read("listen = true\nport = 7000"));
        assert_eq!(both, HearSettings { syslog: Some(514), netconsole: Some(7000) });
    }
}
