//! `kiln lease`.

use clap::{Args, Subcommand};

use super::chosen::Which;
use super::client::{Client, path_part};
use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{self, Column, How, Listed, col, more};
use super::table::{moment, plain};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure, change};
use crate::api::LeaseRow;
use crate::boots::now_ms;

/// Who has which address
#[derive(Debug, Args)]
pub struct LeaseArgs {
    #[command(subcommand)]
    command: LeaseCommand,
}

#[derive(Debug, Subcommand)]
enum LeaseCommand {
    /// List leases by address
    #[command(alias = "ls")]
    List {
        /// Also those that have ended: who had the address is remembered, to give it the same again
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Show one lease
    Show {
        /// Its address, the hardware address, or the name of the machine
        key: String,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// End one lease
    ///
    /// Others may be given the address at once. Whose it was goes on using it until it comes to renew it, so switch it
    /// off first.
    Release {
        /// Its address, the hardware address, or the name of the machine
        key: String,
        #[command(flatten)]
        sure: Sure,
        #[command(flatten)]
        dry: DryArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

pub(super) async fn run(args: LeaseArgs) -> Result<(), Failure> {
    match args.command {
        LeaseCommand::List { all, which, watch, client } => {
            let server = Client::new(&client);
            let path = format!("/api/v1/leases?{}", which.query().trim_start_matches('&'));
            // Nobody announces leases.
            watch::show(&server, watch, None, async || {
                let mut rows: Vec<LeaseRow> = server.get(&path).await?;
                rows.retain(|row| all || left(row) > 0);
                Look::list(How::of(&client), &rows)
            })
            .await
        }
        LeaseCommand::Show { key, client } => {
            let row: LeaseRow = Client::new(&client).get(&path(&key)).await?;
            let how = How::of(&client);
            let words = print::rows(how, std::slice::from_ref(&row)).join("\n");
            print::one(how, &row.name(), &row, || words)
        }
        LeaseCommand::Release { key, sure, dry, client } => {
            let path = path(&key);
            change::remove(&client, (sure, dry), (&path, &key), async |server| {
                let LeaseRow { lease, machine } = server.get(&path).await?;
                let whose = machine.unwrap_or_else(|| lease.mac.to_string());
                let (address, whose) = (lease.address, plain(&whose));
                Ok(format!("the lease of {address} by {whose} will end. Go on?"))
            })
            .await
        }
    }
}

fn path(key: &str) -> String {
    format!("/api/v1/leases/{}", path_part(key))
}

/// Returns for how many more seconds a lease runs.
fn left(row: &LeaseRow) -> i64 {
    row.lease.expires.saturating_sub(now_ms() / 1000)
}

impl Listed for LeaseRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("address", |it: &Self| it.lease.address.to_string()),
            col("mac", |it| it.lease.mac.to_string()),
            col("ends in", |it| ends(left(it))),
            more("until", |it| moment(it.lease.expires.saturating_mul(1000))),
            col("machine", |it| it.machine.clone().unwrap_or_else(|| "-".to_owned())),
            col("host name", |it| it.lease.hostname.clone().unwrap_or_else(|| "-".to_owned())),
        ]
    }

    fn name(&self) -> String {
        self.lease.address.to_string()
    }
}

fn ends(seconds: i64) -> String {
    match seconds {
        ..=0 => "ended".to_owned(),
        1..=119 => format!("{seconds} s"),
        120..=7199 => format!("{} min", seconds / 60),
        7200..=172_799 => format!("{} h", seconds / 3600),
        // Ten years: of a client of BOOTP, which never comes back.
        172_800..=315_360_000 => format!("{} d", seconds / 86_400),
        _ => "never".to_owned(),
    }
}
