//! Checks a profile that someone wrote, so that a mistake is told when the image is built and not when it boots.

use serde::Deserialize;
use serde_json::Value;

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
];
const FLAGS: [&str; 4] = [
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
];
/// The highest error number of the kernel (`MAX_ERRNO` in linux/err.h).
const MAX_ERRNO: u32 = 4095;

/// The keys of the section (OCI runtime specification, `linux.seccomp`).
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Section {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    flags: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Vec<Arg>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Arg {
    index: u32,
    #[serde(rename = "value")]
    _value: u64,
    #[serde(rename = "valueTwo")]
    _value_two: Option<u64>,
    op: String,
}

/// Reads a section and returns it as it is written.
pub(super) fn parse(text: &[u8]) -> Result<Value, String> {
    let value: Value = serde_json::from_slice(text).map_err(|e| format!("it is not JSON: {e}"))?;
    if value.get("archMap").is_some() {
        return Err("it is in Docker's form, with `archMap`; write it as OCI's `linux.seccomp`, with `architectures`"
            .to_owned());
    }
    let section: Section = serde_json::from_slice(text).map_err(|error| error.to_string())?;
    action(&section.default_action, section.default_errno_ret)?;
    for name in &section.architectures {
        if !name.starts_with("SCMP_ARCH_") {
            return Err(format!("`{name}` is not an architecture, such as `SCMP_ARCH_X86_64`"));
        }
    }
    known("flag", &FLAGS, &section.flags)?;
    for rule in &section.syscalls {
        self::rule(rule)?;
    }
    Ok(value)
}

fn rule(rule: &Rule) -> Result<(), String> {
    let Some(first) = rule.names.first() else {
        return Err("a rule in `syscalls` has no `names`".to_owned());
    };
    let place = |problem| format!("in the rule for `{first}`, {problem}");
    action(&rule.action, rule.errno_ret).map_err(place)?;
    for arg in &rule.args {
        if arg.index > 5 {
            return Err(place(format!("`index` is {}; arguments are 0 to 5", arg.index)));
        }
        known("operator", &OPERATORS, std::slice::from_ref(&arg.op)).map_err(place)?;
    }
    Ok(())
}

fn action(action: &str, errno: Option<u32>) -> Result<(), String> {
    if action == "SCMP_ACT_NOTIFY" {
        return Err("`SCMP_ACT_NOTIFY` needs a program that is asked, and there is none".to_owned());
    }
    if errno.is_some_and(|errno| errno > MAX_ERRNO) {
        return Err(format!("the error number is above {MAX_ERRNO}"));
    }
    known("action", &ACTIONS, &[action.to_owned()])
}

fn known(what: &str, words: &[&str], given: &[String]) -> Result<(), String> {
    match given.iter().find(|word| !words.contains(&word.as_str())) {
        None => Ok(()),
        Some(word) => {
            let word: String = word.chars().take(80).collect();
            Err(format!("`{word}` is not a known {what}; known are {}", words.join(", ")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_with_a_profile_is_said() {
        let rule =
            |rule: &str| format!(r#"{{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[{rule}]}}"#);
        for (text, problem) in [
            ("[".to_owned(), "it is not JSON"),
            (r#"{"archMap":[]}"#.to_owned(), "it is in Docker's form"),
            (r#"{"defaultAction":"ALLOW"}"#.to_owned(), "`ALLOW` is not a known action"),
            (r#"{"syscalls":[]}"#.to_owned(), "missing field `defaultAction`"),
            (r#"{"defaultAction":"SCMP_ACT_ALLOW","x":1}"#.to_owned(), "unknown field `x`"),
            (rule(r#"{"names":[],"action":"SCMP_ACT_LOG"}"#), "a rule in `syscalls` has no"),
            (
                rule(r#"{"names":["a"],"action":"SCMP_ACT_NOTIFY"}"#),
                "in the rule for `a`, `SCMP_ACT_NOTIFY` needs",
            ),
            (
                rule(r#"{"names":["a"],"action":"SCMP_ACT_ERRNO","errnoRet":5000}"#),
                "in the rule for `a`, the error number is above 4095",
            ),
            (
                rule(
                    r#"{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":6,"value":1,"op":"SCMP_CMP_EQ"}]}"#,
                ),
                "in the rule for `a`, `index` is 6",
            ),
            (
                rule(
                    r#"{"names":["a"],"action":"SCMP_ACT_LOG","args":[{"index":1,"value":1,"op":"EQ"}]}"#,
                ),
                "in the rule for `a`, `EQ` is not a known operator",
            ),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(problem), "{text}: {error}");
        }
    }

    #[test]
    fn fuzzed_profiles_are_read_or_refused() {
        let sample = br#"{"defaultAction":"SCMP_ACT_ERRNO","defaultErrnoRet":38,"architectures":["SCMP_ARCH_X86_64"],
            "syscalls":[{"names":["read"],"action":"SCMP_ACT_ALLOW","args":[{"index":0,"value":1,"op":"SCMP_CMP_EQ"}]}]}"#;
        kiln_fuzz::check("seccomp", &[sample], |bytes| drop(parse(bytes)));
    }
}
