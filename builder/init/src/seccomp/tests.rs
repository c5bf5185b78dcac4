//! The programs are run here as the kernel would run them, on pretended calls.

use super::*;

const ARCH_NUMBER: u32 = if cfg!(target_arch = "x86_64") { 0xc000_003e } else { 0xc000_00b7 };

fn filter(json: &str) -> Filter {
    compile(&serde_json::from_str(json).unwrap()).unwrap()
}

fn number(name: &str) -> u32 {
    u32::try_from(call_numbers()[name]).unwrap()
}

/// What the kernel would answer: the strictest answer; of equal ones that of the last program.
fn answer(filter: &Filter, arch: u32, call: u32, args: [u64; 6]) -> u32 {
    let mut data: Vec<u8> = Vec::new();
    data.extend(call.to_ne_bytes());
    data.extend(arch.to_ne_bytes());
    data.extend(0u64.to_ne_bytes());
    args.iter().for_each(|arg| data.extend(arg.to_ne_bytes()));
    let class = |value: u32| (value & 0xffff_0000).cast_signed();
    let mut result = libc::SECCOMP_RET_ALLOW;
    for program in filter.programs.iter().rev() {
        let value = run(program, &data);
        if class(value) < class(result) {
            result = value;
        }
    }
    result
}

/// A machine for the instructions that occur.
fn run(program: &[sock_filter], data: &[u8]) -> u32 {
    let (mut at, mut a) = (0, 0u32);
    loop {
        let instruction = &program[at];
        at += 1;
        let k = instruction.k;
        let jump = |yes: bool| usize::from(if yes { instruction.jt } else { instruction.jf });
        match instruction.code {
            0x20 => {
                let place = k as usize;
                a = u32::from_ne_bytes(data[place..place + 4].try_into().unwrap());
            }
            0x05 => at += k as usize,
            0x15 => at += jump(a == k),
            0x25 => at += jump(a > k),
            0x35 => at += jump(a >= k),
            0x54 => a &= k,
            0x06 => return k,
            other => panic!("instruction {other:#x}"),
        }
    }
}

fn plain(filter: &Filter, name: &str) -> u32 {
    answer(filter, ARCH_NUMBER, number(name), [0; 6])
}

const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;
const ALLOW: u32 = 0x7fff_0000;

#[test]
fn what_is_not_listed_gets_the_default_action() {
    let filter = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read","write","no_such_call","mseal"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(plain(&filter, "read"), ALLOW);
    assert_eq!(plain(&filter, "mseal"), ALLOW);
    assert_eq!(plain(&filter, "mount"), EPERM);
    assert_eq!(answer(&filter, 0x4000_0003, 3, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
}

#[test]
fn calls_that_are_newer_than_the_profile_are_not_there() {
    let filter = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[
            {"names":["read","faccessat2"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    assert_eq!(plain(&filter, "mseal"), ENOSYS);
    assert_eq!(plain(&filter, "mount"), EPERM);
    assert_eq!(answer(&filter, ARCH_NUMBER, 0x4000_0000, [0; 6]), ENOSYS);
}

#[test]
fn arguments_decide_and_every_action_is_told_apart() {
    let filter = filter(
        r#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":13,"syscalls":[
            {"names":["socket"],"action":"SCMP_ACT_ALLOW",
             "args":[{"index":0,"value":40,"op":"SCMP_CMP_NE"}]},
            {"names":["clone"],"action":"SCMP_ACT_ALLOW",
             "args":[{"index":0,"value":2114060288,"valueTwo":0,"op":"SCMP_CMP_MASKED_EQ"}]},
            {"names":["clone3"],"action":"SCMP_ACT_ERRNO","errnoRet":38},
            {"names":["ptrace"],"action":"SCMP_ACT_KILL_PROCESS"},
            {"names":["uname"],"action":"SCMP_ACT_LOG"},
            {"names":["mseal"],"action":"SCMP_ACT_ALLOW"}]}"#,
    );
    let with =
        |name: &str, first: u64| answer(&filter, ARCH_NUMBER, number(name), [first, 0, 0, 0, 0, 0]);
    assert_eq!(with("socket", 2), ALLOW);
    assert_eq!(with("socket", 40), 0x0005_000d);
    assert_eq!(with("clone", 17), ALLOW);
    assert_eq!(with("clone", 0x1000_0000), 0x0005_000d);
    assert_eq!(with("clone3", 0), ENOSYS);
    assert_eq!(with("ptrace", 0), libc::SECCOMP_RET_KILL_PROCESS);
    assert_eq!(with("uname", 0), libc::SECCOMP_RET_LOG);
    assert_eq!(with("mount", 0), 0x0005_000d);
}

#[test]
fn a_profile_that_forbids_little_allows_the_rest() {
    let filter = filter(
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[
            {"names":["mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#,
    );
    assert_eq!(plain(&filter, "mkdirat"), EPERM);
    assert_eq!(plain(&filter, "mseal"), ALLOW);
    assert_eq!(answer(&filter, ARCH_NUMBER, 5000, [0; 6]), ALLOW);
}

#[test]
fn a_rule_without_conditions_wins_over_those_with_some() {
    let text = |first: &str, second: &str| {
        format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{first},{second}]}}"#)
    };
    let plain_rule = r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW"}"#;
    let narrow = r#"{"names":["socket"],"action":"SCMP_ACT_ALLOW",
        "args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}"#;
    for json in [text(plain_rule, narrow), text(narrow, plain_rule)] {
        assert_eq!(plain(&filter(&json), "socket"), ALLOW);
    }
}

#[test]
fn what_cannot_be_done_is_an_error() {
    let compiled = |json: &str| compile(&serde_json::from_str(json).unwrap());
    let error = compiled(r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#).unwrap_err();
    assert!(error.to_string().contains("SCMP_ACT_NOTIFY"), "{error}");
    let json = r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["socket"],
        "action":"SCMP_ACT_ERRNO","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#;
    assert!(matches!(compiled(json), Err(SeccompError::Argument(6))));
}

#[test]
fn the_kernel_takes_a_program_that_is_as_large_as_profiles_are() {
    let names: Vec<_> = call_numbers().keys().map(|name| format!("{name:?}")).collect();
    let filter = filter(&format!(
        r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{{"names":[{}],"action":"SCMP_ACT_ALLOW"}}]}}"#,
        names.join(",")
    ));
    assert!(filter.programs.iter().all(|program| program.len() < 4096));
}
