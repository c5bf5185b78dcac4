//! One lease as it stands in a journal: a record of a fixed length, with its sum before it.

use kiln_inventory::Lease;
use kiln_types::Mac;

/// Length of one record.
pub(super) const RECORD: usize = 96;
/// Of it, the name of the host.
pub(super) const NAME_AT: usize = 24;
const NAME: usize = 63;
/// Version of the form, in each record.
const VERSION: u8 = 1;

/// Writes one lease.
pub(super) fn record(lease: &Lease) -> [u8; RECORD] {
    let mut out = [0; RECORD];
    let name = lease.hostname.as_deref().unwrap_or_default().as_bytes();
    let name = name.get(..name.len().min(NAME)).unwrap_or_default();
    out[4] = VERSION;
    // One more than its length, so that an empty name and none are two things.
    out[5] = lease.hostname.as_ref().map_or(0, |_| u8::try_from(name.len() + 1).unwrap_or(0));
    out[6..12].copy_from_slice(&lease.mac.octets());
    out[12..16].copy_from_slice(&lease.address.octets());
    out[16..NAME_AT].copy_from_slice(&lease.expires.to_le_bytes());
    out[NAME_AT..NAME_AT + name.len()].copy_from_slice(name);
    let sum = crc32fast::hash(&out[4..]);
    out[..4].copy_from_slice(&sum.to_le_bytes());
    out
}

fn parse(record: &[u8; RECORD]) -> Option<Lease> {
    let (sum, body) = record.split_first_chunk::<4>()?;
    if u32::from_le_bytes(*sum) != crc32fast::hash(body) || record[4] != VERSION {
        return None;
    }
    let hostname = match usize::from(record[5]).checked_sub(1) {
        Some(length) => {
            let name = record.get(NAME_AT..NAME_AT + NAME)?.get(..length)?;
            Some(str::from_utf8(name).ok()?.to_owned())
        }
        None => None,
    };
    let mac = Mac::new(*record[6..12].first_chunk()?);
    let address: [u8; 4] = *record[12..16].first_chunk()?;
    let expires = i64::from_le_bytes(*record[16..NAME_AT].first_chunk()?);
    Some(Lease { address: address.into(), mac, expires, hostname })
}

/// What a journal holds.
pub(super) struct Found {
    pub(super) leases: Vec<Lease>,
    /// Records that make no sense, with others behind them.
    pub(super) damaged: usize,
    /// Where the last record ends that makes sense.
    pub(super) end: u64,
}

/// Reads a journal.
pub(super) fn read(bytes: &[u8]) -> Found {
    let mut found = Found { leases: Vec::new(), damaged: 0, end: 0 };
    let mut bad = 0;
    let (records, _) = bytes.as_chunks::<RECORD>();
    for (index, bytes) in records.iter().enumerate() {
        match parse(bytes) {
            Some(lease) => {
                found.leases.push(lease);
                found.damaged += std::mem::take(&mut bad);
                found.end = u64::try_from((index + 1) * RECORD).unwrap_or(0);
            }
            None => bad += 1,
        }
    }
    found
}
