//! Compares an image with what the Kernel Self-Protection Project recommends.

mod list;

use std::collections::BTreeMap;
use std::fmt;

use kiln_types::Arch;
use serde::Serialize;

use super::KernelConfig;

/// What is known of an image.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// What it runs on.
    pub arch: Arch,
    /// What its kernel was built with, if that is known.
    pub config: Option<&'a KernelConfig>,
    /// Arguments of its kernel.
    pub cmdline: &'a str,
    /// Parameters that it sets, by name with dots.
    pub sysctls: &'a BTreeMap<String, String>,
}

/// One recommendation, and what the image has instead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it is set.
    pub place: FindingPlace,
    /// Name of the setting.
    pub name: &'static str,
    /// What is recommended.
    pub recommended: String,
    /// What the image has, if that is known.
    pub found: Option<String>,
    /// How the two compare.
    pub verdict: Verdict,
    /// What it is for.
    pub why: &'static str,
}

/// Where something is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FindingPlace {
    /// When the kernel is built.
    Config,
    /// In the kernel's arguments.
    Cmdline,
    /// While it runs.
    Sysctl,
}

/// How an image compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// As recommended.
    Ok,
    /// Otherwise.
    Differs,
    /// The image does not say.
    Unknown,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Differs => "differs",
            Self::Unknown => "unknown",
        })
    }
}

impl fmt::Display for FindingPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Config => "config",
            Self::Cmdline => "cmdline",
            Self::Sysctl => "sysctl",
        })
    }
}

/// What a setting should be.
#[derive(Clone, Copy)]
enum Want {
    /// Not set, or `n`.
    Off,
    Is(&'static str),
    AtLeast(i64),
}

struct Rule {
    name: &'static str,
    want: Want,
    /// The only architecture that it is for.
    arch: Option<Arch>,
    /// An option of the kernel that does the same by default.
    by_config: Option<(&'static str, Want)>,
    why: &'static str,
}

impl Want {
    fn text(self) -> String {
        match self {
            Self::Off => "off".to_owned(),
            Self::Is("") => "given".to_owned(),
            Self::Is(value) => value.to_owned(),
            Self::AtLeast(least) => format!("{least} or more"),
        }
    }

    fn fits(self, found: Option<&str>) -> bool {
        match self {
            Self::Off => found.is_none(),
            Self::Is(value) => found == Some(value),
            Self::AtLeast(least) => {
                found.and_then(|found| found.parse().ok()).is_some_and(|n: i64| n >= least)
            }
        }
    }
}

/// Compares every recommendation for the architecture: options of the kernel, its arguments, then its parameters.
pub fn check(facts: &Facts<'_>) -> Vec<Finding> {
    let arguments = arguments(facts.cmdline);
    let for_it = |rule: &&Rule| rule.arch.is_none_or(|arch| arch == facts.arch);
    let config = list::CONFIG.iter().filter(for_it).map(|rule| {
        let found = facts.config.map(|config| config.get(rule.name));
        let verdict = match found {
            None => Verdict::Unknown,
            Some(found) if rule.want.fits(found) => Verdict::Ok,
            Some(_) => Verdict::Differs,
        };
        let found = found.map(|found| found.unwrap_or("off").to_owned());
        finding(FindingPlace::Config, rule, found, verdict)
    });
    let cmdline = list::CMDLINE.iter().filter(for_it).map(|rule| {
        let given = arguments.get(rule.name).copied();
        given_or_default(FindingPlace::Cmdline, rule, given, facts.config)
    });
    let sysctl = list::SYSCTL.iter().filter(for_it).map(|rule| {
        let given = facts.sysctls.get(rule.name).map(String::as_str);
        given_or_default(FindingPlace::Sysctl, rule, given, facts.config)
    });
    config.chain(cmdline).chain(sysctl).collect()
}

/// Judges what is given; where nothing is, the kernel's own default may be known from an option of it.
fn given_or_default(
    place: FindingPlace,
    rule: &Rule,
    given: Option<&str>,
    config: Option<&KernelConfig>,
) -> Finding {
    if let Some(value) = given {
        let verdict = if rule.want.fits(given) { Verdict::Ok } else { Verdict::Differs };
        return finding(place, rule, Some(value.to_owned()), verdict);
    }
    match (rule.by_config, config) {
        (Some((option, value)), Some(config)) => {
            let found = config.get(option);
            let verdict = if value.fits(found) { Verdict::Ok } else { Verdict::Differs };
            let found = format!("CONFIG_{option}={}", found.unwrap_or("n"));
            finding(place, rule, Some(found), verdict)
        }
        (Some(_), None) => finding(place, rule, None, Verdict::Unknown),
        // The kernel's default is another: it would not be in the list otherwise. Parameters may be set by a program.
        (None, _) if place == FindingPlace::Cmdline => finding(place, rule, None, Verdict::Differs),
        (None, _) => finding(place, rule, None, Verdict::Unknown),
    }
}

fn finding(place: FindingPlace, rule: &Rule, found: Option<String>, verdict: Verdict) -> Finding {
    let recommended = rule.want.text();
    Finding { place, name: rule.name, recommended, found, verdict, why: rule.why }
}

/// Returns the arguments of a command line by name, the last of each; what has no value has an empty one.
fn arguments(cmdline: &str) -> BTreeMap<&str, &str> {
    cmdline.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, ""))).collect()
}

/// Adds the settings of a file of `sysctl.d(5)`: `name = value`, with dots or slashes in the name.
pub fn add_sysctls(text: &str, out: &mut BTreeMap<String, String>) {
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        if let Some((name, value)) = line.split_once('=') {
            let name = name.trim().trim_start_matches('-').replace('/', ".");
            out.insert(name, value.trim().to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn verdict(findings: &[Finding], name: &str) -> Verdict {
        findings.iter().find(|finding| finding.name == name).unwrap().verdict
    }

    #[test]
    fn each_setting_is_judged_by_what_is_given_and_else_by_the_kernels_default() {
        let text = "CONFIG_BUG=y\nCONFIG_KEXEC=y\nCONFIG_DEFAULT_MMAP_MIN_ADDR=65536\nCONFIG_INIT_ON_ALLOC_DEFAULT_ON=y\n";
        let config = KernelConfig::read(text.as_bytes()).unwrap().unwrap();
        let mut sysctls = BTreeMap::new();
        add_sysctls("# x = y\nkernel/kptr_restrict=2\n-fs.suid_dumpable = 1\n", &mut sysctls);
        let cmdline = "console=ttyS0 slab_nomerge init_on_free=0 init_on_free=1 pti=off";
        let facts = Facts { arch: Arch::X86_64, config: Some(&config), cmdline, sysctls: &sysctls };
        let findings = check(&facts);
        for (name, wanted) in [
            ("BUG", Verdict::Ok),
            ("KEXEC", Verdict::Differs),
            ("PROC_KCORE", Verdict::Ok),
            ("DEFAULT_MMAP_MIN_ADDR", Verdict::Ok),
            ("VMAP_STACK", Verdict::Differs),
            ("init_on_alloc", Verdict::Ok),
            ("init_on_free", Verdict::Ok),
            ("slab_nomerge", Verdict::Ok),
            ("pti", Verdict::Differs),
            ("mitigations", Verdict::Differs),
            ("kernel.kptr_restrict", Verdict::Ok),
            ("fs.suid_dumpable", Verdict::Differs),
            ("kernel.dmesg_restrict", Verdict::Differs),
            ("kernel.warn_limit", Verdict::Unknown),
        ] {
            assert_eq!(verdict(&findings, name), wanted, "{name}");
        }
    }

    #[test]
    fn without_a_configuration_nothing_is_said_of_it() {
        let sysctls = BTreeMap::new();
        let facts = Facts { arch: Arch::Arm64, config: None, cmdline: "", sysctls: &sysctls };
        let findings = check(&facts);
        let config = findings.iter().filter(|finding| finding.place == FindingPlace::Config);
        assert!(config.clone().all(|finding| finding.verdict == Verdict::Unknown));
        assert_eq!(verdict(&findings, "init_on_alloc"), Verdict::Unknown);
        assert!(findings.iter().all(|finding| finding.name != "pti"), "that is for x86_64");
    }

    #[test]
    fn no_setting_is_in_the_list_twice() {
        for arch in [Arch::X86_64, Arch::Arm64] {
            let sysctls = BTreeMap::new();
            let findings = check(&Facts { arch, config: None, cmdline: "", sysctls: &sysctls });
            let names: BTreeSet<_> = findings.iter().map(|finding| finding.name).collect();
            assert_eq!(names.len(), findings.len());
        }
    }
}
