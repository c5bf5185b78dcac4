//! Package URLs: `pkg:deb/debian/bash@5.2.37-2%2Bb1?arch=amd64` (github.com/package-url/purl-spec).

use std::fmt::Write as _;

use kiln_types::Digest;

/// Escapes all but the characters that a part of a package URL may have as they are.
pub(super) fn encode(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(char::from(byte));
            }
            _ => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
        out
    })
}

/// Names a package of a distribution.
pub(super) fn package(
    kind: &str,
    namespace: Option<&str>,
    name: &str,
    version: &str,
    arch: &str,
    distro: Option<&str>,
) -> String {
    let mut text = format!("pkg:{kind}/");
    if let Some(namespace) = namespace {
        text.push_str(&encode(&namespace.to_lowercase()));
        text.push('/');
    }
    text.push_str(&format!("{}@{}", encode(&name.to_lowercase()), encode(version)));
    let arch = Some(arch).filter(|arch| !arch.is_empty());
    // Qualifiers stand in the order of their names.
    let qualifiers = [("arch", arch), ("distro", distro)];
    let mut sign = '?';
    for (key, value) in qualifiers {
        if let Some(value) = value {
            text.push_str(&format!("{sign}{key}={}", encode(value)));
            sign = '&';
        }
    }
    text
}

/// Names an image by its digest. References to local files have no repository.
pub(super) fn image(reference: &str, digest: &Digest) -> String {
    let bare = reference.split_once('@').map_or(reference, |(name, _)| name);
    let (path, tag) = match bare.rsplit_once(':') {
        // What follows the last colon may also be a port and a path.
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (bare, None),
    };
    let name = path.rsplit('/').next().unwrap_or(path);
    // In the examples of this type the colon of the digest is escaped.
    let mut text = format!("pkg:oci/{}@sha256%3A{}", encode(&name.to_lowercase()), digest.hex());
    let mut sign = '?';
    let host = path.split('/').next().unwrap_or_default();
    let local = ["oci:", "oci-archive:", "docker-archive:", "dir:"];
    if (host.contains('.') || host.contains(':') || host == "localhost")
        && !local.iter().any(|scheme| reference.starts_with(scheme))
    {
        text.push_str(&format!("?repository_url={}", encode(path)));
        sign = '&';
    }
    if let Some(tag) = tag {
        text.push_str(&format!("{sign}tag={}", encode(tag)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_have_the_form_of_the_specification() {
        assert_eq!(
            package("deb", Some("debian"), "libstdc++6", "1:14.2.0-19+b1~x", "amd64", None),
            "pkg:deb/debian/libstdc%2B%2B6@1:14.2.0-19%2Bb1~x?arch=amd64"
        );
        assert_eq!(
            package("apk", Some("alpine"), "musl", "1.2.5-r0", "", Some("alpine-3.22")),
            "pkg:apk/alpine/musl@1.2.5-r0?distro=alpine-3.22"
        );
        assert_eq!(package("deb", None, "a", "?#/%\n", "", None), "pkg:deb/a@%3F%23%2F%25%0A");
    }

    #[test]
    fn images_are_named_by_repository_and_digest() {
        let digest = Digest::from_bytes([0xab; 32]);
        let hex = digest.hex();
        for (reference, want) in [
            (
                "registry.example:5000/a/Web:1.0",
                format!(
                    "pkg:oci/web@sha256%3A{hex}?repository_url=registry.example:5000%2Fa%2FWeb&tag=1.0"
                ),
            ),
            (
                "127.0.0.1:5000/web",
                format!("pkg:oci/web@sha256%3A{hex}?repository_url=127.0.0.1:5000%2Fweb"),
            ),
            (
                &format!("registry.example/web@{digest}"),
                format!("pkg:oci/web@sha256%3A{hex}?repository_url=registry.example%2Fweb"),
            ),
            ("oci:images/web:edge", format!("pkg:oci/web@sha256%3A{hex}?tag=edge")),
        ] {
            assert_eq!(image(reference, &digest), want);
        }
    }
}
