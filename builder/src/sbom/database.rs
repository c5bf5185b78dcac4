//! What the package managers inside a tree have written down.

use std::collections::BTreeSet;
use std::io::Read as _;

use super::{MAX_PACKAGES, PackageItem, purl, read_licence};
use crate::deb::field;
use crate::tree::{Content, Kind, Tree, TreePath};

/// The largest data base that is read.
const MAX_BYTES: u64 = 64 << 20;
/// How many symbolic links are followed on the way to a file.
const MAX_LINKS: usize = 8;
/// The longest name or version that is taken over.
const MAX_TEXT: usize = 256;

/// The distribution that a tree is of.
#[derive(Default)]
struct Distribution {
    id: Option<String>,
    /// `debian-13`.
    release: Option<String>,
}

/// Returns every package that dpkg or apk have installed in a tree.
pub(super) fn read_databases(root: &Tree) -> Vec<PackageItem> {
    let distribution = distribution(root);
    let mut found = Vec::new();
    for text in dpkg_texts(root) {
        for stanza in text.split("\n\n").take(MAX_PACKAGES) {
            found.extend(dpkg(stanza.trim_start_matches('\n'), &distribution, root));
        }
    }
    for path in ["lib/apk/db/installed", "usr/lib/apk/db/installed"] {
        let Ok(path) = TreePath::new(path) else { continue };
        let Some(text) = read(root, &path) else { continue };
        found.extend(text.split("\n\n").take(MAX_PACKAGES).filter_map(|it| apk(it, &distribution)));
    }
    found
}

/// The data base of dpkg; images without dpkg have one file for each package instead.
fn dpkg_texts(root: &Tree) -> Vec<String> {
    let single = TreePath::new("var/lib/dpkg/status").ok();
    let mut texts: Vec<_> = single.and_then(|path| read(root, &path)).into_iter().collect();
    let each = "var/lib/dpkg/status.d/";
    let parts = root.iter().filter(|(path, _)| path.as_str().starts_with(each));
    let parts = parts.filter(|(path, _)| !path.as_str().ends_with(".md5sums")).take(MAX_PACKAGES);
    texts.extend(parts.filter_map(|(path, _)| read(root, path)));
    texts
}

fn dpkg(stanza: &str, distribution: &Distribution, root: &Tree) -> Option<PackageItem> {
    let fits = |value: &&str| !value.is_empty() && value.len() <= MAX_TEXT;
    let text = |name| field(stanza, name).filter(fits);
    // `deinstall ok config-files` is no longer there.
    if field(stanza, "Status").is_some_and(|status| !status.ends_with(" installed")) {
        return None;
    }
    let (name, version) = (text("Package")?, text("Version")?);
    let arch = text("Architecture").unwrap_or_default();
    let depends = mentioned(stanza, &["Pre-Depends", "Depends"]);
    let namespace = distribution.id.as_deref().unwrap_or("debian");
    let release = distribution.release.as_deref();
    Some(PackageItem {
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Some(purl::package("deb", Some(namespace), name, version, arch, release)),
        sha256: None,
        licence: read_licence(root, name),
        depends,
    })
}

/// Returns the names that some fields of a stanza mention.
pub(super) fn mentioned(stanza: &str, fields: &[&str]) -> BTreeSet<String> {
    let values = fields.iter().filter_map(|name| field(stanza, name));
    values.flat_map(|value| value.split([',', '|'])).filter_map(relation).collect()
}

/// Returns the name in `libc6:any (>= 2.41)`.
fn relation(text: &str) -> Option<String> {
    let end = |c: char| c.is_whitespace() || matches!(c, ':' | '(' | '[' | '<' | '>' | '=' | '~');
    let name = text.trim().split(end).next()?;
    (!name.is_empty() && name.len() <= MAX_TEXT).then(|| name.to_owned())
}

/// Reads one package of apk's data base: `P:` name, `V:` version, `A:` architecture, `L:` licence, `D:` dependencies.
fn apk(stanza: &str, distribution: &Distribution) -> Option<PackageItem> {
    let text = |key: &str| {
        let mut values = stanza.lines().filter_map(|line| line.strip_prefix(key));
        values.next().map(str::trim).filter(|value| !value.is_empty())
    };
    let short = |key| text(key).filter(|value| value.len() <= MAX_TEXT);
    let (name, version) = (short("P:")?, short("V:")?);
    // Dependencies on libraries and commands are of the form `so:…` and `cmd:…`, and `!x` is a conflict.
    let depends = text("D:").unwrap_or_default().split_whitespace();
    let depends = depends.filter(|it| !it.contains(':') && !it.starts_with('!'));
    let namespace = distribution.id.as_deref().unwrap_or("alpine");
    let arch = short("A:").unwrap_or_default();
    let release = distribution.release.as_deref();
    Some(PackageItem {
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Some(purl::package("apk", Some(namespace), name, version, arch, release)),
        sha256: None,
        licence: short("L:").filter(|licence| is_expression(licence)).map(str::to_owned),
        depends: depends.filter_map(relation).collect(),
    })
}

/// Whether a text can be an SPDX expression; older packages have prose.
pub(super) fn is_expression(text: &str) -> bool {
    let word = |word: &str| {
        let word = word.trim_matches(['(', ')']);
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || "-.+".contains(c))
    };
    let joint = |word: &str| matches!(word, "AND" | "OR" | "WITH");
    let mut expect_name = true;
    for part in text.split_whitespace() {
        if !word(part) || joint(part) == expect_name {
            return false;
        }
        expect_name = !expect_name;
    }
    !expect_name && text.matches('(').count() == text.matches(')').count()
}

fn distribution(root: &Tree) -> Distribution {
    let paths = ["etc/os-release", "usr/lib/os-release"];
    let text = paths.iter().find_map(|path| read(root, &TreePath::new(path).ok()?));
    let Some(text) = text else { return Distribution::default() };
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.strip_prefix(key));
        let value = lines.next()?.strip_prefix('=')?.trim_matches(['"', '\'', ' ']);
        let clean = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        (!value.is_empty() && value.len() <= 64 && value.chars().all(clean))
            .then(|| value.to_owned())
    };
    let id = value("ID");
    let release =
        id.as_ref().zip(value("VERSION_ID")).map(|(id, version)| format!("{id}-{version}"));
    Distribution { id, release }
}

/// Reads a file of a tree as text, through symbolic links.
pub(super) fn read(root: &Tree, path: &TreePath) -> Option<String> {
    let content = follow(root, path)?;
    if content.len() > MAX_BYTES {
        return None;
    }
    let mut bytes = Vec::new();
    content.reader().take(MAX_BYTES).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// Walks to a file as it would be opened inside the tree.
fn follow<'a>(root: &'a Tree, path: &TreePath) -> Option<&'a Content> {
    let mut left: Vec<String> = path.as_str().split('/').rev().map(str::to_owned).collect();
    let mut at: Vec<String> = Vec::new();
    let mut links = 0;
    while let Some(part) = left.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                at.pop();
                continue;
            }
            _ => at.push(part),
        }
        let here = TreePath::new(&at.join("/")).ok()?;
        if let Kind::Symlink(target) = &root.get(&here)?.kind {
            links += 1;
            if links > MAX_LINKS || target.len() > 4096 {
                return None;
            }
            at.pop();
            if target.starts_with('/') {
                at.clear();
            }
            left.extend(target.split('/').rev().map(str::to_owned));
        }
    }
    root.content(&TreePath::new(&at.join("/")).ok()?)
}
