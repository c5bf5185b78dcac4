use serde::{Deserialize, Serialize};

/// What the server does about a version of an image that it bakes by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum Bake {
    /// It waits for its turn, or for a machine that asks.
    Waiting,
    /// It is being built.
    Building,
    /// The last attempt failed, and the specification has not changed since.
    Failed {
        /// Why.
        error: String,
    },
}
