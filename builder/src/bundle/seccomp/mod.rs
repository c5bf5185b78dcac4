//! Which system calls a container can make (OCI runtime specification, `linux.seccomp`).

mod check;

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use kiln_types::Arch;
use serde_json::{Value, json};

use super::BundleError;
use crate::spec::Seccomp;

/// The most that a profile may have, in bytes.
const LARGEST: u64 = 1 << 20;
const DEFAULT: &str = include_str!("default.txt");
/// `ENOSYS`: a program library goes another way then.
const NOT_THERE: u32 = 38;
/// `AF_VSOCK`: sockets to the host of a virtual machine, past every network namespace.
const AF_VSOCK: u32 = 40;
/// The flags of `clone(2)` that make namespaces: CLONE_NEWNS and the others from CLONE_NEWCGROUP to CLONE_NEWNET.
const NEW_NAMESPACES: u32 = 0x7E02_0000;
/// What `personality(2)` may set: Linux, with 16-bit user ids (PER_LINUX32 = 8), UNAME26, both, and "tell me".
const PERSONALITIES: [u32; 5] = [0, 8, 0x0002_0000, 0x0002_0008, 0xffff_ffff];

/// A profile.
#[derive(Clone, Debug, PartialEq)]
pub enum Profile {
    /// The built-in one: what programs need, and nothing that reaches beyond their container. It allows more to a
    /// container with more capabilities.
    Default,
    /// One from a file, as it goes into `config.json`.
    Given(Value),
}

impl Profile {
    /// Returns the profile that a container names, or none when it may make every system call.
    ///
    /// # Errors
    ///
    /// As [`Profile::read`].
    pub fn load(named: &Seccomp) -> Result<Option<Self>, BundleError> {
        match named {
            Seccomp::Unconfined => Ok(None),
            Seccomp::Default => Ok(Some(Self::Default)),
            Seccomp::File(file) => Self::read(file.path()).map(Some),
        }
    }

    /// Reads a profile from a file of the build host.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be read, is larger than 1 MiB, or is not a section `linux.seccomp` as the OCI runtime
    /// specification has it.
    pub fn read(path: &Path) -> Result<Self, BundleError> {
        let failed = |source| BundleError::ReadProfile { path: path.into(), source };
        let mut text = Vec::new();
        let mut file = File::open(path).map_err(failed)?.take(LARGEST + 1);
        file.read_to_end(&mut text).map_err(failed)?;
        let wrong = |problem| BundleError::Profile { path: path.into(), problem };
        if text.len() as u64 > LARGEST {
            return Err(wrong(format!("it has more than {LARGEST} bytes")));
        }
        check::parse(&text).map(Self::Given).map_err(wrong)
    }

    /// Returns the section for a container with these capabilities.
    pub(super) fn section(&self, capabilities: &[String], arch: Arch) -> Value {
        match self {
            Self::Default => default_section(capabilities, arch),
            Self::Given(section) => section.clone(),
        }
    }
}

fn default_section(capabilities: &[String], arch: Arch) -> Value {
    let has = |word: &str| capabilities.iter().any(|name| name == word);
    let applies = |word: &str| match word {
        "always" => true,
        "x86_64" => arch == Arch::X86_64,
        "arm64" => arch == Arch::Arm64,
        capability => has(capability),
    };
    let lines = DEFAULT.lines().filter(|line| !line.starts_with('#'));
    let groups = lines.filter_map(|line| line.split_once(": "));
    let mut names: Vec<_> =
        groups.filter(|(word, _)| applies(word)).flat_map(|(_, names)| names.split(' ')).collect();
    names.sort_unstable();
    names.dedup();
    let mut calls = vec![json!({"names": names, "action": "SCMP_ACT_ALLOW"})];
    calls.extend(PERSONALITIES.map(|persona| {
        allow_if("personality", &json!({"index": 0, "value": persona, "op": "SCMP_CMP_EQ"}))
    }));
    calls.push(allow_if("socket", &json!({"index": 0, "value": AF_VSOCK, "op": "SCMP_CMP_NE"})));
    if !has("CAP_SYS_ADMIN") {
        let none_of = json!({
            "index": 0, "value": NEW_NAMESPACES, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ",
        });
        calls.push(allow_if("clone", &none_of));
        // Its flags are behind a pointer, where no filter sees them.
        calls.push(json!({"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": NOT_THERE}));
    }
    let architectures: &[&str] = match arch {
        Arch::X86_64 => &["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        Arch::Arm64 => &["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
    };
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": architectures,
        "syscalls": calls,
    })
}

fn allow_if(name: &str, condition: &Value) -> Value {
    json!({"names": [name], "action": "SCMP_ACT_ALLOW", "args": [condition]})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(capabilities: &[&str], arch: Arch) -> Vec<String> {
        let capabilities: Vec<_> = capabilities.iter().map(ToString::to_string).collect();
        let section = Profile::Default.section(&capabilities, arch);
        section["syscalls"][0]["names"]
            .as_array()
            .unwrap()
            .iter()
            .map(|name| name.as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn the_default_profile_allows_what_programs_need_and_no_mounts() {
        let plain = names(&[], Arch::X86_64);
        for name in ["read", "openat", "futex", "execve", "arch_prctl", "mseal"] {
            assert!(plain.iter().any(|n| n == name), "{name}");
        }
        for name in ["mount", "init_module", "reboot", "bpf", "io_uring_setup", "keyctl", "clone"] {
            assert!(!plain.iter().any(|n| n == name), "{name}");
        }
        assert!(plain.len() > 300);
    }

    #[test]
    fn the_default_profile_follows_capabilities_and_architecture() {
        let admin = names(&["CAP_SYS_ADMIN", "CAP_SYS_MODULE"], Arch::Arm64);
        for name in ["mount", "clone3", "finit_module", "sync_file_range2"] {
            assert!(admin.iter().any(|n| n == name), "{name}");
        }
        assert!(!admin.iter().any(|n| n == "arch_prctl"));
    }

    #[test]
    fn a_container_that_may_not_administrate_makes_no_namespaces() {
        let section = Profile::Default.section(&[], Arch::X86_64);
        let calls = section["syscalls"].as_array().unwrap();
        let rule = |name: &str| calls.iter().find(|rule| rule["names"][0] == name).unwrap();
        assert_eq!(rule("clone")["args"][0]["value"], 2_114_060_288_u32);
        assert_eq!(rule("clone3")["errnoRet"], 38);
        assert_eq!(section["architectures"][0], "SCMP_ARCH_X86_64");
    }

    #[test]
    fn the_default_profile_passes_its_own_check() {
        for arch in Arch::ALL {
            let section = Profile::Default.section(&["CAP_BPF".to_owned()], arch);
            check::parse(&serde_json::to_vec(&section).unwrap()).unwrap();
        }
    }

    #[test]
    fn a_profile_from_a_file_is_taken_as_it_is_or_refused_with_the_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("web.json");
        let text = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[]}"#;
        std::fs::write(&path, text).unwrap();
        let profile = Profile::read(&path).unwrap();
        assert_eq!(profile.section(&[], Arch::Arm64), serde_json::from_str::<Value>(text).unwrap());

        std::fs::write(&path, "{").unwrap();
        let error = Profile::read(&path).unwrap_err().to_string();
        assert!(error.contains("web.json` is wrong: it is not JSON"), "{error}");
        assert!(matches!(
            Profile::read(&dir.path().join("none.json")),
            Err(BundleError::ReadProfile { .. })
        ));
    }
}
