//! Tells the others what DHCP sees.

use kiln_inventory::{Decision, Place, Sighting};

use crate::boots::{Boots, Exchange};
use crate::dhcp;
use crate::discovery::Discovery;

/// What DHCP sees goes to the boot tracker.
pub(super) struct Watcher(pub(super) Boots, pub(super) Discovery);

impl dhcp::Observer for Watcher {
    fn seen(&self, sighting: &Sighting, decision: Option<&Decision>, event: dhcp::DhcpEvent) {
        let fresh = event.kind == Some(dhcp::ReplyKind::Offer);
        // Without a machine there is no boot that it could be about.
        let decision = decision.filter(|decision| decision.machine.is_some());
        let answer = event.kind.map(dhcp::ReplyKind::as_str);
        let exchange = Exchange { asked: event.asked.as_str(), answer, note: event.note.as_str() };
        let address = event.address.map(Into::into);
        self.0.exchanged(sighting, decision, fresh, address, Some(exchange));
    }

    fn unknown(&self, sighting: &Sighting, place: Place) {
        self.1.seen(sighting, place);
    }
}
