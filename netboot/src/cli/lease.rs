//! `kiln lease`.

use clap::{Args, Subcommand};

use super::chosen::Which;
use super::client::{Client, path_part};
use super::confirm::Sure;
use super::machine::DryArg;
use super::print::{Column, How, Listed, col, more};
use super::table::{moment, plain};
use super::watch::{self, ListArgs, Look, WatchArg};
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
    /// List leases by address, those of IPv4 before those of IPv6
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
    ///
    /// Where a machine has several it is one that runs, of IPv4 if there is one.
    Show {
        /// Its address, the hardware address, the DUID, or the name of the machine
        key: String,
        #[command(flatten)]
        list: ListArgs,
    },
    /// End one lease
    ///
    /// Others may be given the address at once. Whose it was goes on using it until it comes to renew it, so switch it
    /// off first. A machine that has several, as of IPv4 and IPv6, is refused: name one by its address.
    Release {
        /// Its address, or the hardware address, the DUID or the name of a machine with one lease
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
                let mut rows: Vec<LeaseRow> = server.all(&path).await?;
                rows.retain(|row| all || left(row) > 0);
                Look::list(How::of(&client), &rows)
            })
            .await
        }
        LeaseCommand::Show { key, list } => {
            list.show_one(None, &path(&key), |_: &LeaseRow| String::new()).await
        }
        LeaseCommand::Release { key, sure, dry, client } => {
            let path = path(&key);
            change::remove(&client, (sure, dry), (&path, &key), async |server| {
                let row: LeaseRow = server.get(&path).await?;
                let (address, whose) =
                    (row.address, plain(&row.machine.clone().unwrap_or_else(|| holder(&row))));
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
    row.expires.saturating_sub(now_ms() / 1000)
}

/// Returns what who has it is known by on the network.
fn holder(row: &LeaseRow) -> String {
    let mac = row.mac.map(|mac| mac.to_string());
    mac.or_else(|| row.duid.as_ref().map(ToString::to_string)).unwrap_or_else(|| "-".to_owned())
}

impl Listed for LeaseRow {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("address", |it: &Self| it.address.to_string()),
            col("mac", |it| shown(it.mac.as_ref())),
            more("duid", |it| shown(it.duid.as_ref())),
            more("iaid", |it| shown(it.iaid.as_ref())),
            col("ends in", |it| ends(left(it))),
            more("until", |it| moment(it.expires.saturating_mul(1000))),
            col("machine", |it| shown(it.machine.as_ref())),
            col("host name", |it| shown(it.hostname.as_ref())),
        ]
    }

    fn name(&self) -> String {
        self.address.to_string()
    }
}

fn shown(field: Option<&impl ToString>) -> String {
    field.map_or_else(|| "-".to_owned(), ToString::to_string)
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
