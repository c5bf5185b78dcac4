//! Many machines that are not there, booting from a server that is: to see how long a rack takes, and what breaks first.
//!
//! ```text
//!  firmware ─▶ DHCP ─▶ loader by TFTP ─▶ iPXE ─▶ DHCP ─▶ script by HTTP ─▶ kernel and segments by HTTP
//! ```
//!
//! Each machine has a hardware address of its own and asks from the address that it is given. Questions and answers of
//! DHCP are composed and read by another library than the server's ([`crate::dhcp::client`]).

mod chance;
mod fetch;
mod machine;
mod place;
mod report;
mod wire;

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use kiln_types::Mac;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::chance::Chance;
use self::machine::Machine;
pub use self::place::PlaceError;
pub use self::report::{Quantiles, Report};
use self::wire::Wire;
use crate::net::Addresses;

/// Most machines of one run.
pub const MOST: u32 = 100_000;

/// How the machines reach the server.
#[derive(Clone, Debug)]
pub enum Way {
    /// By broadcasts on an interface, as firmware does.
    Wire {
        /// The interface.
        interface: String,
    },
    /// As if a relay passed their packets on.
    Relay {
        /// Our own address, which stands for the relay.
        own: Ipv4Addr,
        /// The server.
        server: Ipv4Addr,
    },
}

/// How far machines boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Until {
    /// They have an address.
    Address,
    /// They have their script.
    Script,
    /// They have every file that the script names.
    Files,
}

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How many machines.
    pub machines: u32,
    /// Hardware address of the first; the others follow.
    pub first: Mac,
    /// How they reach the server.
    pub way: Way,
    /// How far they boot.
    pub until: Until,
    /// They are switched on one after the other over this time.
    pub spread: Duration,
    /// How long one waits for an answer of DHCP in all.
    pub patience: Duration,
    /// Packets of DHCP in a hundred that are lost, in each direction.
    pub loss: u8,
    /// Machines in a hundred that lose power on their way.
    pub vanish: u8,
    /// What the faults depend on.
    pub seed: u64,
    /// Whether it may run outside of a network of its own.
    pub anywhere: bool,
}

/// Nothing can be simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// This is no place for it.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// No packets can be sent.
    #[error(
        "cannot send and hear DHCP; run as root, and see that no DHCP client or server of this host has the port"
    )]
    Wire(#[source] io::Error),
    /// No addresses can be taken.
    #[error("the machines cannot have addresses; run as root, or end with `--until address`")]
    Addresses(#[source] io::Error),
}

/// Boots the machines, all at once or over a time, and returns when each has ended in some way.
///
/// # Errors
///
/// When it cannot begin. What fails for a machine is in the report.
pub async fn run(plan: Plan) -> Result<Report, SimulateError> {
    let interface = place::interface(&plan.way)?;
    if !plan.anywhere {
        place::check(&interface)?;
    }
    let wire = Arc::new(Wire::open(&plan.way, plan.loss).map_err(SimulateError::Wire)?);
    let addresses = match plan.until {
        Until::Address => None,
        _ => Some(Addresses::on(&interface).map_err(SimulateError::Addresses)?),
    };
    let addresses = Arc::new(addresses);
    let listening = tokio::spawn(Arc::clone(&wire).listen());
    let begun = Instant::now();
    let mut booting = JoinSet::new();
    let plan = Arc::new(plan);
    for number in 0..plan.machines {
        let wait = plan.spread * number / plan.machines.max(1);
        let machine = Machine {
            mac: nth(plan.first, number),
            number,
            plan: Arc::clone(&plan),
            wire: Arc::clone(&wire),
            addresses: Arc::clone(&addresses),
            chance: Chance::new(plan.seed, number),
        };
        booting.spawn(async move {
            tokio::time::sleep_until(begun + wait).await;
            machine.boot().await
        });
    }
    let mut boots = Vec::new();
    while let Some(boot) = booting.join_next().await {
        // A task that panicked has printed why; it counts as one that has failed.
        boots.push(boot.unwrap_or_default());
    }
    listening.abort();
    Ok(report::sum(&boots, begun.elapsed(), wire.counts()))
}

/// Returns the hardware address so many after the first.
fn nth(first: Mac, number: u32) -> Mac {
    let [a, b, c, d, e, f] = first.octets();
    let [_, d, e, f] = u32::from_be_bytes([0, d, e, f]).wrapping_add(number).to_be_bytes();
    Mac::new([a, b, c, d, e, f])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_follow_each_other() {
        let first = Mac::new([2, 0, 0, 0, 0, 0xff]);
        assert_eq!(nth(first, 0), first);
        assert_eq!(nth(first, 1), Mac::new([2, 0, 0, 0, 1, 0]));
        assert_eq!(nth(first, 0x00ff_ff01), Mac::new([2, 0, 0, 0, 0, 0]));
    }
}
