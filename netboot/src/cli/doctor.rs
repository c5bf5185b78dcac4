//! `kiln doctor`.

use anyhow::anyhow;
use clap::Args;

use super::print;
use super::table::plain;
use super::{ConfigArg, Failure, Output, print_document};
use crate::doctor::{self, Asked, Finding, Verdict};
use crate::settings::Settings;

/// Say what is wrong with this host and its network, and what to do
///
/// Looks at interfaces, ports, the firewall, folders, loaders, images and the clock, and changes none of them. Best run
/// as root, which sees more. Ends with exit code 1 when something keeps machines from booting.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    #[command(flatten)]
    config: ConfigArg,
    /// Ask for other DHCP servers on this interface: sends one DISCOVER and listens for some seconds
    #[arg(long, value_name = "INTERFACE")]
    dhcp: Vec<String>,
    /// Show what is good too, with -o table and name
    #[arg(long)]
    all: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub(super) async fn run(args: DoctorArgs) -> Result<(), Failure> {
    let settings = Settings::read(&args.config.config)
        .map_err(|error| Failure::new(Failure::CONFIG, error))?;
    let findings = doctor::examine(&settings, &Asked { dhcp: args.dhcp }).await;
    match args.output {
        Output::Table | Output::Wide => print::say(show(&findings, args.all).trim_end())?,
        Output::Name => print::say(&names(&findings, args.all))?,
        output => print_document(output, &findings)?,
    }
    let wrong = findings.iter().filter(|found| found.verdict == Verdict::Wrong).count();
    match wrong {
        0 => Ok(()),
        1 => Err(anyhow!("one thing is wrong").into()),
        many => Err(anyhow!("{many} things are wrong").into()),
    }
}

/// Returns those that are for people, what is worst first.
fn chosen(findings: &[Finding], all: bool) -> Vec<&Finding> {
    let mut chosen: Vec<&Finding> =
        findings.iter().filter(|found| all || found.verdict != Verdict::Good).collect();
    chosen.sort_by_key(|found| std::cmp::Reverse(found.verdict));
    chosen
}

/// Names the checks that found something, as `port UDP 67`.
fn names(findings: &[Finding], all: bool) -> String {
    let name = |found: &Finding| format!("{} {}", found.check, plain(&found.subject));
    chosen(findings, all).into_iter().map(name).collect::<Vec<_>>().join("\n")
}

fn show(findings: &[Finding], all: bool) -> String {
    let mut text = String::new();
    for found in chosen(findings, all) {
        let Finding { check, subject, verdict, found, remedy } = found;
        text += &format!("{verdict}: {check} {}: {}\n", plain(subject), plain(found));
        if let Some(remedy) = remedy {
            text += &format!("    {}\n", plain(remedy));
        }
    }
    let good = findings.iter().filter(|found| found.verdict == Verdict::Good).count();
    text + &format!("{good} of {} checks are good\n", findings.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_worst_comes_first_and_each_has_its_remedy_below() {
        let found = |verdict, remedy: Option<&str>| Finding {
            check: "port",
            subject: "UDP 67".to_owned(),
            verdict,
            found: "found\u{1b}[2J".to_owned(),
            remedy: remedy.map(str::to_owned),
        };
        let all = [
            found(Verdict::Good, None),
            found(Verdict::Doubtful, Some("look")),
            found(Verdict::Wrong, Some("mend")),
        ];
        let text = "wrong: port UDP 67: found[2J\n    mend\n\
                    doubtful: port UDP 67: found[2J\n    look\n1 of 3 checks are good\n";
        assert_eq!(show(&all, false), text);
        assert!(show(&all, true).contains("good: port UDP 67: found[2J\n1 of"));
        assert_eq!(names(&all, false), "port UDP 67\nport UDP 67");
        assert_eq!(names(&all, true).lines().count(), 3);
    }
}
