//! What a version consists of, and who says so. Pure.

use ed25519_compact::{PublicKey, Signature};
use serde::Deserialize;

use super::error::KexecError;
use crate::hex;

/// The most that a manifest may have.
pub(super) const LARGEST_MANIFEST: u64 = 4 << 20;
/// Kernel and initrd together.
const LARGEST_VERSION: u64 = 16 << 30;
const MOST_SEGMENTS: usize = 1024;

/// The part of a manifest that matters to starting it.
#[derive(Debug, Deserialize)]
pub(super) struct Manifest {
    pub(super) image: String,
    arch: String,
    pub(super) kernel: Part,
    pub(super) segments: Vec<Part>,
    #[serde(default)]
    cmdline: String,
    #[serde(default)]
    pub(super) min_ram: u64,
}

#[derive(Debug, Deserialize)]
pub(super) struct Part {
    pub(super) digest: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) component: String,
}

impl Manifest {
    pub(super) fn read(bytes: &[u8]) -> Result<Self, KexecError> {
        let bad = |why: &str| KexecError::Manifest(why.to_owned());
        let manifest: Self =
            serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
        let here = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
        if manifest.arch != here {
            return Err(bad("it is for another architecture"));
        }
        if manifest.segments.len() > MOST_SEGMENTS {
            return Err(bad("it has too many segments"));
        }
        if manifest.size() > LARGEST_VERSION {
            return Err(bad("it is too large"));
        }
        // A name is part of an address.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if !manifest.segments.iter().all(|part| part.component.bytes().all(plain)) {
            return Err(bad("a segment has a name that is none"));
        }
        Ok(manifest)
    }

    /// Returns the length of all its files together.
    pub(super) fn size(&self) -> u64 {
        let sizes = self.segments.iter().map(|part| part.size);
        sizes.fold(self.kernel.size, u64::saturating_add)
    }

    /// Returns the segments before the machine's own and those after it, as loaders have them: only microcode is before
    /// it.
    pub(super) fn around_machine(&self) -> (&[Part], &[Part]) {
        let first = self.segments.iter().take_while(|part| part.component == "ucode").count();
        self.segments.split_at(first)
    }

    /// Returns its kernel arguments with those of the machine behind them.
    pub(super) fn cmdline_with(&self, machine: &str) -> String {
        format!("{} {}", self.cmdline.trim(), machine.trim()).trim().to_owned()
    }
}

/// Checks that one of the keys has signed the version. A machine without keys is of a site that does not sign.
pub(super) fn check_signature(
    version: &str,
    signature: Option<&str>,
    keys: &[String],
) -> Result<(), KexecError> {
    if keys.is_empty() {
        return Ok(());
    }
    let message = format!("kiln-manifest-v1\n{version}\n");
    let signature = signature.and_then(hex::array::<64>).map(Signature::new);
    let good = signature.is_some_and(|signature| {
        let mut known = keys.iter().filter_map(|key| hex::array::<32>(key)).map(PublicKey::new);
        known.any(|key| key.verify(&message, &signature).is_ok())
    });
    if good { Ok(()) } else { Err(KexecError::Signature) }
}

/// Returns a number of bytes of `/proc/meminfo`.
pub(super) fn memory(info: &str, name: &str) -> Option<u64> {
    let line = info.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made by another program: the signature of the two lines for the version `sha256:00…00` by the key of 32 bytes 01.
    const KEY: &str = "8a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c";

    fn manifest(change: (&str, &str)) -> Result<Manifest, String> {
        let arch = if cfg!(target_arch = "aarch64") { "arm64" } else { "x86_64" };
        let text = format!(
            r#"{{"schema":2,"image":"web","arch":"{arch}","cmdline":"quiet ","min_ram":9,
            "kernel":{{"digest":"sha256:00","size":5,"release":"6","efi_stub":true}},
            "segments":[{{"component":"init","digest":"sha256:01","size":7,"unpacked":9}}]}}"#
        );
        let text = text.replace(change.0, change.1);
        Manifest::read(text.as_bytes()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_manifest_says_what_to_fetch_and_how_to_start_it() {
        let manifest = manifest(("", "")).unwrap();
        assert_eq!((manifest.size(), manifest.segments[0].component.as_str()), (12, "init"));
        assert_eq!(manifest.cmdline_with(" debug"), "quiet debug");
        assert_eq!(manifest.cmdline_with(""), "quiet");
    }

    #[test]
    fn a_manifest_that_makes_no_sense_is_refused() {
        let huge = format!("\"size\":{}", u64::MAX);
        for (change, expected) in [
            (("\"image\"", "\"name\""), "missing field"),
            (("64\"", "65\""), "another architecture"),
            (("\"size\":7", huge.as_str()), "too large"),
            (("\"init\"", "\"a/../b\""), "a name that is none"),
            (("\"size\":5", "\"size\":-5"), "invalid value"),
        ] {
            let error = manifest(change).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn only_the_signature_of_a_known_key_counts() {
        let pair = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([1; 32]));
        let version = format!("sha256:{}", "00".repeat(32));
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let sign = |text: &str| hex(pair.sk.sign(text, None).as_ref());
        let good = sign(&format!("kiln-manifest-v1\n{version}\n"));
        assert_eq!(hex(pair.pk.as_ref()), KEY);
        let other = "3b6a27bcceb6a42d62a3a8d02a6f0d73653215771de243a63ac048a18b59da29".to_owned();
        let keys = vec![other.clone(), KEY.to_owned()];
        let check = |version: &str, signature: Option<&str>, keys: &[String]| {
            check_signature(version, signature, keys).is_ok()
        };
        assert!(check(&version, Some(&good), &keys));
        assert!(check(&version, None, &[]), "a site that does not sign");
        let another = version.replace(":00", ":01");
        for (version, signature, keys) in [
            (version.as_str(), None, keys.as_slice()),
            (&version, Some(""), &keys),
            (&version, Some("zz"), &keys),
            (&another, Some(&good), &keys),
            (&version, Some(&sign(&version)), &keys),
            (&version, Some(&good), &[other]),
            (&version, Some(&good), &["nonsense".to_owned()]),
        ] {
            assert!(!check(version, signature, keys), "{version} {signature:?} {keys:?}");
        }
    }

    #[test]
    fn memory_is_read_from_the_kernels_list() {
        let info = "MemTotal:         640000 kB\nMemFree:  1 kB\nMemAvailable:     500 kB\n";
        assert_eq!(memory(info, "MemTotal:"), Some(640_000 * 1024));
        assert_eq!(memory(info, "MemAvailable:"), Some(512_000));
        assert_eq!(memory(info, "Swap:"), None);
    }
}
