//! The `seccomp` section of a container's configuration, made into programs for the kernel.
//!
//! A program knows one action for what it matches. So there is one for the calls that have a rule
//! at all, which gives the others the default action, and one more for every action that is not
//! `allow`; of the programs in front of a call, the strictest answer counts (`seccomp(2)`).
//!
//! Calls of another architecture than that of this program end the process.

use std::collections::BTreeMap;
use std::env::consts::ARCH;

use libcontainer::oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator, LinuxSyscall,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, sock_filter,
};

use crate::sys::install_filter;

/// `NAME NUMBER` of each system call of this architecture, by number.
#[cfg(target_arch = "x86_64")]
const CALLS: &str = include_str!("syscalls/x86_64.txt");
#[cfg(target_arch = "aarch64")]
const CALLS: &str = include_str!("syscalls/aarch64.txt");

/// A section that cannot be made into programs.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SeccompError {
    #[error("seccomp action {0} is not supported; nothing listens for it")]
    Action(LinuxSeccompAction),
    #[error("a seccomp rule compares argument {0}; there are 0 to 5")]
    Argument(usize),
    #[error("make the seccomp program")]
    Compile(#[source] seccompiler::BackendError),
}

/// Programs that are ready to be installed.
#[derive(Clone, Debug)]
pub(crate) struct Filter {
    programs: Vec<BpfProgram>,
    flags: u32,
}

impl Filter {
    /// Puts the programs in front of all further system calls of this process.
    pub(crate) fn install(&self) -> nix::Result<()> {
        self.programs.iter().try_for_each(|program| install_filter(program, self.flags))
    }
}

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// Makes the programs for one section.
pub(crate) fn compile(section: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    let numbers = call_numbers();
    let default = action(section.default_action(), section.default_errno_ret())?;
    let mut ruled = Rules::new();
    let mut by_action: Vec<(SeccompAction, Rules)> = Vec::new();
    for rule in section.syscalls().iter().flatten() {
        let then = action(rule.action(), rule.errno_ret())?;
        if then == default {
            continue;
        }
        let condition = conditions(rule)?;
        let known = rule.names().iter().filter_map(|name| numbers.get(name.as_str()));
        for number in known {
            add(&mut ruled, *number, condition.as_ref());
            if then == SeccompAction::Allow {
                continue;
            }
            let place = by_action.iter().position(|(action, _)| *action == then);
            let place = place.unwrap_or_else(|| {
                by_action.push((then.clone(), Rules::new()));
                by_action.len() - 1
            });
            if let Some((_, rules)) = by_action.get_mut(place) {
                add(rules, *number, condition.as_ref());
            }
        }
    }
    let newest = ruled.keys().next_back().copied();
    let mut programs = Vec::new();
    for (then, rules) in by_action {
        programs.push(program(rules, SeccompAction::Allow, then)?);
    }
    if default != SeccompAction::Allow {
        programs.push(program(ruled, default.clone(), SeccompAction::Allow)?);
    }
    // Of equal answers the one of the program that was installed last counts, so this is the last.
    if let (SeccompAction::Errno(_), Some(newest)) = (default, newest) {
        programs.push(unknown_calls(newest));
    }
    Ok(Filter { programs, flags: flags(section) })
}

fn call_numbers() -> BTreeMap<&'static str, i64> {
    let line = |line: &'static str| {
        let (name, number) = line.split_once(' ')?;
        Some((name, number.parse().ok()?))
    };
    CALLS.lines().filter_map(line).collect()
}

/// A call without conditions swallows the rules for the same call that have some.
fn add(rules: &mut Rules, number: i64, condition: Option<&SeccompRule>) {
    match (condition, rules.get_mut(&number)) {
        (None, _) => {
            rules.insert(number, Vec::new());
        }
        (Some(condition), None) => {
            rules.insert(number, vec![condition.clone()]);
        }
        (Some(condition), Some(list)) if !list.is_empty() => list.push(condition.clone()),
        (Some(_), Some(_)) => {}
    }
}

fn program(
    rules: Rules,
    otherwise: SeccompAction,
    then: SeccompAction,
) -> Result<BpfProgram, SeccompError> {
    let arch = ARCH.try_into().map_err(SeccompError::Compile)?;
    let filter = SeccompFilter::new(rules, otherwise, then, arch).map_err(SeccompError::Compile)?;
    filter.try_into().map_err(SeccompError::Compile)
}

/// A program library finds out whether the kernel has a new call by the error ENOSYS, and goes
/// another way. A profile that was written before the call gives it another error; so calls with
/// higher numbers than the profile has get ENOSYS, which also tells callers of the x32 interface
/// that it is not there.
fn unknown_calls(newest: i64) -> BpfProgram {
    let instruction = |code: u32, k: u32, jt: u8, jf: u8| sock_filter {
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf,
        k,
    };
    let not_there = libc::SECCOMP_RET_ERRNO | u32::try_from(libc::ENOSYS).unwrap_or_default();
    vec![
        // The number of the call is the first field of `seccomp_data`.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(
            libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K,
            u32::try_from(newest).unwrap_or(u32::MAX),
            0,
            1,
        ),
        instruction(libc::BPF_RET | libc::BPF_K, not_there, 0, 0),
        instruction(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW, 0, 0),
    ]
}

fn action(action: LinuxSeccompAction, number: Option<u32>) -> Result<SeccompAction, SeccompError> {
    // The default that the OCI runtime specification gives both.
    let number = number.unwrap_or(libc::EPERM as u32);
    Ok(match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => {
            SeccompAction::KillThread
        }
        LinuxSeccompAction::ScmpActKillProcess => SeccompAction::KillProcess,
        LinuxSeccompAction::ScmpActTrap => SeccompAction::Trap,
        LinuxSeccompAction::ScmpActErrno => SeccompAction::Errno(number),
        LinuxSeccompAction::ScmpActTrace => SeccompAction::Trace(number),
        LinuxSeccompAction::ScmpActLog => SeccompAction::Log,
        LinuxSeccompAction::ScmpActAllow => SeccompAction::Allow,
        other @ LinuxSeccompAction::ScmpActNotify => return Err(SeccompError::Action(other)),
    })
}

fn conditions(rule: &LinuxSyscall) -> Result<Option<SeccompRule>, SeccompError> {
    let args = rule.args().as_deref().unwrap_or_default();
    if args.is_empty() {
        return Ok(None);
    }
    let all = args.iter().map(condition).collect::<Result<Vec<_>, _>>()?;
    SeccompRule::new(all).map(Some).map_err(SeccompError::Compile)
}

fn condition(arg: &LinuxSeccompArg) -> Result<SeccompCondition, SeccompError> {
    let index = u8::try_from(arg.index()).map_err(|_| SeccompError::Argument(arg.index()))?;
    let (compare, value) = match arg.op() {
        LinuxSeccompOperator::ScmpCmpNe => (SeccompCmpOp::Ne, arg.value()),
        LinuxSeccompOperator::ScmpCmpLt => (SeccompCmpOp::Lt, arg.value()),
        LinuxSeccompOperator::ScmpCmpLe => (SeccompCmpOp::Le, arg.value()),
        LinuxSeccompOperator::ScmpCmpEq => (SeccompCmpOp::Eq, arg.value()),
        LinuxSeccompOperator::ScmpCmpGe => (SeccompCmpOp::Ge, arg.value()),
        LinuxSeccompOperator::ScmpCmpGt => (SeccompCmpOp::Gt, arg.value()),
        // Here the first value is the mask.
        LinuxSeccompOperator::ScmpCmpMaskedEq => {
            (SeccompCmpOp::MaskedEq(arg.value()), arg.value_two().unwrap_or_default())
        }
    };
    SeccompCondition::new(index, SeccompCmpArgLen::Qword, compare, value)
        .map_err(|_| SeccompError::Argument(arg.index()))
}

fn flags(section: &LinuxSeccomp) -> u32 {
    let flag = |flag: &LinuxSeccompFilterFlag| match flag {
        LinuxSeccompFilterFlag::SeccompFilterFlagLog => libc::SECCOMP_FILTER_FLAG_LOG,
        LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
        // There is one thread, and nobody listens.
        LinuxSeccompFilterFlag::SeccompFilterFlagTsync
        | LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => 0,
    };
    let all = section.flags().iter().flatten().map(flag).fold(0, |all, flag| all | flag);
    u32::try_from(all).unwrap_or_default()
}

#[cfg(test)]
mod tests;
