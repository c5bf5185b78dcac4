//! `netconsole=` on the kernel's command line, where netconsole is a module: the kernel reads it only for what is built
//! in. It is loaded once there is a network, so that its card and its address are there.

use std::ffi::CString;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{SockaddrIn, SockaddrIn6};

use crate::cmdline::CommandLine;
use crate::console::say;
use crate::modules::Loader;

const MODULE: &str = "netconsole";

/// Returns which of the modules of an image are loaded with those for its hardware.
pub(crate) fn without(modules: &[String], line: &CommandLine) -> Vec<String> {
    let later = |name: &String| line.netconsole.is_some() && name == MODULE;
    modules.iter().filter(|name| !later(name)).cloned().collect()
}

/// Loads it with what the command line says, if the image has it.
pub(crate) fn start(line: &CommandLine, loader: &mut Loader) {
    let Some(wanted) = &line.netconsole else { return };
    let wanted = with_card(wanted, card_with);
    let Ok(options) = CString::new(format!("{MODULE}={wanted}")) else { return };
    match loader.load_with(MODULE, &options) {
        None => {}
        Some(Ok(())) => say(&format!("the kernel's messages go out: {wanted}")),
        Some(Err(error)) => say(&format!("the kernel's messages do not go out: {error}")),
    }
}

/// Names the card, where that is left out and the address says which one it is; the kernel would take `eth0`.
fn with_card(wanted: &str, card_with: impl Fn(IpAddr) -> Option<String>) -> String {
    let named = || {
        let (before, rest) = wanted.split_once('@')?;
        let (address, rest) = rest.split_once('/')?;
        let rest = rest.strip_prefix(',')?;
        let card = card_with(address.parse().ok()?)?;
        Some(format!("{before}@{address}/{card},{rest}"))
    };
    named().unwrap_or_else(|| wanted.to_owned())
}

fn card_with(address: IpAddr) -> Option<String> {
    let found = getifaddrs().ok()?.find(|interface| {
        let own = interface.address.as_ref();
        let own4 = own.and_then(|own| own.as_sockaddr_in()).map(SockaddrIn::ip).map(IpAddr::from);
        let own6 = own.and_then(|own| own.as_sockaddr_in6()).map(SockaddrIn6::ip).map(IpAddr::from);
        own4.or(own6) == Some(address)
    });
    found.map(|interface| interface.interface_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_card_is_that_of_the_address() {
        let cards =
            |address: IpAddr| (address == IpAddr::from([10, 0, 0, 9])).then(|| "enp1s0".to_owned());
        for (wanted, expected) in [
            ("@10.0.0.9/,6666@10.0.0.1/", "@10.0.0.9/enp1s0,6666@10.0.0.1/"),
            ("+5@10.0.0.9/,6666@10.0.0.1/", "+5@10.0.0.9/enp1s0,6666@10.0.0.1/"),
            ("@10.0.0.9/eth1,6666@10.0.0.1/", "@10.0.0.9/eth1,6666@10.0.0.1/"),
            ("@10.0.0.8/,6666@10.0.0.1/", "@10.0.0.8/,6666@10.0.0.1/"),
            ("@/,6666@10.0.0.1/", "@/,6666@10.0.0.1/"),
            ("nonsense", "nonsense"),
            ("", ""),
        ] {
            assert_eq!(with_card(wanted, cards), expected);
        }
    }

    #[test]
    fn it_waits_for_the_network_only_where_it_is_told_where_to_send() {
        let modules = ["dummy", "netconsole"].map(str::to_owned);
        let told = CommandLine::parse("netconsole=@/,6666@10.0.0.1/");
        assert_eq!(without(&modules, &told), ["dummy"]);
        for line in ["", "netconsole="] {
            assert_eq!(without(&modules, &CommandLine::parse(line)), modules);
        }
    }
}
