//! Recognises a box: its network cards change, boards are exchanged, and much firmware tells numbers that it shares with
//! thousands of others.
//!
//! What is alike counts points, as in Digital Rebar: 100 of them are a match, and fewer are worth a question. Nothing is
//! ever done because of points alone.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::{self, Write as _};

use kiln_types::Mac;
use kiln_types::facts::Facts;
use serde::{Deserialize, Serialize};

use crate::NewMachine;

/// Points of what is alike.
const UUID: u32 = 50;
const SERIAL: u32 = 25;
const ASSET_TAG: u32 = 25;
/// The most points of network cards and of memory modules: for all of them.
const ALL: usize = 100;
/// As many points are a match.
const MATCH: u32 = 100;
/// The longest text that can name one box.
const MAX_TEXT: usize = 128;
/// The most machines that are compared for one sighting, and the most likenesses that are told.
const MAX_COMPARED: usize = 64;
const MAX_TOLD: usize = 8;

/// UUIDs that whole product lines share, so that they name no machine.
const SHARED_UUIDS: [u128; 6] = [
    0x03000200_0400_0500_0006_000700080009,
    0x00020003_0004_0005_0006_000700080009,
    0x03020100_0504_0706_0809_0a0b0c0d0e0f,
    0x00010203_0405_0607_0809_0a0b0c0d0e0f,
    0x12345678_1234_5678_90ab_cddeefaabbcc,
    0x78563412_3412_7856_90ab_cddeefaabbcc,
];

/// What firmware says where nobody has filled in a number, in small letters.
const PLACEHOLDERS: [&str; 18] = [
    "to be filled by o.e.m.",
    "to be filled by o.e.m",
    "default string",
    "system serial number",
    "chassis serial number",
    "base board serial number",
    "no asset tag",
    "no asset information",
    "asset tag",
    "not specified",
    "not applicable",
    "not available",
    "unknown",
    "none",
    "n/a",
    "invalid",
    "oem",
    "o.e.m.",
];

/// Returns a UUID as people write it in small letters, when it can name one box: not one that is all of one byte, nor one
/// that a product line shares.
pub fn telling_uuid(text: &str) -> Option<String> {
    telling_number(text).map(|number| uuid_text(number.to_be_bytes()))
}

/// Returns whether a text is a UUID, whatever it says.
pub fn is_uuid(text: &str) -> bool {
    uuid_bytes(text).is_some()
}

/// As [`telling_uuid`], as a number: its first digit is the one that weighs most.
pub(crate) fn telling_number(text: &str) -> Option<u128> {
    let bytes = uuid_bytes(text)?;
    let number = u128::from_be_bytes(bytes);
    let first = bytes[0];
    (bytes.iter().any(|byte| *byte != first) && !SHARED_UUIDS.contains(&number)).then_some(number)
}

/// Returns a UUID in the other order of bytes: SMBIOS turns its first three groups round, and not all firmware does.
pub fn other_order(uuid: &str) -> Option<String> {
    Some(uuid_text(turned(uuid_bytes(uuid)?)))
}

/// As [`other_order`], of a number.
pub(crate) fn other_number(uuid: u128) -> u128 {
    u128::from_be_bytes(turned(uuid.to_be_bytes()))
}

fn turned([d, c, b, a, f, e, h, g, rest @ ..]: [u8; 16]) -> [u8; 16] {
    let mut turned = [a, b, c, d, e, f, g, h, 0, 0, 0, 0, 0, 0, 0, 0];
    turned[8..].copy_from_slice(&rest);
    turned
}

fn uuid_bytes(text: &str) -> Option<[u8; 16]> {
    let text = text.trim();
    // Braces and dashes are left out or put in as people like.
    if text.len() > 38 || !text.is_ascii() {
        return None;
    }
    let digits = text.bytes().filter(|byte| !matches!(byte, b'-' | b'{' | b'}'));
    let (mut number, mut count) = (0_u128, 0);
    for digit in digits {
        number = number << 4 | u128::from(char::from(digit).to_digit(16)?);
        count += 1;
    }
    (count == 32).then(|| number.to_be_bytes())
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// Returns a serial number or an asset tag, when it can name one box.
pub fn telling_text(text: &str) -> Option<String> {
    let text = text.trim();
    let small = text.to_ascii_lowercase();
    let mut letters = text.chars();
    let first = letters.next()?;
    let one_letter = letters.all(|letter| letter == first);
    let counts = "0123456789".starts_with(text) || "123456789".starts_with(text);
    let good = text.len() <= MAX_TEXT
        && !text.chars().any(char::is_control)
        && text.chars().any(char::is_alphanumeric)
        && !one_letter
        && !counts
        && !PLACEHOLDERS.contains(&small.as_str());
    good.then(|| text.to_owned())
}

/// By what a box can be recognised. What says nothing is left out when this is made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traits {
    macs: BTreeSet<Mac>,
    uuid: Option<String>,
    serial: Option<String>,
    asset_tag: Option<String>,
    memory: BTreeSet<String>,
}

impl Traits {
    /// Takes what a sighting tells.
    pub fn seen(mac: Mac, uuid: Option<&str>) -> Self {
        let uuid = uuid.and_then(telling_uuid);
        Self { macs: [mac].into(), uuid, ..Self::default() }
    }

    /// Takes what the inventory says.
    pub fn known(machine: &NewMachine) -> Self {
        let text = |text: &Option<String>| text.as_deref().and_then(telling_text);
        Self {
            macs: machine.macs.clone(),
            uuid: machine.uuid.as_deref().and_then(telling_uuid),
            serial: text(&machine.serial),
            asset_tag: text(&machine.asset_tag),
            memory: BTreeSet::new(),
        }
    }

    /// Adds what else is known of the box, where nothing is known yet.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        self.uuid = self.uuid.or_else(|| other.uuid.clone());
        self.serial = self.serial.or_else(|| other.serial.clone());
        self.asset_tag = self.asset_tag.or_else(|| other.asset_tag.clone());
        self.memory.extend(other.memory.iter().cloned());
        self.macs.extend(&other.macs);
        self
    }

    /// Adds what a system says that runs on the box, where nothing else is known yet.
    #[must_use]
    pub fn with_facts(mut self, facts: &Facts) -> Self {
        self.uuid = self.uuid.or_else(|| telling_uuid(&facts.system.uuid));
        self.serial = self.serial.or_else(|| telling_text(&facts.system.serial));
        self.asset_tag = self.asset_tag.or_else(|| telling_text(&facts.system.asset_tag));
        let modules = facts.memory.modules.iter();
        self.memory.extend(modules.filter_map(|module| telling_text(&module.serial)));
        self.macs.extend(facts.nics.iter().filter_map(|nic| nic.mac.parse::<Mac>().ok()));
        self
    }
}

/// What two boxes have in common.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Clue {
    /// So many of the network cards.
    Macs(usize, usize),
    /// The SMBIOS UUID.
    Uuid,
    /// The serial number.
    Serial,
    /// The asset tag.
    AssetTag,
    /// So many of the memory modules.
    Memory(usize, usize),
}

impl fmt::Display for Clue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Macs(same, of) => write!(f, "{same} of {of} network cards"),
            Self::Uuid => f.write_str("UUID"),
            Self::Serial => f.write_str("serial number"),
            Self::AssetTag => f.write_str("asset tag"),
            Self::Memory(same, of) => write!(f, "{same} of {of} memory modules"),
        }
    }
}

/// A machine that a box looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Likeness {
    /// Name of the machine.
    pub machine: String,
    /// How much is alike.
    pub points: u32,
    /// What is alike.
    pub same: Vec<Clue>,
    /// Whether the box has a network card that the machine is not known to have.
    pub new_card: bool,
}

impl Likeness {
    /// Returns whether so much is alike that it is the same box, as far as numbers can tell.
    pub const fn is_match(&self) -> bool {
        self.points >= MATCH
    }
}

impl fmt::Display for Likeness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { machine, points, same, new_card } = self;
        let same: Vec<String> = same.iter().map(ToString::to_string).collect();
        let card = if *new_card { " with a new network card" } else { "" };
        let sure = if self.is_match() { "looks like" } else { "may be" };
        write!(f, "{sure} {machine}{card}: the same {} ({points} points)", same.join(", "))
    }
}

/// Returns how much of what was seen is like what is known.
fn compare(name: &str, known: &Traits, seen: &Traits, shared: &Shared) -> Option<Likeness> {
    let mut likeness =
        Likeness { machine: name.to_owned(), points: 0, same: Vec::new(), new_card: false };
    let mut add = |points: u32, clue: Clue| {
        likeness.points += points;
        likeness.same.push(clue);
    };
    let share = |same: usize, of: usize| u32::try_from(same * ALL / of.max(1)).unwrap_or(0);
    let macs = known.macs.intersection(&seen.macs).count();
    if macs > 0 {
        // One card of four is what a sighting can show at most.
        let of = seen.macs.len();
        add(share(macs, of), Clue::Macs(macs, of));
    }
    if let (Some(a), Some(b)) = (&known.uuid, &seen.uuid)
        && (a == b || other_order(a).as_ref() == Some(b))
        && !shared.uuids.contains(&canonical(a))
    {
        add(UUID, Clue::Uuid);
    }
    let same = |a: &Option<String>, b: &Option<String>, shared: &BTreeSet<String>| {
        a.as_ref().is_some_and(|a| b.as_ref() == Some(a) && !shared.contains(a))
    };
    if same(&known.serial, &seen.serial, &shared.serials) {
        add(SERIAL, Clue::Serial);
    }
    if same(&known.asset_tag, &seen.asset_tag, &shared.asset_tags) {
        add(ASSET_TAG, Clue::AssetTag);
    }
    let memory = known.memory.intersection(&seen.memory).count();
    if memory > 0 {
        add(share(memory, seen.memory.len()), Clue::Memory(memory, seen.memory.len()));
    }
    likeness.new_card = seen.macs.iter().any(|mac| !known.macs.contains(mac));
    (likeness.points > 0).then_some(likeness)
}

/// One of both orders, the same for both.
pub(crate) fn canonical(uuid: &str) -> String {
    let other = other_order(uuid).unwrap_or_default();
    if other.as_str() < uuid { other } else { uuid.to_owned() }
}

/// Numbers that several machines have, so that they name none of them.
#[derive(Clone, Debug, Default)]
struct Shared {
    uuids: BTreeSet<String>,
    serials: BTreeSet<String>,
    asset_tags: BTreeSet<String>,
}

/// Finds the machines that a box looks like.
#[derive(Clone, Debug, Default)]
pub struct Recogniser {
    known: Vec<(String, Traits)>,
    /// Machines by whatever may be alike.
    by_trait: HashMap<String, Vec<usize>>,
    shared: Shared,
}

impl Recogniser {
    /// Learns the machines that there are.
    pub fn new(known: impl IntoIterator<Item = (String, Traits)>) -> Self {
        let mut all = Self { known: known.into_iter().collect(), ..Self::default() };
        let mut counts: [BTreeMap<String, usize>; 3] = Default::default();
        for (number, (_, traits)) in all.known.iter().enumerate() {
            for key in keys(traits) {
                all.by_trait.entry(key).or_default().push(number);
            }
            let told = [
                traits.uuid.as_deref().map(canonical),
                traits.serial.clone(),
                traits.asset_tag.clone(),
            ];
            for (count, text) in counts.iter_mut().zip(told) {
                if let Some(text) = text {
                    *count.entry(text).or_default() += 1;
                }
            }
        }
        let several = |count: BTreeMap<String, usize>| {
            count.into_iter().filter(|(_, count)| *count > 1).map(|(text, _)| text).collect()
        };
        let [uuids, serials, asset_tags] = counts;
        all.shared = Shared {
            uuids: several(uuids),
            serials: several(serials),
            asset_tags: several(asset_tags),
        };
        all
    }

    /// Returns the machines that a box looks like, the likeliest first.
    pub fn recognise(&self, seen: &Traits) -> Vec<Likeness> {
        let numbers: BTreeSet<usize> = keys(seen)
            .iter()
            .filter_map(|key| self.by_trait.get(key))
            .flat_map(|numbers| numbers.iter().take(MAX_COMPARED))
            .copied()
            .collect();
        let mut found: Vec<Likeness> = numbers
            .into_iter()
            .filter_map(|number| {
                let (name, known) = &self.known[number];
                compare(name, known, seen, &self.shared)
            })
            .collect();
        found.sort_by(|a, b| b.points.cmp(&a.points).then_with(|| a.machine.cmp(&b.machine)));
        found.truncate(MAX_TOLD);
        found
    }
}

fn keys(traits: &Traits) -> Vec<String> {
    let mut keys: Vec<String> = traits.macs.iter().map(|mac| format!("mac {mac}")).collect();
    keys.extend(traits.uuid.as_deref().map(|uuid| format!("uuid {}", canonical(uuid))));
    keys.extend(traits.serial.as_ref().map(|serial| format!("serial {serial}")));
    keys.extend(traits.asset_tag.as_ref().map(|tag| format!("tag {tag}")));
    keys.extend(traits.memory.iter().map(|serial| format!("memory {serial}")));
    keys
}

#[cfg(test)]
mod tests;
