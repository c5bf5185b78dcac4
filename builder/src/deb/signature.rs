//! The signature of an `InRelease` file, checked by a program of the host.

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Stdio};

use super::error::DebError;

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// Checks a cleartext-signed file and returns the text that was signed, and nothing else of it. At least one good
/// signature by a key of the keyring is needed, and no bad one may be there.
pub(crate) fn verify(url: &str, file: &str, keyring: &Path) -> Result<String, DebError> {
    let (text, signature) = split(file).map_err(|reason| DebError::Index {
        url: url.to_owned(),
        reason: format!("it is not a signed Release file: {reason}"),
    })?;
    let keyring =
        keyring.canonicalize().map_err(|_| DebError::NoKeyring { path: keyring.to_owned() })?;
    let home = tempfile::tempdir().map_err(DebError::cache(&std::env::temp_dir()))?;
    let (data, detached) = (home.path().join("data"), home.path().join("data.asc"));
    fs::write(&data, &text).map_err(DebError::cache(&data))?;
    fs::write(&detached, signature).map_err(DebError::cache(&detached))?;
    let gpgv = |command: &mut Command| {
        command.args(["--status-fd", "1", "--homedir"]).arg(home.path());
        command.arg("--keyring").arg(&keyring).arg(&detached).arg(&data);
    };
    let sqv = |command: &mut Command| {
        command.arg("--keyring").arg(&keyring).arg(&detached).arg(&data);
    };
    let refuse =
        |reason| DebError::Signature { url: url.to_owned(), keyring: keyring.clone(), reason };
    if let Some((_, status, log)) = run("gpgv", url, gpgv)? {
        // Its exit code also tells of keys that we lack, which is usual: a Release file has several signatures.
        judge(&status).map_err(|why| refuse(why.unwrap_or_else(|| last_line(&log))))?;
    } else if let Some((success, fingerprints, log)) = run("sqv", url, sqv)? {
        if !success || fingerprints.trim().is_empty() {
            return Err(refuse(last_line(&log)));
        }
    } else {
        return Err(DebError::NoVerifier { url: url.to_owned() });
    }
    Ok(text)
}

type Output = (bool, String, String);

fn run(
    program: &'static str,
    url: &str,
    arguments: impl FnOnce(&mut Command),
) -> Result<Option<Output>, DebError> {
    let mut command = Command::new(program);
    arguments(&mut command);
    command.env("LC_ALL", "C").stdin(Stdio::null());
    match command.output() {
        Ok(output) => {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            Ok(Some((output.status.success(), text(&output.stdout), text(&output.stderr))))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(DebError::RunVerifier { program, url: url.to_owned(), source }),
    }
}

/// Reads gpgv's status lines (GnuPG's doc/DETAILS). An error without text means: no signature of ours.
fn judge(status: &str) -> Result<(), Option<String>> {
    // SHA-256, SHA-384, SHA-512 (RFC 4880 §9.4); weaker hashes can be forged.
    const STRONG: [&str; 3] = ["8", "9", "10"];
    let (mut good, mut accepted) = (false, false);
    let mut why = None;
    for line in status.lines().filter_map(|it| it.strip_prefix("[GNUPG:] ")) {
        let words: Vec<_> = line.split(' ').collect();
        match words[0] {
            "NEWSIG" => good = false,
            "GOODSIG" => good = true,
            "BADSIG" => return Err(Some("the signature does not fit the text".to_owned())),
            "EXPSIG" => why = Some("the signature has expired".to_owned()),
            "EXPKEYSIG" => why = Some("the key has expired".to_owned()),
            "REVKEYSIG" => why = Some("the key has been revoked".to_owned()),
            "NO_PUBKEY" if why.is_none() => {
                why = words.get(1).map(|key| format!("the key {key} is not in it"));
            }
            "VALIDSIG" if good && words.get(8).is_some_and(|hash| STRONG.contains(hash)) => {
                accepted = true;
            }
            "VALIDSIG" if good => why = Some("its hash function is too weak".to_owned()),
            _ => {}
        }
    }
    if accepted { Ok(()) } else { Err(why) }
}

fn last_line(log: &str) -> String {
    log.lines().rev().find(|it| !it.trim().is_empty()).unwrap_or("no good signature").to_owned()
}

/// Splits a cleartext-signed file (RFC 4880 §7) into its text, in the form that was signed, and the signature.
/// Nothing may stand before, between or after.
fn split(file: &str) -> Result<(String, String), &'static str> {
    let mut lines = file.lines();
    if lines.next().map(str::trim_end) != Some(BEGIN) {
        return Err("it does not begin with a signed message");
    }
    for line in lines.by_ref() {
        if line.trim_end().is_empty() {
            break;
        }
        if !line.starts_with("Hash: ") {
            return Err("it has an unknown header");
        }
    }
    let mut text = String::with_capacity(file.len());
    let mut signed = false;
    for line in lines.by_ref() {
        let line = line.trim_end_matches([' ', '\t', '\r']);
        if line == SIGNATURE {
            signed = true;
            break;
        }
        let line = match line.strip_prefix("- ") {
            Some(line) => line,
            None if line.starts_with('-') => return Err("a line is not escaped"),
            None => line,
        };
        // The line end before the signature does not belong to the text.
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(line);
    }
    if !signed {
        return Err("it has no signature");
    }
    let mut signature = format!("{SIGNATURE}\n");
    for line in lines.by_ref() {
        signature.push_str(line);
        signature.push('\n');
        if line.trim_end() == END {
            return match lines.all(|it| it.trim().is_empty()) {
                true => Ok((text, signature)),
                false => Err("something follows the signature"),
            };
        }
    }
    Err("the signature is cut off")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: x\n- -dash  \n\nend\n\
                          -----BEGIN PGP SIGNATURE-----\n\nabc\n-----END PGP SIGNATURE-----\n";

    #[test]
    fn only_the_signed_text_is_kept() {
        let (text, signature) = split(SIGNED).unwrap();
        assert_eq!(text, "Suite: x\n-dash\n\nend");
        assert!(signature.starts_with(SIGNATURE) && signature.trim_end().ends_with(END));
    }

    #[test]
    fn text_outside_of_the_signature_is_refused() {
        for bad in [
            format!("Suite: y\n{SIGNED}"),
            format!("{SIGNED}Suite: y\n"),
            format!("{SIGNED}{SIGNED}"),
            SIGNED.replace("Hash: SHA256", "Suite: y"),
            SIGNED.replace("- -dash", BEGIN),
            SIGNED.replace(END, ""),
            SIGNED.replace(SIGNATURE, ""),
            String::new(),
        ] {
            assert!(split(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn the_status_lines_decide() {
        let valid = |hash| format!("[GNUPG:] VALIDSIG F 2026-01-01 1 0 4 0 1 {hash} 01 P\n");
        let good = format!("[GNUPG:] NEWSIG\n[GNUPG:] GOODSIG K name\n{}", valid(8));
        let lacking = "[GNUPG:] NEWSIG\n[GNUPG:] ERRSIG K 1 8 01 1 9\n[GNUPG:] NO_PUBKEY K\n";
        assert_eq!(judge(&good), Ok(()));
        assert_eq!(judge(&format!("{lacking}{good}{lacking}")), Ok(()));
        assert!(judge(lacking).unwrap_err().unwrap().contains("K is not in it"));
        assert!(judge(&format!("{good}[GNUPG:] NEWSIG\n[GNUPG:] BADSIG K n\n")).is_err());
        assert!(judge(&good.replace(" 1 8 01", " 1 2 01")).unwrap_err().unwrap().contains("weak"));
        let expired = format!("[GNUPG:] NEWSIG\n[GNUPG:] EXPKEYSIG K name\n{}", valid(8));
        assert!(judge(&expired).unwrap_err().unwrap().contains("expired"));
        assert_eq!(judge(""), Err(None));
    }

    #[test]
    fn fuzzed_signed_texts_are_split_or_refused() {
        kiln_fuzz::check("deb-signed", &[SIGNED.as_bytes()], |bytes| {
            if let Ok((text, signature)) = split(&String::from_utf8_lossy(bytes)) {
                assert!(!text.contains(SIGNATURE) && signature.starts_with(SIGNATURE));
            }
        });
    }
}
