use serde::{Deserialize, Serialize};

/// What decides about the bytes of a version besides its specification, its lock and the program.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildSettings {
    /// Whether it is compressed as well as possible.
    #[serde(default)]
    pub release: bool,
    /// Time of all files, in seconds since 1970.
    #[serde(default)]
    pub epoch: u32,
}

impl BuildSettings {
    /// Returns them as JSON.
    ///
    /// # Errors
    ///
    /// Fails when there is no memory.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// Reads them.
    ///
    /// # Errors
    ///
    /// Fails when it is not what [`to_json`](Self::to_json) writes.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }
}
