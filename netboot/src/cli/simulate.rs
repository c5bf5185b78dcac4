//! `kiln simulate`.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use kiln_types::Mac;

use super::table::{plain, size, table, text};
use super::{Failure, Output, print, print_document};
use crate::simulate::{self, MOST, Plan, Report, Way};

/// Boot machines that are not there, to see how long many take
///
/// Each asks for an address as firmware does, fetches its loader by TFTP, asks again as iPXE does, and fetches its script
/// and all that the script names by HTTP, from the address that it was given. Prints how long each step took: half of the
/// machines no longer than p50, all but one in a hundred no longer than p99. Machines that the server does not know get as
/// far as `[discovery] unknown` lets them. Runs only on `lo` or in a network namespace, unless told --yes.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// How many machines
    #[arg(short = 'n', long, default_value_t = 100, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST)))]
    machines: u32,
    /// Interface by which they ask, with broadcasts
    #[arg(long, value_name = "INTERFACE", required_unless_present = "relay")]
    interface: Option<String>,
    /// Ask as if a relay passed the packets on: an address of this host, in a subnet of the server
    #[arg(long, value_name = "IPV4", requires = "server", conflicts_with = "interface")]
    relay: Option<Ipv4Addr>,
    /// The server that the relay knows
    #[arg(long, value_name = "IPV4", requires = "relay")]
    server: Option<Ipv4Addr>,
    /// How far they boot
    #[arg(long, value_enum, default_value_t, value_name = "STEP")]
    until: Until,
    /// Hardware address of the first; the others follow
    #[arg(long, default_value = "02:4b:00:00:00:00", value_name = "MAC")]
    mac: Mac,
    /// Switch them on one after the other over so many seconds, instead of all at once
    #[arg(long, default_value_t = 0, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
    spread: u64,
    /// How many seconds one waits for an answer of DHCP, in all
    #[arg(long, default_value_t = 60, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    patience: u64,
    /// So many packets of DHCP in a hundred are lost, in each direction
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=90))]
    loss: u8,
    /// So many machines in a hundred lose power on their way
    #[arg(long, default_value_t = 0, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    vanish: u8,
    /// What these faults depend on: the same number, the same faults
    #[arg(long, default_value_t = 1, value_name = "N")]
    seed: u64,
    /// Run on a network that others may use
    #[arg(long)]
    yes: bool,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// How far machines boot.
#[derive(Clone, Copy, Debug, Default, ValueEnum)]
enum Until {
    /// They have an address
    Address,
    /// They have their script
    Script,
    /// They have every file that the script names
    #[default]
    Files,
}

pub(super) async fn run(args: SimulateArgs) -> Result<(), Failure> {
    let way = match (args.interface, args.relay.zip(args.server)) {
        (Some(interface), _) => Way::Wire { interface },
        (None, Some((own, server))) => Way::Relay { own, server },
        (None, None) => {
            return Err(Failure::new(
                Failure::USAGE,
                anyhow!("name --interface, or --relay and --server"),
            ));
        }
    };
    let report = simulate::run(Plan {
        machines: args.machines,
        first: args.mac,
        way,
        until: match args.until {
            Until::Address => simulate::Until::Address,
            Until::Script => simulate::Until::Script,
            Until::Files => simulate::Until::Files,
        },
        spread: Duration::from_secs(args.spread),
        patience: Duration::from_secs(args.patience),
        loss: args.loss,
        vanish: args.vanish,
        seed: args.seed,
        anywhere: args.yes,
    })
    .await?;
    if args.output.is_table() {
        print::say(show(&report).trim_end())?;
    } else {
        print_document(args.output, &report)?;
    }
    match report.failures() {
        0 => Ok(()),
        some if some < report.machines => Err(Failure::new(
            Failure::PARTIAL,
            anyhow!("{some} of {} machines failed", report.machines),
        )),
        _ => Err(anyhow!("every machine failed").into()),
    }
}

fn show(report: &Report) -> String {
    let Report { machines, done, told, vanished, took, sent, again, .. } = report;
    let mut lines = vec![format!(
        "{machines} machines in {:.1} s: {done} booted, {told} were told to wait or to go on, {vanished} lost power, {} failed",
        took / 1000.0,
        report.failures()
    )];
    lines.push(format!(
        "{sent} packets of DHCP sent, {again} of them again; {} fetched",
        size(report.bytes)
    ));
    let mut steps = table(&["step", "machines", "p50 ms", "p90 ms", "p99 ms", "max ms"]);
    for step in &report.steps {
        let times = [step.p50, step.p90, step.p99, step.max].map(|time| format!("{time:.1}"));
        let [p50, p90, p99, max] = times;
        steps.add_row([step.step.to_owned(), step.count.to_string(), p50, p90, p99, max]);
    }
    if !report.steps.is_empty() {
        lines.push(text(&steps));
    }
    let failed = report.failed.iter();
    lines.extend(failed.map(|(why, count)| format!("failed: {count} × {}", plain(why))));
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Quantiles;

    #[test]
    fn a_report_tells_steps_and_why_machines_failed() {
        let step = Quantiles { step: "offer", count: 9, p50: 1.0, p90: 2.0, p99: 3.0, max: 4.25 };
        let report = Report {
            machines: 10,
            done: 8,
            told: 1,
            vanished: 0,
            failed: [("no offer\u{1b}".to_owned(), 1)].into(),
            took: 1500.0,
            sent: 40,
            again: 2,
            unreadable: 0,
            bytes: 2_000_000,
            steps: vec![step],
        };
        let text = "10 machines in 1.5 s: 8 booted, 1 were told to wait or to go on, 0 lost power, 1 failed\n\
                    40 packets of DHCP sent, 2 of them again; 2.0 MB fetched\n\
                    STEP   MACHINES  P50 MS  P90 MS  P99 MS  MAX MS\n\
                    offer  9         1.0     2.0     3.0     4.2\nfailed: 1 × no offer\n";
        assert_eq!(show(&report), text);
    }
}
