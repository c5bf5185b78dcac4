//! Extended attributes: sets of names and values, each stored once and named by number.

use std::collections::HashMap;
use std::io::{Seek, Write};

use super::PackedError;
use super::metadata::{Metadata, Output};
use crate::tree::TreePath;

/// The number of a file without attributes.
pub(super) const NONE: u32 = u32::MAX;
/// Prefixes that have a number.
const PREFIXES: [(&str, u16); 3] = [("user.", 0), ("trusted.", 1), ("security.", 2)];

/// The attributes of all files.
pub(super) struct Xattrs {
    pairs: Metadata,
    /// Where each set begins, how many pairs it has and how long they are.
    sets: Vec<u8>,
    numbers: HashMap<Vec<u8>, u32>,
    dropped: Option<(usize, TreePath)>,
}

impl Xattrs {
    pub(super) fn new(level: i32) -> Result<Self, PackedError> {
        let pairs = Metadata::new(level)?;
        Ok(Self { pairs, sets: Vec::new(), numbers: HashMap::new(), dropped: None })
    }

    /// Returns the number of a set of attributes.
    pub(super) fn number<'x>(
        &mut self,
        path: &TreePath,
        attributes: impl IntoIterator<Item = (&'x str, &'x [u8])>,
    ) -> Result<u32, PackedError> {
        let unfit = |problem| PackedError::Unfit { path: path.clone(), problem };
        let mut set = Vec::new();
        let mut count: u32 = 0;
        for (name, value) in attributes {
            let split = |(prefix, kind): &(&str, u16)| Some((name.strip_prefix(prefix)?, *kind));
            let Some((name, kind)) = PREFIXES.iter().find_map(split) else {
                self.dropped.get_or_insert_with(|| (0, path.clone())).0 += 1;
                continue;
            };
            let name_len = u16::try_from(name.len()).ok().filter(|len| *len <= 255);
            let name_len = name_len.ok_or_else(|| unfit("the name of an attribute is too long"))?;
            let value_len = u32::try_from(value.len()).ok().filter(|len| *len <= 65536);
            let value_len = value_len.ok_or_else(|| unfit("an attribute is longer than 64 KiB"))?;
            set.extend_from_slice(&kind.to_le_bytes());
            set.extend_from_slice(&name_len.to_le_bytes());
            set.extend_from_slice(name.as_bytes());
            set.extend_from_slice(&value_len.to_le_bytes());
            set.extend_from_slice(value);
            count += 1;
        }
        if count == 0 {
            return Ok(NONE);
        }
        if let Some(number) = self.numbers.get(&set) {
            return Ok(*number);
        }
        let len = u32::try_from(set.len()).map_err(|_| PackedError::TooMany)?;
        self.sets.extend_from_slice(&self.pairs.position()?.reference().to_le_bytes());
        self.sets.extend_from_slice(&count.to_le_bytes());
        self.sets.extend_from_slice(&len.to_le_bytes());
        self.pairs.write(&set)?;
        let number = u32::try_from(self.numbers.len()).map_err(|_| PackedError::TooMany)?;
        self.numbers.insert(set, number);
        Ok(number)
    }

    pub(super) const fn dropped(&self) -> Option<&(usize, TreePath)> {
        self.dropped.as_ref()
    }

    /// Writes all sets and returns where their list begins, if there are any.
    pub(super) fn write<W: Write + Seek>(
        self,
        out: &mut Output<'_, W>,
        level: i32,
    ) -> Result<Option<u64>, PackedError> {
        if self.numbers.is_empty() {
            return Ok(None);
        }
        let pairs_at = out.written();
        out.write(&self.pairs.finish()?)?;
        let starts = out.blocks(&self.sets, level)?;
        let list = out.written();
        let count = u32::try_from(self.numbers.len()).map_err(|_| PackedError::TooMany)?;
        out.write(&pairs_at.to_le_bytes())?;
        out.write(&count.to_le_bytes())?;
        out.write(&[0; 4])?;
        out.starts(&starts)?;
        Ok(Some(list))
    }
}
