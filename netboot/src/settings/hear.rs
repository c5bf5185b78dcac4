//! `[syslog]` and `[netconsole]`: whether what machines say is heard.

use kiln_inventory::Netconsole;
use serde::Deserialize;
use toml::Spanned;

use super::Problems;

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
    /// Whether every kernel is told to send what it prints there.
    pub every_kernel: bool,
}

impl HearSettings {
    /// Returns where kernels are heard.
    pub fn kernels(&self) -> Option<Netconsole> {
        let everyone = self.every_kernel;
        self.netconsole.map(|port| Netconsole { port, everyone })
    }
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
pub(super) struct WireNetconsole {
    listen: bool,
    port: Option<u16>,
    every_kernel: Option<Spanned<bool>>,
}

pub(super) fn check(
    syslog: WireHear,
    netconsole: WireNetconsole,
    problems: &mut Problems,
) -> HearSettings {
    let WireNetconsole { listen, port, every_kernel } = netconsole;
    let every_kernel = every_kernel.is_some_and(|wanted| {
        if *wanted.get_ref() && !listen {
            let text = "every kernel would send what nobody hears; set `listen = true` too";
            problems.push((Some(wanted.span()), text.to_owned()));
        }
        *wanted.get_ref()
    });
    let netconsole = WireHear { listen, port }.port(NETCONSOLE);
    HearSettings { syslog: syslog.port(SYSLOG), netconsole, every_kernel }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_heard_unless_that_is_set() {
        let syslog = |text: &str| toml::from_str::<WireHear>(text).unwrap();
        let netconsole = |text: &str| toml::from_str::<WireNetconsole>(text).unwrap();
        let problems = &mut Problems::default();
        let nobody = check(syslog(""), netconsole("port = 7000"), problems);
        assert_eq!((nobody, nobody.kernels()), (HearSettings::default(), None));
        let text = "listen = true\nport = 7000\nevery-kernel = true";
        let both = check(syslog("listen = true"), netconsole(text), problems);
        assert_eq!((both.syslog, both.netconsole), (Some(514), Some(7000)));
        assert_eq!(both.kernels(), Some(Netconsole { port: 7000, everyone: true }));
        assert!(problems.is_empty());
        check(syslog(""), netconsole("every-kernel = true"), problems);
        assert!(problems[0].1.contains("nobody hears"), "{problems:?}");
    }
}
