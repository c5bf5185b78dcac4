//! What a program says that it needs, to take it out of a root file system with all of that.

use object::{Object as _, ObjectSection as _};

/// `DT_NEEDED` of ELF.
const NEEDED: u64 = 1;

/// What a program or library says that it needs.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wants {
    /// The path of its loader; a library has none.
    pub(super) interpreter: Option<String>,
    /// File names of libraries.
    pub(super) libraries: Vec<String>,
}

/// Reads the sections `.interp`, `.dynamic` and `.dynstr` of a 64-bit program; none of them is larger than the program.
/// Returns nothing for what is no program.
pub(super) fn wants(bytes: &[u8]) -> Option<Wants> {
    let file = object::File::parse(bytes).ok().filter(object::File::is_64)?;
    let section = |name| file.section_by_name(name).and_then(|section| section.data().ok());
    let text = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == 0)?;
        str::from_utf8(bytes.get(..end)?).ok().map(str::to_owned)
    };
    let interpreter = section(".interp").and_then(text);
    let names = section(".dynstr").unwrap_or_default();
    let mut libraries = Vec::new();
    for entry in section(".dynamic").unwrap_or_default().as_chunks::<16>().0 {
        let [tag, value] = [0, 8].map(|at| {
            entry
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |n| u64::from_le_bytes(*n))
        });
        if tag == NEEDED {
            let name = names.get(usize::try_from(value).ok()?..).and_then(text)?;
            // It becomes part of a path.
            libraries.push(Some(name).filter(|name| !name.contains('/'))?);
        }
    }
    Some(Wants { interpreter, libraries })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_names_its_loader_and_the_c_library() {
        let shell = std::fs::read("/bin/sh").unwrap();
        let wants = wants(&shell).unwrap();
        assert!(wants.interpreter.unwrap().contains("/ld-"));
        assert!(wants.libraries.iter().any(|library| library.starts_with("libc.so.")));
        assert_eq!(super::wants(&shell[..100]), None);
    }

    #[test]
    fn what_is_no_program_wants_nothing() {
        assert_eq!(wants(b"#!/bin/sh\n"), None);
    }
}
