//! What was built and what failed, kept over restarts. Losing it costs a rebuild from the cache and nothing else.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use kiln_builder::durable;
use kiln_types::Arch;

use super::schedule::History;

type Memory = BTreeMap<String, BTreeMap<Arch, History>>;

/// The largest file that is read.
const MAX: u64 = 64 << 20;

/// Reads what an earlier server has left. What cannot be read counts as nothing.
pub(super) fn read(path: &Path) -> Memory {
    let read = || -> std::io::Result<Memory> {
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(MAX).read_to_end(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    };
    match read() {
        Ok(memory) => memory,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Memory::new(),
        Err(error) => {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, path = %path.display(), "state of images not read");
            Memory::new()
        }
    }
}

/// Replaces the file at once.
///
/// # Errors
///
/// Fails when it cannot be written; the old file is there then.
pub(super) fn write(path: &Path, memory: &Memory) -> std::io::Result<()> {
    durable::replace(path, &serde_json::to_vec_pretty(memory)?, 0o600)
}
