//! `netconsole` among the kernel's arguments: the kernel sends what it prints to this server, up to its last words.
//!
//! Who wants it writes the word alone, in the arguments of a machine, a group or an image; or the site says so for all.
//! The decision makes of it what the kernel reads, with places for the addresses, which are filled in when somebody
//! fetches his arguments: by then both are known.

use std::net::IpAddr;

use serde::Serialize;

const WORD: &str = "netconsole";
const BEFORE: &str = "netconsole=@/,";
const AFTER: &str = "@/";

/// Where this server hears what kernels print, and whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Netconsole {
    /// UDP port.
    pub port: u16,
    /// Whether every machine is to send it, and not only those whose arguments say so.
    pub everyone: bool,
}

/// What becomes of the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wish {
    /// Nobody wants it, or somebody says himself where it goes.
    Nothing,
    /// It goes to this port of the server.
    To(u16),
    /// It is wanted, and the server does not hear it.
    Unheard,
}

/// Puts in the place of the word what the kernel reads, and says what it found.
pub(crate) fn settle(arguments: &str, server: Option<Netconsole>) -> (String, Wish) {
    let mut words: Vec<String> = arguments.split_whitespace().map(str::to_owned).collect();
    // Whoever gives it a value knows where it is to go; an empty one is nowhere.
    if words.iter().any(|word| word.starts_with("netconsole=")) {
        words.retain(|word| word != WORD);
        return (words.join(" "), Wish::Nothing);
    }
    let asked = words.iter().any(|word| word == WORD);
    if !asked && !server.is_some_and(|server| server.everyone) {
        return (arguments.to_owned(), Wish::Nothing);
    }
    words.retain(|word| word != WORD);
    let wish = match server {
        Some(Netconsole { port, .. }) => {
            words.push(format!("{BEFORE}{port}{AFTER}"));
            Wish::To(port)
        }
        None => Wish::Unheard,
    };
    (words.join(" "), wish)
}

/// Fills in the addresses that the kernel is to send from and to. Where its own is not known, the kernel takes the one
/// that its card has by then.
pub fn fill_netconsole(arguments: &str, own: Option<IpAddr>, server: IpAddr) -> String {
    let port = |word: &str| {
        let port = word.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
        port.parse::<u16>().ok()
    };
    if !arguments.split_whitespace().any(|word| port(word).is_some()) {
        return arguments.to_owned();
    }
    let (own, server) = (own.map(|own| own.to_canonical()), server.to_canonical());
    let own = own.filter(|own| own.is_ipv4() == server.is_ipv4());
    let own = own.map_or_else(String::new, |own| own.to_string());
    let filled = arguments.split_whitespace().map(|word| match port(word) {
        Some(port) => format!("netconsole=@{own}/,{port}@{server}/"),
        None => word.to_owned(),
    });
    filled.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEARS: Option<Netconsole> = Some(Netconsole { port: 6666, everyone: false });
    const ALL: Option<Netconsole> = Some(Netconsole { port: 7000, everyone: true });

    #[test]
    fn the_word_becomes_what_the_kernel_reads() {
        for (arguments, server, expected, wish) in [
            ("quiet  netconsole", HEARS, "quiet netconsole=@/,6666@/", Wish::To(6666)),
            ("netconsole a netconsole", HEARS, "a netconsole=@/,6666@/", Wish::To(6666)),
            ("quiet", HEARS, "quiet", Wish::Nothing),
            ("quiet", ALL, "quiet netconsole=@/,7000@/", Wish::To(7000)),
            ("", ALL, "netconsole=@/,7000@/", Wish::To(7000)),
            ("a netconsole", None, "a", Wish::Unheard),
            ("a", None, "a", Wish::Nothing),
            (
                "netconsole=@/eth1,1@10.9.9.9/ b",
                ALL,
                "netconsole=@/eth1,1@10.9.9.9/ b",
                Wish::Nothing,
            ),
            ("netconsole netconsole=", ALL, "netconsole=", Wish::Nothing),
        ] {
            assert_eq!(settle(arguments, server), (expected.to_owned(), wish), "{arguments}");
        }
    }

    #[test]
    fn addresses_are_filled_in_where_they_are_left_out() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let fill = |own: Option<&str>, server: &str| {
            fill_netconsole("quiet netconsole=@/,6666@/ x=y", own.map(ip), ip(server))
        };
        let expected = "quiet netconsole=@10.0.0.9/,6666@10.0.0.1/ x=y";
        assert_eq!(fill(Some("10.0.0.9"), "10.0.0.1"), expected);
        assert_eq!(fill(Some("::ffff:10.0.0.9"), "10.0.0.1"), expected);
        assert_eq!(
            fill(Some("fd00::9"), "fd00::1"),
            "quiet netconsole=@fd00::9/,6666@fd00::1/ x=y"
        );
        let unknown = "quiet netconsole=@/,6666@10.0.0.1/ x=y";
        assert_eq!(fill(None, "10.0.0.1"), unknown);
        assert_eq!(fill(Some("fd00::9"), "10.0.0.1"), unknown);
        let own = "a  netconsole=@/eth0,6666@10.9.9.9/";
        assert_eq!(fill_netconsole(own, Some(ip("10.0.0.9")), ip("10.0.0.1")), own);
    }
}
