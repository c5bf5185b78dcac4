//! Where machines may be simulated: where nobody lives whose network a thousand machines could disturb.

use std::io;
use std::path::Path;

use super::Way;
use crate::net::links;

/// This is no place for it.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Others may be on the network.
    #[error(
        "{0} may be a network that others use: machines would take its addresses, and its server would remember them; \
         run in a network namespace (`unshare --net`), on lo, or say --yes"
    )]
    Others(String),
    /// No interface has the address.
    #[error("no interface of this host has the address {0} of --relay")]
    NoAddress(std::net::Ipv4Addr),
    /// The interfaces cannot be listed.
    #[error("cannot list the interfaces of this host")]
    Links(#[source] io::Error),
}

/// Returns the interface by which the machines are reached.
pub(super) fn interface(way: &Way) -> Result<String, PlaceError> {
    match way {
        Way::Wire { interface } => Ok(interface.clone()),
        Way::Relay { own, .. } => links()
            .map_err(PlaceError::Links)?
            .into_iter()
            .find(|link| link.addresses.iter().any(|(address, _)| address == own))
            .map(|link| link.name)
            .ok_or(PlaceError::NoAddress(*own)),
    }
}

/// Refuses all but the loopback interface and namespaces other than the one in which the host was started.
pub(super) fn check(interface: &str) -> Result<(), PlaceError> {
    let space = |process: &str| std::fs::read_link(Path::new("/proc").join(process).join("ns/net"));
    let apart = match (space("thread-self"), space("1")) {
        (Ok(own), Ok(first)) => own != first,
        // Only root sees the one of process 1; who cannot see it cannot tell.
        _ => false,
    };
    if apart || interface == "lo" { Ok(()) } else { Err(PlaceError::Others(interface.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interface_of_the_host_is_refused() {
        assert!(check("lo").is_ok());
        let own = std::net::Ipv4Addr::LOCALHOST;
        assert_eq!(interface(&Way::Relay { own, server: own }).unwrap(), "lo");
        let own = std::net::Ipv4Addr::new(192, 0, 2, 77);
        let error = interface(&Way::Relay { own, server: own }).unwrap_err();
        assert!(matches!(error, PlaceError::NoAddress(_)));
    }
}
