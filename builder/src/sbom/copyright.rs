//! Licences out of Debian's machine-readable copyright files
//! (debian.org/doc/packaging-manuals/copyright-format/1.0).

use std::collections::BTreeSet;

use crate::deb::field;

/// Debian's names that are not those of SPDX, in lower case.
const NAMES: [(&str, &str); 46] = [
    ("agpl-3", "AGPL-3.0-only"),
    ("agpl-3+", "AGPL-3.0-or-later"),
    ("apache-2", "Apache-2.0"),
    ("apache-2.0", "Apache-2.0"),
    ("artistic", "Artistic-1.0-Perl"),
    ("artistic-1", "Artistic-1.0"),
    ("artistic-2", "Artistic-2.0"),
    ("artistic-2.0", "Artistic-2.0"),
    ("bsd-2-clause", "BSD-2-Clause"),
    ("bsd-3-clause", "BSD-3-Clause"),
    ("bsd-4-clause", "BSD-4-Clause"),
    ("bsd-4-clause-uc", "BSD-4-Clause-UC"),
    ("bsl-1.0", "BSL-1.0"),
    ("cc0", "CC0-1.0"),
    ("cc0-1.0", "CC0-1.0"),
    ("cddl-1.0", "CDDL-1.0"),
    ("curl", "curl"),
    ("expat", "MIT"),
    ("fsful", "FSFUL"),
    ("fsfullr", "FSFULLR"),
    ("gfdl-1.2", "GFDL-1.2-only"),
    ("gfdl-1.2+", "GFDL-1.2-or-later"),
    ("gfdl-1.3", "GFDL-1.3-only"),
    ("gfdl-1.3+", "GFDL-1.3-or-later"),
    ("gpl-1", "GPL-1.0-only"),
    ("gpl-1+", "GPL-1.0-or-later"),
    ("gpl-2", "GPL-2.0-only"),
    ("gpl-2.0", "GPL-2.0-only"),
    ("gpl-2+", "GPL-2.0-or-later"),
    ("gpl-2.0+", "GPL-2.0-or-later"),
    ("gpl-3", "GPL-3.0-only"),
    ("gpl-3+", "GPL-3.0-or-later"),
    ("isc", "ISC"),
    ("lgpl-2", "LGPL-2.0-only"),
    ("lgpl-2+", "LGPL-2.0-or-later"),
    ("lgpl-2.1", "LGPL-2.1-only"),
    ("lgpl-2.1+", "LGPL-2.1-or-later"),
    ("lgpl-3", "LGPL-3.0-only"),
    ("lgpl-3+", "LGPL-3.0-or-later"),
    ("mit", "MIT"),
    ("mpl-1.1", "MPL-1.1"),
    ("mpl-2.0", "MPL-2.0"),
    ("openssl", "OpenSSL"),
    ("psf-2", "PSF-2.0"),
    ("unlicense", "Unlicense"),
    ("zlib", "Zlib"),
];
/// What a licence begins with that SPDX has no name for.
pub(super) const REF: &str = "LicenseRef-";
/// The most licences that are named of one package.
const MAX: usize = 100;

/// Returns all licences that a machine-readable copyright file names, as one SPDX expression. Other copyright files
/// are prose.
pub(super) fn declared(text: &str) -> Option<String> {
    let head = text.split("\n\n").next()?;
    field(head, "Format").filter(|format| format.contains("copyright-format"))?;
    let mut names = BTreeSet::new();
    for stanza in text.split("\n\n") {
        let stanza = stanza.trim_start_matches('\n');
        // A stanza without files holds the text of a licence that others name.
        if field(stanza, "Files").is_none() && field(stanza, "Format").is_none() {
            continue;
        }
        let first = field(stanza, "License").and_then(|value| value.lines().next());
        if let Some(expression) = first.map(str::trim).filter(|line| !line.is_empty()) {
            names.insert(convert(expression));
        }
    }
    // None of them may be left out: an expression with some of them would say something else.
    if names.is_empty() || names.len() > MAX {
        return None;
    }
    let alone = names.len() == 1;
    let wrap = |name: &String| match name.contains(" OR ") && !alone {
        true => format!("({name})"),
        false => name.clone(),
    };
    Some(names.iter().map(wrap).collect::<Vec<_>>().join(" AND "))
}

/// Turns `GPL-2+ or Artistic` into SPDX's `GPL-2.0-or-later OR Artistic-1.0-Perl`.
fn convert(expression: &str) -> String {
    // A comma binds weaker than `and` and `or`; that cannot be said without brackets.
    let parts: Vec<_> = expression.split(',').map(str::trim).collect();
    let mut out = String::new();
    for (n, part) in parts.iter().enumerate() {
        let (joint, part) = match part.split_once(' ') {
            Some(("and", rest)) => (" AND ", rest),
            Some(("or", rest)) => (" OR ", rest),
            _ => (" AND ", *part),
        };
        if n > 0 {
            out.push_str(joint);
        }
        let text = alternatives(part);
        match parts.len() > 1 && text.contains(' ') {
            true => out.push_str(&format!("({text})")),
            false => out.push_str(&text),
        }
    }
    out
}

/// In both languages `and` binds stronger than `or`.
fn alternatives(text: &str) -> String {
    let all = |text: &str| text.split(" and ").map(one).collect::<Vec<_>>().join(" AND ");
    text.split(" or ").map(all).collect::<Vec<_>>().join(" OR ")
}

fn one(name: &str) -> String {
    let name = name.trim();
    let lower = name.to_lowercase();
    if let Some((_, spdx)) = NAMES.iter().find(|(debian, _)| *debian == lower) {
        return (*spdx).to_owned();
    }
    let clean = |c: char| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' };
    let clean: String = name.replace('+', "-or-later").chars().map(clean).take(100).collect();
    format!("{REF}Debian-{clean}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_expressions_become_those_of_spdx() {
        for (debian, spdx) in [
            ("Expat", "MIT"),
            ("GPL-2+", "GPL-2.0-or-later"),
            ("GPL-2+ or Artistic", "GPL-2.0-or-later OR Artistic-1.0-Perl"),
            ("MIT and BSD-3-clause", "MIT AND BSD-3-Clause"),
            ("GPL-2, and MIT or ISC", "GPL-2.0-only AND (MIT OR ISC)"),
            ("public-domain", "LicenseRef-Debian-public-domain"),
            (
                "GPL-3+ with Bison exception",
                "LicenseRef-Debian-GPL-3-or-later-with-Bison-exception",
            ),
            ("X/é", "LicenseRef-Debian-X--"),
        ] {
            assert_eq!(convert(debian), spdx, "{debian}");
        }
    }

    #[test]
    fn every_licence_of_the_files_counts_and_texts_do_not() {
        let text = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
                    Files: *\nCopyright: a\nLicense: GPL-2+ or MIT\n text\n\n\
                    Files: b\nLicense: ISC\n\nLicense: GPL-2+\n text\n";
        assert_eq!(declared(text).unwrap(), "(GPL-2.0-or-later OR MIT) AND ISC");
        assert_eq!(declared("This is free software.\nLicense: MIT\n"), None);
        assert_eq!(declared(""), None);
    }

    #[test]
    fn the_names_are_sorted_and_known_once() {
        let mut sorted = NAMES.to_vec();
        sorted.dedup_by_key(|(debian, _)| *debian);
        assert_eq!(sorted.len(), NAMES.len());
        assert!(NAMES.iter().all(|(debian, _)| *debian == debian.to_lowercase()));
    }
}
