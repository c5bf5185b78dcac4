//! Whether a container was ended because its memory ran out (`memory.events` of its control group).

use std::fs;
use std::path::Path;

use crate::control::bytes;

/// Says so, with the limit, when a process of the group was killed for that.
pub(crate) fn reason(group: &Path) -> Option<String> {
    let read = |name: &str| fs::read_to_string(group.join(name)).unwrap_or_default();
    explain(&read("memory.events"), &read("memory.max"))
}

fn explain(events: &str, limit: &str) -> Option<String> {
    let killed = events.lines().find_map(|line| line.strip_prefix("oom_kill "))?;
    if killed.trim().parse::<u64>().ok()? == 0 {
        return None;
    }
    Some(match limit.trim().parse() {
        Ok(limit) => format!("was killed: out of memory, limit {}", bytes(limit)),
        Err(_) => "was killed: the machine is out of memory".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_ran_out_of_memory_is_told_the_limit() {
        let events = "low 0\nhigh 0\nmax 12\noom 1\noom_kill 1\noom_group_kill 0\n";
        let limited = explain(events, "67108864\n").unwrap();
        assert_eq!(limited, "was killed: out of memory, limit 64 MiB");
        let machine = explain(events, "max\n").unwrap();
        assert_eq!(machine, "was killed: the machine is out of memory");
        assert_eq!(explain("max 3\noom_kill 0\n", "67108864"), None);
        assert_eq!(explain("", ""), None);
    }
}
