//! Folders: their rights, the room in them, and the loaders.

use std::path::{Path, PathBuf};

use kiln_ipxe::LOADERS;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::Finding;
use crate::settings::Settings;

/// An initrd and a kernel of usual size, so that a build or a pull can end.
const LITTLE: u64 = 500 << 20;
/// With less than this the inventory cannot be written for long.
const NONE: u64 = 20 << 20;

pub(super) fn examine(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (what, dir) in [("inventory", &settings.data_dir), ("store", &settings.store_dir)] {
        let there = nearest(dir);
        let writable = access(&there, AccessFlags::R_OK | AccessFlags::W_OK | AccessFlags::X_OK);
        let database = settings.database();
        let file_writable = database
            .file()
            .is_none_or(|file| !file.exists() || access(file, AccessFlags::W_OK).is_ok());
        let room = statvfs(&there).ok().map(|stat| stat.blocks_available() * stat.fragment_size());
        findings.push(judge_folder(what, dir, writable.is_ok() && file_writable, room));
    }
    findings.extend(loaders(settings));
    findings.extend(https(settings));
    findings
}

/// Looks whether the files of HTTPS can be read.
fn https(settings: &Settings) -> Vec<Finding> {
    let Some(https) = &settings.https else { return Vec::new() };
    let own = https
        .own
        .iter()
        .flat_map(|own| [("[https] certificate", &own.certificate), ("[https] key", &own.key)]);
    let clients =
        https.client_certificates.iter().map(|path| ("[https] client-certificates", path));
    own.chain(clients).map(|(setting, path)| judge_pem(setting, path)).collect()
}

fn judge_pem(setting: &str, path: &Path) -> Finding {
    let subject = path.display().to_string();
    match std::fs::read(path) {
        Ok(bytes) if bytes.windows(11).any(|part| part == b"-----BEGIN ") => {
            Finding::good("https", subject, "it can be read")
        }
        Ok(_) => {
            let remedy = format!("put a file in PEM there, or correct {setting}");
            Finding::wrong("https", subject, "it holds nothing in PEM (-----BEGIN …)", remedy)
        }
        Err(error) => {
            let remedy = format!("let the user of the server read it, or correct {setting}");
            Finding::wrong("https", subject, format!("it cannot be read: {error}"), remedy)
        }
    }
}

/// Returns the folder, or the one above it in which it would be made.
fn nearest(dir: &Path) -> PathBuf {
    let mut at = dir;
    while !at.exists() {
        match at.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => at = parent,
            _ => return PathBuf::from("."),
        }
    }
    at.to_owned()
}

fn judge_folder(what: &str, dir: &Path, writable: bool, room: Option<u64>) -> Finding {
    const CHECK: &str = "folder";
    let subject = format!("{what} {}", dir.display());
    if !writable {
        let remedy = format!(
            "run this as the user of the server, or give the folder to that user: chown -R kiln: {}",
            dir.display()
        );
        return Finding::wrong(CHECK, subject, "this user may not write there", remedy);
    }
    let Some(room) = room else { return Finding::good(CHECK, subject, "writable") };
    let found = format!("{} MB are free", room >> 20);
    let remedy = match what {
        "store" => {
            "delete old versions (`kiln image gc`), or put the store on a larger disk ([store] dir)"
        }
        _ => "make room on that disk, or move [server] data-dir",
    };
    match room {
        0..NONE => Finding::wrong(CHECK, subject, found, remedy),
        NONE..LITTLE => Finding::doubtful(CHECK, subject, found, remedy),
        _ => Finding::good(CHECK, subject, format!("writable, {found}")),
    }
}

fn loaders(settings: &Settings) -> Vec<Finding> {
    let own = settings.loaders_dir.is_some();
    let dir = settings.loaders_dir.clone().unwrap_or_else(|| settings.data_dir.join("loaders"));
    let names = LOADERS.iter().map(|loader| loader.name);
    let missing: Vec<&str> = names.filter(|name| !dir.join(name).is_file()).collect();
    vec![judge_loaders(&dir, own, &missing, LOADERS.len())]
}

fn judge_loaders(dir: &Path, own: bool, missing: &[&str], of: usize) -> Finding {
    const CHECK: &str = "loaders";
    let subject = dir.display().to_string();
    if missing.is_empty() {
        return Finding::good(CHECK, subject, "all are there");
    }
    let found = format!("without {}", missing.join(", "));
    match (own, missing.len() == of) {
        (true, true) => Finding::wrong(
            CHECK,
            subject,
            found,
            "put them there, or leave [loaders] dir out to fetch them from Debian's package",
        ),
        (true, false) => Finding::doubtful(
            CHECK,
            subject,
            found,
            "machines with that firmware do not boot; put the files there, or leave [loaders] dir out to fetch them",
        ),
        (false, _) => Finding::doubtful(
            CHECK,
            subject,
            found,
            "`kiln serve` fetches them at its start and needs a Debian mirror for that; without one, name a folder that has them in [loaders] dir",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_folder_needs_rights_and_room() {
        let dir = Path::new("/var/lib/kiln");
        let judge = |writable, room| judge_folder("store", dir, writable, room);
        assert_eq!(judge(true, Some(1 << 40)).verdict, Verdict::Good);
        assert_eq!(judge(true, Some(100 << 20)).verdict, Verdict::Doubtful);
        assert_eq!(judge(true, Some(0)).verdict, Verdict::Wrong);
        let refused = judge(false, Some(1 << 40));
        assert!(refused.remedy.unwrap().ends_with("chown -R kiln: /var/lib/kiln"));
        assert!(judge(true, Some(0)).remedy.unwrap().contains("kiln image gc"));
        let inventory = judge_folder("inventory", dir, true, Some(0));
        assert!(inventory.remedy.unwrap().contains("data-dir"));
    }

    #[test]
    fn missing_loaders_are_named_and_only_an_own_folder_has_to_have_them() {
        let dir = Path::new("/srv");
        assert_eq!(judge_loaders(dir, true, &[], 3).verdict, Verdict::Good);
        let all = judge_loaders(dir, true, &["a", "b", "c"], 3);
        assert_eq!((all.verdict, all.found.as_str()), (Verdict::Wrong, "without a, b, c"));
        assert_eq!(judge_loaders(dir, true, &["a"], 3).verdict, Verdict::Doubtful);
        assert_eq!(judge_loaders(dir, false, &["a", "b", "c"], 3).verdict, Verdict::Doubtful);
    }

    #[test]
    fn a_folder_that_is_not_there_is_judged_by_the_one_it_would_be_made_in() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(nearest(&dir.path().join("a/b/c")), dir.path());
        assert_eq!(nearest(Path::new("a-folder-that-is-not-there")), Path::new("."));
    }

    #[test]
    fn files_of_https_are_there_and_hold_what_they_should() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        assert!(judge_pem("[https] key", &path).found.starts_with("it cannot be read"));
        std::fs::write(&path, "none").unwrap();
        assert!(judge_pem("[https] key", &path).found.starts_with("it holds nothing"));
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        assert_eq!(judge_pem("[https] key", &path).remedy, None);
    }
}
