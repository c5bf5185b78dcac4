use std::fmt;
use std::str::FromStr;

use crate::{Boot, BootId};

/// A place in the list of all boots, newest first: where a boot stands that began at a time and has a number. It is
/// written as both with a dot between them, and stays where it is when boots come and go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootPlace {
    /// When the boot began, in milliseconds since 1970.
    pub started: i64,
    /// Its number.
    pub id: BootId,
}

impl Boot {
    /// Returns where it stands in the list of all boots.
    pub const fn place(&self) -> BootPlace {
        BootPlace { started: self.started, id: self.id }
    }
}

impl fmt::Display for BootPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.started, self.id)
    }
}

/// A text is no place in the list of boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a place in the list of boots is two numbers with a dot between them, as the header `Link` has it"
)]
pub struct ParseBootPlaceError;

impl FromStr for BootPlace {
    type Err = ParseBootPlaceError;

    fn from_str(text: &str) -> Result<Self, ParseBootPlaceError> {
        let read = |text: &str| text.parse().map_err(|_| ParseBootPlaceError);
        let (started, id) = text.split_once('.').ok_or(ParseBootPlaceError)?;
        Ok(Self { started: read(started)?, id: BootId(read(id)?) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_read_as_it_is_written() {
        for (started, id) in [(1_766_000_000_000, 12), (-1, 1), (i64::MIN, i64::MAX)] {
            let place = BootPlace { started, id: BootId(id) };
            assert_eq!(place.to_string().parse(), Ok(place));
        }
        for wrong in ["", ".", "12", "1.", ".1", "1.2.3", "1,2", "x.1", "9223372036854775808.1"] {
            assert_eq!(wrong.parse::<BootPlace>(), Err(ParseBootPlaceError), "{wrong}");
        }
    }
}
