//! What a person or a boot loader says on the kernel's command line: `kiln.NAME=VALUE`. docs/boot.md has the list.

use std::time::Duration;

use crate::power::Then;

/// How long the boot waits for an address before it goes on without.
const NETWORK_WAIT: Duration = Duration::from_secs(60);
/// Nobody waits longer.
const LONGEST_WAIT: u64 = 24 * 3600;

/// What is said there.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CommandLine {
    pub(crate) hostname: Option<String>,
    /// Modules to load besides those of the image.
    pub(crate) modules: Vec<String>,
    pub(crate) network_wait: Duration,
    /// What is done with a machine that cannot come up.
    pub(crate) when_hopeless: Option<Then>,
    /// Whether a machine with a screen shows its state there.
    pub(crate) has_screen: bool,
    /// Where the kernel is to send what it prints.
    pub(crate) netconsole: Option<String>,
    /// What begins like one of ours and is none.
    pub(crate) unknown: Vec<String>,
}

impl CommandLine {
    pub(crate) fn read() -> Self {
        Self::parse(&std::fs::read_to_string("/proc/cmdline").unwrap_or_default())
    }

    pub(crate) fn parse(line: &str) -> Self {
        let mut said = Self {
            hostname: None,
            modules: Vec::new(),
            network_wait: NETWORK_WAIT,
            when_hopeless: None,
            has_screen: true,
            netconsole: None,
            unknown: Vec::new(),
        };
        for word in line.split_ascii_whitespace() {
            if let Some(wanted) = word.strip_prefix("netconsole=") {
                said.netconsole = Some(wanted.to_owned()).filter(|wanted| !wanted.is_empty());
            }
            let Some(ours) = word.strip_prefix("kiln.") else { continue };
            match ours.split_once('=') {
                Some(("hostname", name)) if !name.is_empty() => {
                    said.hostname = Some(name.to_owned());
                }
                Some(("modules", names)) => {
                    let names = names.split(',').filter(|name| !name.is_empty());
                    said.modules.extend(names.map(str::to_owned));
                }
                Some(("network-wait", seconds)) if seconds.parse::<u64>().is_ok() => {
                    let seconds = seconds.parse().unwrap_or(0).min(LONGEST_WAIT);
                    said.network_wait = Duration::from_secs(seconds);
                }
                Some(("on-failure", "halt")) => said.when_hopeless = Some(Then::PowerOff),
                Some(("on-failure", "reboot")) => said.when_hopeless = Some(Then::Reboot),
                Some(("screen", word @ ("on" | "off"))) => said.has_screen = word == "on",
                _ => said.unknown.push(word.to_owned()),
            }
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_is_taken_and_what_only_looks_like_it_is_named() {
        let said = CommandLine::parse(
            "console=ttyS0 kiln.hostname=n1 kiln.modules=dummy,,tun kiln.network-wait=5 kiln.colour=red kiln.hostname= quiet\n",
        );
        assert_eq!(said.hostname.as_deref(), Some("n1"));
        assert_eq!(said.modules, ["dummy", "tun"]);
        assert_eq!(said.network_wait, Duration::from_secs(5));
        assert_eq!(said.unknown, ["kiln.colour=red", "kiln.hostname="]);
    }

    #[test]
    fn what_is_done_with_a_machine_that_cannot_come_up_is_one_of_two_words() {
        let then = |text: &str| CommandLine::parse(text).when_hopeless;
        assert_eq!(then("kiln.on-failure=reboot"), Some(Then::Reboot));
        assert_eq!(then("kiln.on-failure=halt"), Some(Then::PowerOff));
        assert_eq!(then("kiln.on-failure=panic"), None);
        assert!(CommandLine::parse("quiet").has_screen);
        assert!(!CommandLine::parse("kiln.screen=off").has_screen);
    }

    #[test]
    fn a_wait_is_a_number_of_seconds_and_no_more_than_a_day() {
        let wait = |text: &str| CommandLine::parse(text).network_wait.as_secs();
        assert_eq!(wait("kiln.network-wait=0"), 0);
        assert_eq!(wait("kiln.network-wait=18446744073709551615"), LONGEST_WAIT);
        assert_eq!(wait("kiln.network-wait=soon"), 60);
    }

    #[test]
    fn fuzzed_command_lines_are_read_whatever_they_say() {
        let sample = b"console=ttyS0 kiln.hostname=n1 kiln.modules=dummy,,tun kiln.network-wait=5 kiln.on-failure=halt";
        kiln_fuzz::check("init-cmdline", &[sample], |bytes| {
            CommandLine::parse(&String::from_utf8_lossy(bytes));
        });
    }
}
