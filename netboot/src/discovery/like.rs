//! Machines that a box looks like, as the API tells them.

use kiln_inventory::Likeness;
use serde::{Deserialize, Serialize};

/// A machine that a box looks like.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "kebab-case")]
pub struct LooksLike {
    /// Name of the machine.
    pub machine: String,
    /// How much is alike; 100 are a match.
    pub points: u32,
    /// What is alike.
    pub same: Vec<String>,
    /// Whether it has a network card that the machine is not known to have.
    pub new_card: bool,
    /// All of that in words.
    pub text: String,
}

impl From<Likeness> for LooksLike {
    fn from(like: Likeness) -> Self {
        let same = like.same.iter().map(ToString::to_string).collect();
        let text = like.to_string();
        let Likeness { machine, points, new_card, .. } = like;
        Self { machine, points, same, new_card, text }
    }
}
