//! Plays what real firmware and iPXE sent by DHCPv6 (`tests/fixtures/firmware-packets`) into the engine, and damages it.

use super::option;
use super::world::{NOW, World, option as of, options};
use crate::dhcp::Timestamp;
use crate::dhcp::replay::{RECORDED, Random, bytes, rounds};

/// One packet that a client sent to port 547.
pub(super) struct Recorded {
    recording: String,
    pub(super) from: String,
    pub(super) bytes: Vec<u8>,
}

pub(super) fn packets() -> Vec<Recorded> {
    let parse = |line: &str| {
        let packet: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |key: &str| packet[key].as_str().unwrap().to_owned();
        let client = packet["dport"].as_u64() == Some(547);
        (client && text("kind") == "dhcp6").then(|| {
            let octets: [u8; 16] = bytes(&text("src")).try_into().unwrap();
            let from = std::net::Ipv6Addr::from(octets).to_string();
            Recorded { recording: text("file"), from, bytes: bytes(&text("hex")) }
        })
    };
    RECORDED.lines().filter_map(parse).collect()
}

/// Puts our name in the place of the server's that was recorded.
pub(super) fn for_us(packet: &[u8], world: &World) -> Vec<u8> {
    let mut all = packet[..4].to_vec();
    for (code, value) in options(&packet[4..]) {
        let ours = code == option::SERVER_ID;
        let value = if ours { world.server.as_bytes().to_vec() } else { value };
        all.extend(code.to_be_bytes());
        all.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
        all.extend(value);
    }
    all
}

#[test]
fn recorded_firmware_is_answered_at_every_step() {
    let (mut lines, mut world, mut last) = (Vec::new(), World::new(), String::new());
    for recorded in packets() {
        if recorded.recording != last {
            (last, world) = (recorded.recording.clone(), World::new());
            lines.push(format!("{last}:"));
        }
        let packet = for_us(&recorded.bytes, &world);
        let outcome = world.take(&packet, &recorded.from, NOW).expect("it is a request");
        let url = outcome.reply.as_ref().and_then(|_| of(&outcome, option::BOOT_FILE_URL));
        let url = url.map(|url| String::from_utf8(url).unwrap()).unwrap_or_default();
        let asker = outcome.sighting.map(|sighting| {
            let firmware = sighting.firmware.map(|firmware| firmware.to_string());
            format!("{:?} {}", sighting.asker, firmware.unwrap_or_default())
        });
        let address = outcome.address.map(|address| address.to_string()).unwrap_or_default();
        let asker = asker.unwrap_or_default();
        let line = format!("  {} | {asker} | {address} {url}", outcome.note);
        lines.push(line.trim_end().to_owned());
    }
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn no_damage_to_recorded_packets_makes_the_engine_panic_or_its_reply_grow() {
    let mut random = Random::new(0x6b69_6c6e_0006);
    let mut answered = 0;
    for recorded in packets() {
        let mut world = World::new();
        let whole = for_us(&recorded.bytes, &world);
        for round in 0..rounds(300) {
            let mut bytes = whole.clone();
            for _ in 0..random.below(6) {
                let at = random.below(bytes.len());
                bytes[at] = random.byte();
            }
            // Parts twice, parts left out, and relays around it.
            if random.below(4) == 0 {
                let (from, to) = (random.below(bytes.len()), random.below(bytes.len()));
                let part = bytes[from.min(to)..from.max(to)].to_vec();
                let at = random.below(bytes.len());
                bytes.splice(at..at, part);
            }
            for _ in 0..random.below(12) {
                if random.below(3) > 0 {
                    continue;
                }
                let mut relay = vec![12, random.byte()];
                relay.extend((0..32).map(|_| random.byte()));
                relay.extend([0, 9]);
                relay.extend(u16::try_from(bytes.len()).unwrap().to_be_bytes());
                relay.extend(&bytes);
                bytes = relay;
            }
            bytes.truncate(random.below(bytes.len() * 2).max(1));
            let now = Timestamp(NOW.0 + i64::try_from(round).unwrap());
            if let Some(outcome) = world.take(&bytes, &recorded.from, now)
                && let Some(reply) = &outcome.reply
            {
                answered += 1;
                assert!(reply.encode().len() < 8 * 1024);
                assert!(outcome.leases.iter().all(|lease| world.subnet.may_give(lease.address)));
            }
        }
    }
    assert!(answered > 0, "the damage is not such that nothing is left to answer");
}
