use object::{Object as _, ObjectSection as _};

use super::normal;

/// What a module says about itself in its `.modinfo` section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct ModuleInfo {
    /// Modules that must be loaded before.
    pub(super) depends: Vec<String>,
    /// Patterns of the devices and names that it serves.
    pub(super) aliases: Vec<String>,
    /// Lines such as `pre: crc32c`.
    pub(super) softdeps: Vec<String>,
    /// Files that it loads into devices.
    pub(super) firmware: Vec<String>,
}

impl ModuleInfo {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, object::Error> {
        let file = object::File::parse(bytes)?;
        let mut info = Self::default();
        let Some(section) = file.section_by_name(".modinfo") else { return Ok(info) };
        for entry in section.data()?.split(|byte| *byte == 0) {
            let Some((key, value)) = str::from_utf8(entry).ok().and_then(|e| e.split_once('='))
            else {
                continue;
            };
            match key {
                "depends" => {
                    info.depends = value.split(',').filter(|s| !s.is_empty()).map(normal).collect();
                }
                "alias" => info.aliases.push(value.to_owned()),
                "softdep" => info.softdeps.push(value.to_owned()),
                "firmware" => info.firmware.push(value.to_owned()),
                _ => {}
            }
        }
        Ok(info)
    }

    /// Returns the modules that the soft dependencies name, whether before or after.
    pub(super) fn soft_names(&self) -> impl Iterator<Item = String> {
        let words = self.softdeps.iter().flat_map(|line| line.split_whitespace());
        words.filter(|word| !word.ends_with(':')).map(normal)
    }
}
