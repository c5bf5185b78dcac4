//! The clock: certificates, signatures and leases need one that is right.

use std::process::Command;

use super::Finding;

/// The first second of 2024: no host that runs this is older.
const BUILT: i64 = 1_704_067_200;

pub(super) fn examine() -> Vec<Finding> {
    let output = Command::new("timedatectl")
        .args(["show", "--property=NTPSynchronized", "--value"])
        .output();
    let synchronized = output.ok().and_then(|output| match output.stdout.trim_ascii() {
        b"yes" => Some(true),
        b"no" => Some(false),
        _ => None,
    });
    vec![judge(jiff::Timestamp::now().as_second(), synchronized)]
}

fn judge(now: i64, synchronized: Option<bool>) -> Finding {
    const CHECK: &str = "clock";
    let date = jiff::Timestamp::from_second(now).map_or_else(
        |_| "a year that no calendar has".to_owned(),
        |time| time.strftime("%Y-%m-%d %H:%M UTC").to_string(),
    );
    let subject = "time of this host";
    if now < BUILT {
        let remedy = "set it (`date --set`), and let a time service keep it (`apt install systemd-timesyncd`); is the battery of the clock empty?";
        return Finding::wrong(CHECK, subject, format!("it is {date}, which is past"), remedy);
    }
    match synchronized {
        Some(true) => Finding::good(CHECK, subject, format!("{date}, kept by a time service")),
        Some(false) => Finding::doubtful(
            CHECK,
            subject,
            format!("{date}, and no time service has confirmed it"),
            "timedatectl set-ntp true",
        ),
        None => Finding::good(CHECK, subject, date),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    #[test]
    fn a_clock_of_the_past_is_wrong_and_one_that_nobody_keeps_doubtful() {
        assert_eq!(judge(0, Some(true)).verdict, Verdict::Wrong);
        assert_eq!(judge(BUILT - 1, None).found, "it is 2023-12-31 23:59 UTC, which is past");
        assert_eq!(judge(BUILT, Some(true)).verdict, Verdict::Good);
        assert_eq!(judge(BUILT, Some(false)).verdict, Verdict::Doubtful);
        assert_eq!(judge(BUILT, None).verdict, Verdict::Good);
        assert_eq!(judge(i64::MIN, None).verdict, Verdict::Wrong);
    }
}
