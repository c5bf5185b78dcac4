//! One boot under way, as the tracker knows it.

use std::collections::HashMap;
use std::net::IpAddr;

use kiln_builder::hash::sha256;
use kiln_inventory::{Asker, Boot, BootEvent, BootId, OrderId, Outcome, Phase};
use kiln_types::{Digest, Mac};

use super::secret::{same, secret};
use crate::breakdown::Breakdown;
use crate::observe::COUNTS;

/// A machine that is refused asks again and again; this long it counts as the same attempt.
const REFUSED_MS: i64 = 60_000;

/// Firmware that has asked for nothing for so long has begun anew, however little it had got before.
const FORGOTTEN_MS: i64 = 600_000;
/// Addresses that are remembered of one boot.
const MOST_ADDRESSES: usize = 8;
/// Boots of one machine that scripts begin in a minute; DHCP does not tell of each where another server gives addresses.
const MOST_SCRIPTS: usize = 6;
/// Packets of DHCP of one program that are told of one boot.
const MOST_PACKETS: usize = 8;
/// Events of a boot that are remembered until it is healthy, to count what its phases took.
const MOST_COUNTED: usize = 128;

/// A boot under way.
pub(super) struct Active {
    pub(super) boot: Boot,
    /// Its address of the other version of IP, where it has got both.
    pub(super) other: Option<IpAddr>,
    /// Addresses that this server gave it while it boots.
    pub(super) given: Vec<IpAddr>,
    /// Known where this server made it; of a boot from before only the hash is.
    pub(super) secrets: Option<Secrets>,
    pub(super) token_hash: Digest,
    /// The furthest phase.
    pub(super) phase: Phase,
    /// When the firmware or the loader was seen at work for the last time.
    pub(super) loading: i64,
    /// Whether it was refused, so that nothing more is expected of it.
    pub(super) refused: bool,
    /// How often each program of the machine asked for an address, as far as that is told.
    pub(super) askers: HashMap<Asker, usize>,
    pub(super) events: usize,
    /// Its timeline until it is healthy, where this server has seen all of it.
    pub(super) timeline: Option<Vec<BootEvent>>,
    /// Whether something was noted that may be wrong.
    pub(super) warned: bool,
    /// Those among them that did not bring it further.
    pub(super) vain: usize,
    /// How often it told something besides its timeline.
    pub(super) told: usize,
    /// How often somebody was refused who was not the machine, or came too late.
    pub(super) intruders: usize,
    /// The order by which it was started, where it was.
    pub(super) order: Option<OrderId>,
    /// When its system last proved itself.
    pub(super) proven: i64,
    /// The boot that ran when somebody asked for the script of this one, until the system of this one proves itself:
    /// who asks for a script may be anybody.
    pub(super) before: Option<Box<Self>>,
    /// Whether it began by a script that was asked for.
    pub(super) by_script: bool,
    /// When scripts last began boots of the machine, and how many in that minute.
    pub(super) scripts: (i64, usize),
}

/// What the machine gets to prove itself with, by its loader and by its system.
pub(super) struct Secrets {
    pub(super) token: String,
    pub(super) key: String,
    /// Whether the token was given to the machine, so that its hash is in the inventory.
    pub(super) given: bool,
    /// How often it was given.
    pub(super) times: usize,
}

impl Active {
    /// A boot that begins.
    pub(super) fn new(boot: Boot) -> Self {
        let (token, key) = (secret(), secret());
        let token_hash = sha256(token.as_bytes());
        let loading = boot.started;
        Self {
            boot,
            other: None,
            given: Vec::new(),
            secrets: Some(Secrets { token, key, given: false, times: 0 }),
            token_hash,
            phase: Phase::Dhcp,
            loading,
            refused: false,
            askers: HashMap::new(),
            events: 0,
            timeline: Some(Vec::new()),
            warned: false,
            vain: 0,
            told: 0,
            intruders: 0,
            order: None,
            proven: 0,
            before: None,
            by_script: false,
            scripts: (0, 0),
        }
    }

    /// A boot that the server before knew. Its system has its token, so that its loader is done.
    pub(super) fn known(boot: Boot, token_hash: Digest) -> Self {
        let phase = match boot.outcome {
            Outcome::Healthy => Phase::Healthy,
            Outcome::Failed => Phase::Failed,
            Outcome::Booting | Outcome::Abandoned => Phase::Segment,
        };
        let askers = HashMap::from([(Asker::System, MOST_PACKETS)]);
        Self { secrets: None, token_hash, phase, askers, timeline: None, ..Self::new(boot) }
    }

    /// Returns whether its system runs, as far as the machine has said.
    pub(super) fn runs(&self) -> bool {
        // A loader that gave up has no system.
        (self.secrets.is_none() || self.proven > 0) && self.phase >= Phase::Init
    }

    /// Returns this boot or the one before it by its number.
    pub(super) fn find(&mut self, boot: BootId) -> Option<&mut Self> {
        if self.boot.id == boot {
            return Some(self);
        }
        self.before.as_deref_mut().filter(|before| before.boot.id == boot)
    }

    /// Returns this boot or the one before it by an address of its machine.
    pub(super) fn at(&self, peer: IpAddr) -> Option<&Self> {
        if self.is_from(peer) {
            return Some(self);
        }
        self.before.as_deref().filter(|before| before.is_from(peer))
    }

    /// Returns the boot whose system runs as far as is known: of one before, as far as it has proved since.
    pub(super) fn running(&self) -> Option<&Self> {
        let alive = |before: &&Self| before.runs() && before.proven > self.boot.started;
        match self.runs() {
            true => Some(self),
            false => self.before.as_deref().filter(alive),
        }
    }

    /// Returns the address that the machine has, that of IPv4 where it has both.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.boot.address.into_iter().chain(self.other).min()
    }

    /// Returns whether the system of this boot has what it takes to prove itself.
    pub(super) fn may_run(&self) -> bool {
        self.secrets.as_ref().is_none_or(|secrets| secrets.given)
    }

    /// Counts a script that begins a boot, and returns whether there were too many in the last minute.
    pub(super) const fn begins_too_often(&mut self, at: i64) -> bool {
        if at - self.scripts.0 > 60_000 {
            self.scripts = (at, 0);
        }
        self.scripts.1 += 1;
        self.scripts.1 > MOST_SCRIPTS
    }

    /// Counts a packet of DHCP, and returns whether it is told: each where it is known what it was, else the first.
    pub(super) fn tells_of(&mut self, asker: Asker, in_detail: bool) -> bool {
        let told = self.askers.entry(asker).or_default();
        let most = if in_detail { MOST_PACKETS } else { 1 };
        let tells = *told < most;
        *told += usize::from(tells);
        tells
    }

    /// Takes an event into the timeline. That of a boot that is healthy is counted, by what its phases took; that of one
    /// that fails, or goes on for long, is not kept in memory.
    pub(super) fn tells(&mut self, event: &BootEvent) {
        let Some(timeline) = &mut self.timeline else { return };
        if self.boot.outcome == Outcome::Failed || timeline.len() >= MOST_COUNTED {
            self.timeline = None;
            return;
        }
        timeline.push(event.clone());
        if self.boot.outcome == Outcome::Healthy {
            if let Some(arch) = self.boot.arch {
                COUNTS.phases.observe(arch, &Breakdown::of(&self.boot, timeline));
            }
            self.timeline = None;
        }
    }

    pub(super) fn knows(&self, token: &str) -> bool {
        same(&self.token_hash.hex(), &sha256(token.as_bytes()).hex())
    }

    /// Notes an address that the machine was given, and returns whether it is the one that the boot is told by. That
    /// one stays with the version of IP that the loader fetches by, whatever the system asks for besides.
    pub(super) fn takes(&mut self, address: IpAddr) -> bool {
        match self.boot.address {
            Some(known) if known.is_ipv4() != address.is_ipv4() => {
                self.other = Some(address);
                false
            }
            known => {
                self.boot.address = Some(address);
                known != Some(address)
            }
        }
    }

    /// Notes that this server gave it an address.
    pub(super) fn was_given(&mut self, address: IpAddr) {
        if self.given.len() < MOST_ADDRESSES && !self.given.contains(&address) {
            self.given.push(address);
        }
    }

    /// Notes the address that the loader fetches from.
    pub(super) fn fetches_from(&mut self, peer: IpAddr) {
        if let Some(known) = self.boot.address.replace(peer)
            && known.is_ipv4() != peer.is_ipv4()
        {
            self.other = Some(known);
        }
    }

    /// Returns whether an address is not that of the machine, as far as is known.
    pub(super) fn is_anothers(&self, peer: IpAddr) -> bool {
        let same_kind = self.boot.address.is_some_and(|own| own.is_ipv4() == peer.is_ipv4());
        same_kind && !self.is_from(peer)
    }

    /// Returns whether a request comes from the machine: from an address that it was given, or one that it made itself
    /// of a prefix of its router's and its hardware address.
    pub(super) fn is_from(&self, peer: IpAddr) -> bool {
        let made = |address| Mac::from_eui64(address) == Some(self.boot.mac);
        self.boot.address == Some(peer)
            || self.other == Some(peer)
            || self.given.contains(&peer)
            || matches!(peer, IpAddr::V6(peer) if made(peer))
    }
}

/// Returns whether a DHCP packet begins another boot than the one that is known.
pub(super) fn begins_anew(active: &Active, at: i64, asker: Asker, fresh: bool) -> bool {
    if active.refused && at - active.boot.started < REFUSED_MS {
        return false;
    }
    match asker {
        // One that got no loader tries again and again; that is one boot.
        Asker::Firmware => {
            fresh && (active.phase > Phase::Dhcp || at - active.loading > FORGOTTEN_MS)
        }
        // iPXE in the ROM of the network card asks first and alone; after a loader it asks once more.
        Asker::Ipxe => fresh && (active.phase >= Phase::Kernel || active.boot.ended.is_some()),
        Asker::System => false,
    }
}
