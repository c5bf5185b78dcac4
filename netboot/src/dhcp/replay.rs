//! Plays what real firmware sent (`tests/fixtures/firmware-packets`) into the engine.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use kiln_inventory::{
    Artifact, ImageVersion, Machine, MachineId, NewMachine, Snapshot, UnknownMachines,
};
use kiln_ipxe::Endpoints;
use kiln_types::{Arch, Digest, Mac};

use super::engine::{Change, Outcome, View, respond, silent};
use super::leases::{LeaseTable, Timestamp};
use super::proxy::respond_4011;
use super::rules::Rules;
use super::select::{Known, Site, select};
use super::subnet::{Role, Subnet};
use super::wire::Request;
use super::{Reply, option};

pub(super) const RECORDED: &str =
    include_str!("../../../tests/fixtures/firmware-packets/packets.jsonl");

/// One packet that a client sent to port 67 or 4011.
pub(super) struct Recorded {
    pub(super) recording: String,
    pub(super) seconds: f64,
    pub(super) port: u64,
    pub(super) bytes: Vec<u8>,
}

/// Reads hexadecimal digits.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let byte = |pair: &[u8]| u8::from_str_radix(str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(byte).collect()
}

pub(super) fn packets() -> Vec<Recorded> {
    let parse = |line: &str| {
        let packet: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| packet[key].as_str().unwrap().to_owned();
        let client = text("mac").starts_with("52:54:00:77:");
        (client && text("kind") == "dhcp4").then(|| Recorded {
            recording: text("file"),
            seconds: packet["t"].as_f64().unwrap(),
            port: packet["dport"].as_u64().unwrap(),
            bytes: bytes(&text("hex")),
        })
    };
    RECORDED.lines().filter_map(parse).collect()
}

/// Returns how often each recorded packet is damaged anew. `./dev fuzz` asks for more than a test does.
pub(crate) fn rounds(usual: usize) -> usize {
    std::env::var("KILN_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(usual)
}

/// A generator that always draws the same numbers (xorshift64*).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes()[0]
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        let number = (0..4).fold(0, |number, _| number << 8 | usize::from(self.byte()));
        number.checked_rem(end).unwrap_or(0)
    }
}

/// A subnet like the one of the recordings, and three machines with one image for both architectures.
pub(super) struct World {
    pub(super) subnet: Subnet,
    pub(super) snapshot: Snapshot,
    pub(super) leases: LeaseTable,
    pub(super) endpoints: Endpoints,
}

/// What is known: these machines, and an image that they may boot.
pub(super) fn snapshot(machines: Vec<Arc<Machine>>) -> Snapshot {
    let artifact = |name: &str| Artifact {
        name: name.to_owned(),
        digest: Digest::from_bytes([7; 32]),
        size: 1,
    };
    let version = Arc::new(ImageVersion {
        version: Digest::from_bytes([9; 32]),
        kernel: artifact("kernel"),
        efi_stub: true,
        segments: vec![artifact("init")],
        cmdline: String::new(),
    });
    let versions = Arch::ALL.map(|arch| (arch, Arc::clone(&version)));
    let images = BTreeMap::from([("demo".parse().unwrap(), BTreeMap::from(versions))]);
    Snapshot::new(machines, images, UnknownMachines::Ignore)
}

impl World {
    pub(super) fn new() -> Self {
        let address = Ipv4Addr::new(10, 77, 0, 1);
        // The addresses that the clients had when they were recorded: their requests name them.
        let machines = [(1, "bios", 199), (2, "ovmf", 200), (3, "aavmf", 100)];
        let machine = |(last, name, address): (u8, &str, u8)| {
            Arc::new(Machine {
                id: MachineId(last.into()),
                revision: 1,
                spec: NewMachine {
                    image: Some("demo".parse().unwrap()),
                    address: Some([10, 77, 0, address].into()),
                    ..NewMachine::new(name, [Mac::new([0x52, 0x54, 0, 0x77, 0, last])])
                },
            })
        };
        Self {
            subnet: Subnet {
                network: "10.77.0.0/24".parse().unwrap(),
                interface: "lan0".to_owned(),
                address,
                role: Role::Server,
                relayed: false,
                pool: vec![[10, 77, 0, 50].into()..=[10, 77, 0, 250].into()],
                router: vec![[10, 77, 0, 254].into()],
                dns: vec![[10, 77, 0, 253].into()],
                domain: Some("example.org".to_owned()),
                lease_time: Duration::from_secs(3600),
                rules: Rules::default(),
            },
            snapshot: snapshot(machines.map(machine).to_vec()),
            leases: LeaseTable::default(),
            endpoints: Endpoints::new(address, 8080),
        }
    }

    fn view(&self) -> View<'_> {
        View {
            subnet: &self.subnet,
            snapshot: &self.snapshot,
            leases: &self.leases,
            endpoints: &self.endpoints,
        }
    }

    /// Answers a request to port 4011.
    pub(super) fn respond_4011(&self, request: &Request, from: SocketAddrV4) -> Outcome {
        respond_4011(request, &self.view(), from)
    }

    /// Answers a request and takes in what follows from it, as the server does.
    pub(super) fn respond(&mut self, request: &Request, now: Timestamp) -> Outcome {
        let site = Site { subnet: self.subnet.clone(), endpoints: self.endpoints };
        let known = Known { snapshot: &self.snapshot, leases: &self.leases, now };
        let outcome = match select(&[site], request, Ipv4Addr::UNSPECIFIED, known) {
            Ok(_) => respond(request, &self.view(), now),
            Err(note) => silent(note),
        };
        match outcome.change {
            Some(Change::Hold(address)) => self.leases.hold(address, request.mac, now),
            Some(Change::DropHold) => self.leases.drop_hold(request.mac),
            Some(Change::Quarantine(address)) => self.leases.quarantine(address, now),
            Some(Change::Full(network)) => self.leases.ours.note_full(network.to_bits(), now),
            None => {}
        }
        if let Some(lease) = outcome.lease.clone() {
            self.leases.insert(lease);
        }
        outcome
    }
}

/// Reads the options of a reply that we encoded.
pub(super) fn options(bytes: &[u8]) -> BTreeMap<u8, Vec<u8>> {
    let mut options = BTreeMap::new();
    let mut rest = &bytes[240..];
    while rest[0] != option::END {
        if rest[0] == option::PAD {
            rest = &rest[1..];
            continue;
        }
        let end = 2 + usize::from(rest[1]);
        options.insert(rest[0], rest[2..end].to_vec());
        rest = &rest[end..];
    }
    options
}

pub(super) fn describe(reply: &Reply) -> String {
    let bytes = reply.encode().unwrap();
    let mut out = format!(
        "    {:?} to {}, {} bytes: yiaddr {} siaddr {} file {:?}\n",
        reply.kind,
        reply.to,
        bytes.len(),
        reply.yiaddr,
        reply.siaddr,
        reply.file
    );
    for (code, value) in options(&bytes) {
        let text =
            str::from_utf8(&value).ok().filter(|t| t.bytes().all(|b| (32..127).contains(&b)));
        let _ = match text.filter(|_| matches!(code, 12 | 15 | 60 | 66 | 67)) {
            Some(text) => writeln!(out, "      {code:3} {text:?}"),
            None => writeln!(out, "      {code:3} {value:02x?}"),
        };
    }
    out
}

#[test]
fn recorded_firmware_gets_what_it_needs() {
    let mut out = String::new();
    let mut recording = String::new();
    let mut world = World::new();
    for packet in packets() {
        if packet.recording != recording {
            recording.clone_from(&packet.recording);
            let _ = writeln!(out, "== {recording}");
            world = World::new();
        }
        let request = Request::decode(&packet.bytes).unwrap();
        let _ = write!(out, "{:6.3} {} {:?}", packet.seconds, request.mac, request.kind);
        if packet.port != 67 {
            let _ = writeln!(out, " to port {}, which is not served", packet.port);
            continue;
        }
        let outcome = world.respond(&request, Timestamp(1_800_000_000));
        let seen = outcome.sighting.as_ref();
        let firmware = seen.and_then(|s| s.firmware).map(|f| f.to_string());
        let _ = writeln!(
            out,
            " {} {}: {}",
            seen.map_or_else(|| "-".to_owned(), |s| format!("{:?}", s.asker)),
            firmware.as_deref().unwrap_or("-"),
            outcome.note
        );
        if let Some(reply) = &outcome.reply {
            out.push_str(&describe(reply));
        }
    }
    insta::assert_snapshot!(out);
}
