//! `kiln lease`.

use clap::{Args, Subcommand};

use super::client::{Client, path_part};
use super::table::{plain, table, text};
use super::{ClientArgs, Failure, Output, print_json};
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
        client: ClientArgs,
    },
}

pub(super) async fn run(args: LeaseArgs) -> Result<(), Failure> {
    match args.command {
        LeaseCommand::List { all, client } => {
            let mut rows: Vec<LeaseRow> = Client::new(&client).get("/api/v1/leases").await?;
            rows.retain(|row| all || left(row) > 0);
            match client.output {
                Output::Json => print_json(&rows)?,
                Output::Table => print(&rows),
            }
        }
        LeaseCommand::Show { key, client } => {
            let path = format!("/api/v1/leases/{}", path_part(&key));
            let row: LeaseRow = Client::new(&client).get(&path).await?;
            match client.output {
                Output::Json => print_json(&row)?,
                Output::Table => print(&[row]),
            }
        }
        LeaseCommand::Release { key, client } => {
            Client::new(&client).delete(&format!("/api/v1/leases/{}", path_part(&key))).await?;
        }
    }
    Ok(())
}

/// Returns for how many more seconds a lease runs.
fn left(row: &LeaseRow) -> i64 {
    row.lease.expires.saturating_sub(now_ms() / 1000)
}

fn print(rows: &[LeaseRow]) {
    let mut out = table(&["address", "mac", "ends in", "machine", "host name"]);
    for row in rows {
        let lease = &row.lease;
        out.add_row([
            lease.address.to_string(),
            lease.mac.to_string(),
            ends(left(row)),
            plain(row.machine.as_deref().unwrap_or("-")),
            plain(lease.hostname.as_deref().unwrap_or("-")),
        ]);
    }
    println!("{}", text(&out));
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
