use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::oci::Reference;

/// Which images may be used: the first rule that fits counts. An image that none fits may be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagePolicy {
    /// The rules, in order.
    pub rules: Vec<ImageRule>,
}

/// What must hold for some images: `[[trust.image]]` in `kiln.toml`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "WireRule", into = "WireRule")]
pub struct ImageRule {
    /// A host, a host and a repository, the beginning of one with `*` at its end, or `*` alone.
    pub images: String,
    /// What is done with them.
    pub verdict: Verdict,
}

/// What is done with an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is used.
    Accept,
    /// It is not used.
    Reject,
    /// It is used if one of these public keys (PEM files) has signed it.
    Signed(Vec<PathBuf>),
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct WireRule {
    images: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    cosign_keys: Vec<PathBuf>,
    #[serde(default, skip_serializing_if = "is_false")]
    accept: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    reject: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it this way")]
const fn is_false(value: &bool) -> bool {
    !*value
}

impl TryFrom<WireRule> for ImageRule {
    type Error = String;

    fn try_from(wire: WireRule) -> Result<Self, String> {
        let verdict = match (wire.accept, wire.reject, wire.cosign_keys.is_empty()) {
            (true, false, true) => Verdict::Accept,
            (false, true, true) => Verdict::Reject,
            (false, false, false) => Verdict::Signed(wire.cosign_keys),
            _ => {
                return Err(format!(
                    "the rule for `{}` needs one of `cosign-keys`, `accept = true` and `reject = true`",
                    wire.images
                ));
            }
        };
        let (start, star) = match wire.images.strip_suffix('*') {
            Some(start) => (start, true),
            None => (wire.images.as_str(), false),
        };
        let host = start.split('/').next().unwrap_or_default();
        let whole = wire.images == "*" || !host.is_empty() && (!star || start.contains('/'));
        if !whole || start.contains(['*', '@', ' ']) || start.ends_with('/') && !star {
            return Err(format!(
                "`{}` does not name images; write `registry.example`, `registry.example/team/web`, \
                 `registry.example/team/*` or `*`",
                wire.images
            ));
        }
        Ok(Self { images: wire.images, verdict })
    }
}

impl From<ImageRule> for WireRule {
    fn from(rule: ImageRule) -> Self {
        let (accept, reject) = (rule.verdict == Verdict::Accept, rule.verdict == Verdict::Reject);
        let cosign_keys = match rule.verdict {
            Verdict::Signed(keys) => keys,
            Verdict::Accept | Verdict::Reject => Vec::new(),
        };
        Self { images: rule.images, cosign_keys, accept, reject }
    }
}

impl ImagePolicy {
    /// Returns the rule that counts for an image.
    pub fn rule(&self, reference: &Reference) -> Option<&ImageRule> {
        self.rules.iter().find(|rule| rule.fits(reference))
    }
}

impl ImageRule {
    /// Returns whether it is about an image. A host is the same in capitals and with the port that goes without
    /// saying: otherwise both would be ways around a rule.
    pub fn fits(&self, reference: &Reference) -> bool {
        let name = format!("{}/{}", plain_host(reference.registry()), reference.repository());
        let (host, rest) = match self.images.split_once('/') {
            Some((host, rest)) => (host, Some(rest)),
            None => (self.images.as_str(), None),
        };
        let host = plain_host(host);
        match rest.map(|rest| (rest, rest.strip_suffix('*'))) {
            None => self.images == "*" || name.split('/').next() == Some(host.as_str()),
            Some((_, Some(start))) => name.starts_with(&format!("{host}/{start}")),
            Some((repository, None)) => name == format!("{host}/{repository}"),
        }
    }
}

fn plain_host(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    let plain = [":443", ":80"].iter().find_map(|port| host.strip_suffix(port));
    let plain = plain.unwrap_or(&host);
    // Other names under which a registry answers: those of its index and of its first server.
    let bare = ["index.", "registry-1."].iter().find_map(|start| plain.strip_prefix(start));
    bare.filter(|bare| bare.contains('.')).unwrap_or(plain).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<ImageRule, String> {
        toml::from_str(text).map_err(|error| error.message().to_owned())
    }

    #[test]
    fn a_rule_fits_its_images_however_they_are_written() {
        for (pattern, name, expected) in [
            ("registry.example", "registry.example/a:1", true),
            ("registry.example", "registry.example:443/a/b", true),
            ("registry.example", "registry.example:5000/a", false),
            ("registry.example:5000", "registry.example:5000/a", true),
            ("registry.example", "registry.example.org/a", false),
            ("registry.example/base/*", "registry.example/base/a/b:1", true),
            ("registry.example/base/*", "Registry.Example/base/a:1", true),
            ("registry.example/base/*", "registry.example/based/a", false),
            ("registry.example/base/we*", "registry.example/base/web", true),
            ("registry.example/base", "registry.example/base/a", false),
            ("registry.example/base", "registry.example/base:2", true),
            ("registry.example", "registry-1.registry.example/a", true),
            ("registry.example", "index.registry.example/a", true),
            ("*", "linuxkit/init:v1", true),
        ] {
            let rule = rule(&format!("images = \"{pattern}\"\naccept = true")).unwrap();
            assert_eq!(rule.fits(&name.parse().unwrap()), expected, "{pattern} {name}");
        }
        let short: Reference = "alpine".parse().unwrap();
        let whole = format!("images = \"{}/library/*\"\naccept = true", short.registry());
        assert!(rule(&whole).unwrap().fits(&short));
    }

    #[test]
    fn the_first_rule_that_fits_counts() {
        let reject = rule("images = \"registry.example/a/*\"\nreject = true").unwrap();
        let accept = rule("images = \"registry.example\"\naccept = true").unwrap();
        let policy = ImagePolicy { rules: vec![reject, accept] };
        let verdict =
            |name: &str| policy.rule(&name.parse().unwrap()).map(|rule| rule.verdict.clone());
        assert_eq!(verdict("registry.example/a/b"), Some(Verdict::Reject));
        assert_eq!(verdict("registry.example/b"), Some(Verdict::Accept));
        assert_eq!(verdict("other.example/b"), None);
    }

    #[test]
    fn a_rule_that_says_nothing_or_two_things_is_told() {
        for text in ["", "accept = true\nreject = true", "cosign-keys = []", "accept = false"] {
            let problem = rule(&format!("images = \"a.example\"\n{text}")).unwrap_err();
            assert!(problem.contains("needs one of `cosign-keys`"), "{problem}");
        }
        for images in ["", "/a", "a*", "a.example/", "a.example/*/b", "*/b", "a.example/b@c"] {
            let problem = rule(&format!("images = \"{images}\"\naccept = true")).unwrap_err();
            assert!(problem.contains("does not name images"), "{images}: {problem}");
        }
        let text = "images = \"a.example/*\"\ncosign-keys = [\"/k.pub\"]\n";
        assert_eq!(toml::to_string(&rule(text).unwrap()).unwrap(), text);
    }
}
