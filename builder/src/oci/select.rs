//! Picks the image for an architecture out of an index.

use kiln_types::Arch;

use super::document::{Configuration, Descriptor, Platform, is_attestation};

/// Returns the name that OCI, like Go, has for an architecture.
pub(crate) const fn oci_name(arch: Arch) -> &'static str {
    match arch {
        Arch::X86_64 => "amd64",
        Arch::Arm64 => "arm64",
    }
}

/// Tells how well a platform fits: the lower the better, nothing when it does not. For x86_64, plain `amd64` runs
/// everywhere while `v2` to `v4` need newer processors; every arm64 is a `v8`.
fn fit(platform: &Platform, arch: Arch) -> Option<u8> {
    let linux = platform.os.is_empty() || platform.os == "linux";
    if !linux || platform.architecture != oci_name(arch) {
        return None;
    }
    match (arch, platform.variant.as_deref().unwrap_or_default()) {
        (Arch::X86_64, "" | "v1") | (Arch::Arm64, "v8") => Some(0),
        (Arch::Arm64, "") => Some(1),
        _ => None,
    }
}

/// Picks the entry for an architecture. Where entries do not say what they run on, a single one is taken: its
/// configuration will tell.
///
/// # Errors
///
/// Returns the platforms that there are.
pub(crate) fn pick(entries: &[Descriptor], arch: Arch) -> Result<&Descriptor, Vec<String>> {
    let images: Vec<_> = entries.iter().filter(|entry| !is_attestation(entry)).collect();
    let best = images
        .iter()
        .filter_map(|entry| Some((fit(entry.platform.as_ref()?, arch)?, *entry)))
        .min_by_key(|(fit, _)| *fit);
    if let Some((_, entry)) = best {
        return Ok(entry);
    }
    if let [only] = images.as_slice()
        && only.platform.is_none()
    {
        return Ok(only);
    }
    let mut there: Vec<_> = images.iter().map(|entry| name(entry.platform.as_ref())).collect();
    there.sort();
    there.dedup();
    Err(there)
}

/// Returns whether a configuration is for an architecture; otherwise, what it is for.
pub(crate) fn check(config: &Configuration, arch: Arch) -> Result<(), String> {
    let platform = Platform {
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone(),
    };
    fit(&platform, arch).map(drop).ok_or_else(|| name(Some(&platform)))
}

/// Returns `linux/arm64/v8`.
pub(crate) fn name(platform: Option<&Platform>) -> String {
    let Some(platform) = platform else { return "one that is not told".to_owned() };
    let os = if platform.os.is_empty() { "linux" } else { &platform.os };
    let variant = platform.variant.as_deref().filter(|variant| !variant.is_empty());
    let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
    format!("{os}/{}{variant}", platform.architecture)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kiln_types::Digest;

    use super::*;

    fn entry(n: u8, platform: Option<(&str, &str, &str)>) -> Descriptor {
        Descriptor {
            media_type: String::new(),
            digest: Digest::from_bytes([n; 32]),
            size: 1,
            platform: platform.map(|(os, architecture, variant)| Platform {
                architecture: architecture.to_owned(),
                os: os.to_owned(),
                variant: (!variant.is_empty()).then(|| variant.to_owned()),
            }),
            annotations: BTreeMap::new(),
            artifact_type: None,
        }
    }

    #[test]
    fn the_variant_that_runs_everywhere_is_taken() {
        let entries = [
            entry(1, Some(("unknown", "unknown", ""))),
            entry(2, Some(("linux", "amd64", "v3"))),
            entry(3, Some(("linux", "arm", "v7"))),
            entry(4, Some(("windows", "amd64", ""))),
            entry(5, Some(("linux", "amd64", ""))),
            entry(6, Some(("linux", "arm64", ""))),
            entry(7, Some(("linux", "arm64", "v8"))),
        ];
        assert_eq!(pick(&entries, Arch::X86_64).unwrap(), &entries[4]);
        assert_eq!(pick(&entries, Arch::Arm64).unwrap(), &entries[6]);
        let there = pick(&entries[..4], Arch::Arm64).unwrap_err();
        assert_eq!(there, ["linux/amd64/v3", "linux/arm/v7", "windows/amd64"]);
    }

    #[test]
    fn a_single_entry_without_a_platform_is_taken_and_an_attestation_never() {
        let one = [entry(1, None)];
        assert_eq!(pick(&one, Arch::Arm64).unwrap(), &one[0]);
        let mut attestation = entry(2, None);
        let kind = ("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
        attestation.annotations = BTreeMap::from([kind]);
        assert_eq!(pick(&[one[0].clone(), attestation.clone()], Arch::Arm64).unwrap(), &one[0]);
        assert!(pick(&[attestation], Arch::Arm64).unwrap_err().is_empty());
        assert!(pick(&[one[0].clone(), one[0].clone()], Arch::Arm64).is_err());
    }

    #[test]
    fn a_configuration_for_something_else_is_told() {
        let config = |arch: &str| {
            Configuration::parse(format!(r#"{{"architecture":"{arch}","os":"linux"}}"#).as_bytes())
                .unwrap()
        };
        assert_eq!(check(&config("amd64"), Arch::X86_64), Ok(()));
        assert_eq!(check(&config("amd64"), Arch::Arm64).unwrap_err(), "linux/amd64");
    }
}
