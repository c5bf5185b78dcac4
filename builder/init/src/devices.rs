//! Which devices a container can use (OCI runtime specification, `linux.resources.devices`).
//!
//! Control groups of version 2 have no list of devices; they ask a program. The rules are made
//! into one: the last rule that fits decides, and what no rule fits is refused.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use libcontainer::oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, Spec};

use crate::container::group_of;
use crate::sys;

/// `BPF_DEVCG_ACC_*` of linux/bpf.h.
const MAKE: u32 = 1;
const READ: u32 = 2;
const WRITE: u32 = 4;
const EVERYTHING: u32 = MAKE | READ | WRITE;
/// `BPF_DEVCG_DEV_*` of linux/bpf.h.
const BLOCK: u32 = 1;
const CHARACTER: u32 = 2;

/// The rules could not be put into force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DevicesError {
    #[error("find the control group")]
    Find(#[source] std::io::Error),
    #[error("open the control group {}", path.display())]
    Open { path: PathBuf, source: std::io::Error },
    #[error("load the rules for devices into the kernel")]
    Load(#[source] nix::Error),
}

/// One rule. What is `None` is any.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Option<u32>,
    major: Option<u32>,
    minor: Option<u32>,
    access: u32,
}

/// A program that is ready to be put into force.
#[derive(Debug)]
pub(crate) struct Devices(Vec<u64>);

impl Devices {
    /// Makes the program for a container, or none for one that has the machine's `/dev`: what it
    /// sees there it can use.
    pub(crate) fn of(spec: &Spec) -> Option<Self> {
        let option = |option: &String| option == "bind" || option == "rbind";
        let mut mounts = spec.mounts().iter().flatten();
        let shows_all = mounts.any(|mount| {
            mount.destination() == Path::new("/dev")
                && (mount.typ().as_deref() == Some("bind")
                    || mount.options().iter().flatten().any(option))
        });
        if shows_all {
            return None;
        }
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
        let given = resources.and_then(|resources| resources.devices().as_ref());
        let rules: Vec<_> = given.into_iter().flatten().map(rule).chain(always()).collect();
        Some(Self(program(&rules)))
    }

    /// Puts the program into force for the control group of a process.
    pub(crate) fn limit(&self, pid: i32) -> Result<(), DevicesError> {
        // That of the machine would limit the machine.
        let path =
            group_of(pid).ok_or_else(|| DevicesError::Find(std::io::ErrorKind::NotFound.into()))?;
        let directory = File::open(&path).map_err(|source| DevicesError::Open { path, source })?;
        sys::limit_devices(directory.as_fd(), &self.0).map_err(DevicesError::Load)
    }
}

fn rule(given: &LinuxDeviceCgroup) -> Rule {
    // A negative number stands for any.
    let number = |number: Option<i64>| number.and_then(|number| u32::try_from(number).ok());
    let letters = given.access().as_deref().unwrap_or("rwm");
    let bit = |letter| match letter {
        'r' => READ,
        'w' => WRITE,
        'm' => MAKE,
        _ => 0,
    };
    Rule {
        allow: given.allow(),
        kind: match given.typ().unwrap_or_default() {
            LinuxDeviceType::B => Some(BLOCK),
            LinuxDeviceType::C | LinuxDeviceType::U => Some(CHARACTER),
            LinuxDeviceType::A | LinuxDeviceType::P => None,
        },
        major: number(given.major()),
        minor: number(given.minor()),
        access: letters.chars().map(bit).fold(0, |all, bit| all | bit),
    }
}

/// What every container can use whatever its rules are: the devices that the specification gives
/// it (null, zero, full, random, urandom, tty, ptmx and terminals), and making nodes, which gives
/// no use of them.
fn always() -> impl Iterator<Item = Rule> {
    let nodes = [BLOCK, CHARACTER].map(|kind| Rule {
        allow: true,
        kind: Some(kind),
        major: None,
        minor: None,
        access: MAKE,
    });
    let devices = [
        (1, Some(3)),
        (1, Some(5)),
        (1, Some(7)),
        (1, Some(8)),
        (1, Some(9)),
        (5, Some(0)),
        (5, Some(2)),
        (136, None),
    ]
    .map(|(major, minor)| Rule {
        allow: true,
        kind: Some(CHARACTER),
        major: Some(major),
        minor,
        access: EVERYTHING,
    });
    nodes.into_iter().chain(devices)
}

/// Registers: what is returned, the question, then type, access, major and minor in it.
const RESULT: u8 = 0;
const QUESTION: u8 = 1;
const KIND: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;
/// Free once the question has been read.
const SCRATCH: u8 = 1;

/// Operations (linux/bpf.h, linux/bpf_common.h).
const LOAD: u8 = 0x61;
const AND: u8 = 0x54;
const SHIFT_RIGHT: u8 = 0x74;
const MOVE: u8 = 0xbc;
const SET: u8 = 0xb4;
const JUMP_IF_EQUAL: u8 = 0x16;
const JUMP_UNLESS_EQUAL: u8 = 0x56;
const JUMP_UNLESS_SAME: u8 = 0x5e;
const EXIT: u8 = 0x95;

/// `struct bpf_insn`: operation, registers, offset of a jump or load, number.
const fn instruction(operation: u8, to: u8, from: u8, offset: u8, number: u32) -> u64 {
    let registers =
        if cfg!(target_endian = "little") { to | (from << 4) } else { (to << 4) | from };
    operation as u64 | ((registers as u64) << 8) | ((offset as u64) << 16) | ((number as u64) << 32)
}

fn program(rules: &[Rule]) -> Vec<u64> {
    // `struct bpf_cgroup_dev_ctx`: access in the upper and type in the lower half, major, minor.
    let mut program = vec![
        instruction(LOAD, KIND, QUESTION, 0, 0),
        instruction(AND, KIND, 0, 0, 0xffff),
        instruction(LOAD, ACCESS, QUESTION, 0, 0),
        instruction(SHIFT_RIGHT, ACCESS, 0, 0, 16),
        instruction(LOAD, MAJOR, QUESTION, 4, 0),
        instruction(LOAD, MINOR, QUESTION, 8, 0),
    ];
    for rule in rules.iter().rev() {
        let tests = tests(rule);
        let always = tests.is_empty();
        // Over the rest of the tests and the two instructions of the answer.
        let length = u8::try_from(tests.len()).unwrap_or(u8::MAX);
        for (n, test) in (0..).zip(tests) {
            let over = if test.jumps { length - n + 1 } else { 0 };
            program.push(instruction(test.operation, test.register, test.from, over, test.number));
        }
        program.push(instruction(SET, RESULT, 0, 0, u32::from(rule.allow)));
        program.push(instruction(EXIT, 0, 0, 0, 0));
        if always {
            // The kernel refuses a program of which a part is never reached.
            return program;
        }
    }
    program.push(instruction(SET, RESULT, 0, 0, 0));
    program.push(instruction(EXIT, 0, 0, 0, 0));
    program
}

struct Test {
    operation: u8,
    register: u8,
    from: u8,
    number: u32,
    jumps: bool,
}

/// Instructions that jump away unless the rule fits.
fn tests(rule: &Rule) -> Vec<Test> {
    let unless = |register, number| Test {
        operation: JUMP_UNLESS_EQUAL,
        register,
        from: 0,
        number,
        jumps: true,
    };
    let step =
        |operation, from, number| Test { operation, register: SCRATCH, from, number, jumps: false };
    let mut tests = Vec::new();
    tests.extend(rule.kind.map(|kind| unless(KIND, kind)));
    if rule.access != EVERYTHING {
        tests.push(step(MOVE, ACCESS, 0));
        tests.push(step(AND, 0, rule.access));
        // All that is wanted must be allowed; any of it can be refused.
        tests.push(if rule.allow {
            Test { jumps: true, ..step(JUMP_UNLESS_SAME, ACCESS, 0) }
        } else {
            Test { jumps: true, ..step(JUMP_IF_EQUAL, 0, 0) }
        });
    }
    tests.extend(rule.major.map(|major| unless(MAJOR, major)));
    tests.extend(rule.minor.map(|minor| unless(MINOR, minor)));
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as the kernel would.
    fn ask(program: &[u64], kind: u32, access: u32, major: u32, minor: u32) -> bool {
        let question = [(access << 16) | kind, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let word = program[at];
            at += 1;
            let [operation, pair, offset, ..] = word.to_le_bytes();
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let number = u32::try_from(word >> 32).unwrap();
            let jump = usize::from(offset);
            match operation {
                LOAD => registers[to] = question[jump / 4],
                AND => registers[to] &= number,
                SHIFT_RIGHT => registers[to] >>= number,
                MOVE => registers[to] = registers[from],
                SET => registers[to] = number,
                JUMP_IF_EQUAL => at += if registers[to] == number { jump } else { 0 },
                JUMP_UNLESS_EQUAL => at += if registers[to] == number { 0 } else { jump },
                JUMP_UNLESS_SAME => at += if registers[to] == registers[from] { 0 } else { jump },
                EXIT => return registers[0] == 1,
                other => panic!("operation {other:#x}"),
            }
        }
    }

    fn spec(devices: &str, mounts: &str) -> Spec {
        serde_json::from_str(&format!(
            r#"{{"ociVersion":"1.2.1","mounts":[{mounts}],
                 "linux":{{"resources":{{"devices":[{devices}]}}}}}}"#
        ))
        .unwrap()
    }

    fn of(devices: &str) -> Vec<u64> {
        Devices::of(&spec(devices, "")).unwrap().0
    }

    #[test]
    fn without_rules_a_container_has_only_what_all_have() {
        let program = of("");
        assert!(ask(&program, CHARACTER, READ | WRITE, 1, 3));
        assert!(ask(&program, CHARACTER, EVERYTHING, 136, 7));
        assert!(ask(&program, BLOCK, MAKE, 8, 0));
        assert!(!ask(&program, BLOCK, READ, 8, 0));
        assert!(!ask(&program, CHARACTER, READ, 1, 1));
        assert!(!ask(&program, CHARACTER, READ | MAKE, 1, 1));
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let program = of(r#"{"allow":true,"type":"b","access":"rwm"},
               {"allow":false,"type":"b","major":8,"access":"w"},
               {"allow":true,"type":"b","major":8,"minor":16,"access":"rw"},
               {"allow":true,"type":"c","major":10,"minor":232,"access":"rwm"}"#);
        assert!(ask(&program, BLOCK, READ | WRITE, 7, 0));
        assert!(ask(&program, BLOCK, READ, 8, 0));
        assert!(!ask(&program, BLOCK, READ | WRITE, 8, 0));
        assert!(ask(&program, BLOCK, READ | WRITE, 8, 16));
        assert!(ask(&program, CHARACTER, READ, 10, 232));
        assert!(!ask(&program, CHARACTER, READ, 10, 1));
    }

    #[test]
    fn a_rule_for_everything_ends_the_program() {
        let program =
            of(r#"{"allow":false,"access":"rwm"},{"allow":true,"type":"a","access":"rwm"}"#);
        assert!(ask(&program, BLOCK, READ, 8, 0));
        assert_eq!(program.iter().rev().take(2).count(), 2);
        assert_eq!(program.last().map(|word| word & 0xff), Some(u64::from(EXIT)));
        let exits = program.iter().filter(|word| **word & 0xff == u64::from(EXIT)).count();
        assert_eq!(exits, 11, "the rule before it is never reached");
    }

    #[test]
    fn a_container_that_shows_the_devices_of_the_machine_can_use_them() {
        let bind = r#"{"destination":"/dev","type":"bind","source":"/dev","options":["rbind"]}"#;
        assert!(Devices::of(&spec("", bind)).is_none());
        let own = r#"{"destination":"/dev","type":"tmpfs","source":"tmpfs"}"#;
        assert!(Devices::of(&spec("", own)).is_some());
    }
}
