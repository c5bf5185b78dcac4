//! `kiln machine reboot`, `power-off`, `kexec`, `logs`, `run` and `orders`: what running machines are told.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use anyhow::anyhow;
use clap::{Args, Subcommand};
use kiln_inventory::{Boot, Command, Order, OrderState, Outcome};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::chosen::{Chosen, Tally};
use super::client::{Client, path_part};
use super::confirm::{Sure, named};
use super::machine::path;
use super::print::{self, Column, How, Listed, col, more};
use super::table::{ago, moment};
use super::watch::{self, Look, WatchArg};
use super::{ClientArgs, Failure};
use crate::api::Ask;
use crate::boots::now_ms;

/// How often the boot that an order begins is looked at.
const LOOK: Duration = Duration::from_millis(500);
/// The latest boots of a machine, among which the one is looked for that follows an order.
const LATEST: u32 = 50;

#[derive(Debug, Subcommand)]
pub(super) enum OrderCommand {
    /// Let machines stop in order and start anew through their firmware
    Reboot(ManyArgs),
    /// Let machines stop in order and switch off
    PowerOff(ManyArgs),
    /// Let machines change to a version without going through their firmware
    ///
    /// The system that runs fetches the version, checks it against the site's signature, stops its services in order
    /// and starts the new kernel. Until then nothing has changed: a machine that cannot do it says why and runs on.
    Kexec {
        #[command(flatten)]
        many: ManyArgs,
        /// A version (8 digits of its digest or more) or an image, as web or web:edge; without it, what the machine
        /// would boot now
        #[arg(long, visible_alias = "version", value_name = "VERSION")]
        to: Option<String>,
    },
    /// Print the last lines that a service of a machine has printed
    Logs {
        /// Name or hardware address
        machine: String,
        /// The service; `kiln-init` is what the system itself has said
        service: String,
        /// How many lines
        #[arg(short = 'n', long, default_value_t = 100, value_name = "NUMBER")]
        lines: u32,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// Run a program on a machine and print what it prints
    ///
    /// The site has to allow it (`run = true` under [agent] in kiln.toml). A program that does not end with 0 within
    /// a minute is a failure.
    Run {
        /// Name or hardware address
        machine: String,
        /// The service in whose container it runs; without one it runs in the system itself
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// The program, by its whole path, and its arguments, after `--`
        #[arg(last = true, required = true, value_name = "PROGRAM")]
        program: Vec<String>,
        #[command(flatten)]
        patience: Patience,
        #[command(flatten)]
        client: ClientArgs,
    },
    /// List what a machine was told and what became of it, newest first
    Orders {
        /// Name or hardware address
        machine: String,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u32,
        #[command(flatten)]
        watch: WatchArg,
        #[command(flatten)]
        client: ClientArgs,
    },
}

#[derive(Args, Debug)]
pub(super) struct ManyArgs {
    #[command(flatten)]
    chosen: Chosen,
    #[command(flatten)]
    sure: Sure,
    /// Wait until it is done: for the boot that follows, until that is healthy
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Args, Clone, Copy, Debug)]
pub(super) struct Patience {
    /// The longest to wait, in seconds
    #[arg(long, default_value_t = 600, value_name = "SECONDS")]
    timeout: u64,
}

impl Patience {
    fn deadline(self) -> Instant {
        // Beyond a month nobody waits.
        Instant::now() + Duration::from_secs(self.timeout.min(30 * 24 * 3600))
    }
}

pub(super) async fn run(command: OrderCommand) -> Result<(), Failure> {
    match command {
        OrderCommand::Reboot(many) => many.give("start anew", &Ask::Reboot {}).await,
        OrderCommand::PowerOff(many) => many.give("switch off", &Ask::PowerOff {}).await,
        OrderCommand::Kexec { many, to } => {
            let what = match &to {
                Some(to) => format!("change to {to}"),
                None => "change to the version that they would boot now".to_owned(),
            };
            many.give(&what, &Ask::Kexec { to }).await
        }
        OrderCommand::Logs { machine, service, lines, patience, client } => {
            let ask = Ask::Logs { name: service, lines };
            answer(&client, &machine, &ask, patience).await
        }
        OrderCommand::Run { machine, service, program, patience, client } => {
            let ask = Ask::Run { service, program };
            answer(&client, &machine, &ask, patience).await
        }
        OrderCommand::Orders { machine, limit, watch, client } => {
            let path = format!("{}/orders?limit={limit}", path(&machine));
            let most = usize::try_from(limit).unwrap_or(usize::MAX);
            let server = Client::new(&client);
            // Nobody announces what becomes of orders.
            watch::show(&server, watch, None, async || {
                let orders: Vec<Order> = server.first(&path, most).await?;
                Look::list(How::of(&client), &orders)
            })
            .await
        }
    }
}

impl ManyArgs {
    /// Gives each machine the order, and says what became of each.
    async fn give(&self, what: &str, ask: &Ask) -> Result<(), Failure> {
        let client = Client::new(&self.client);
        let machines = self.chosen.names(&client).await?;
        self.sure.ask(&format!("{} will {what}. Go on?", named(&machines, "machines")))?;
        let deadline = self.patience.deadline();
        let (mut tally, given) = Tally::of_each(&machines, async |machine| {
            let order = order(&client, machine, ask).await?;
            Ok((machine.to_owned(), Mutex::new(order)))
        })
        .await;
        let say = |order: &Order, done| match self.client.output.is_table() {
            true => print::say(&format!("{}: {}", order.machine_name, told(order, done))),
            false => Ok(()),
        };
        let mut done = HashSet::new();
        if self.wait && !tally.was_interrupted() {
            let by_name: HashMap<&str, &Mutex<Order>> =
                given.iter().map(|(name, order)| (name.as_str(), order)).collect();
            let names: Vec<String> = given.iter().map(|(name, _)| name.clone()).collect();
            let (waits, ended) = Tally::of_each(&names, async |name| {
                if let Some(order) = by_name.get(name) {
                    let mut order = order.lock().await;
                    follow(&client, &mut order, deadline).await?;
                    say(&order, true)?;
                }
                Ok(name.to_owned())
            })
            .await;
            tally = tally.then(waits);
            done.extend(ended);
        }
        let mut orders = Vec::new();
        for (name, order) in given {
            let order = order.into_inner();
            if !done.contains(&name) && !tally.has_failed(&name) {
                say(&order, false)?;
            }
            orders.push(order);
        }
        if !self.client.output.is_table() {
            print::list(&self.client, &orders)?;
        }
        tally.end("did not do it")
    }
}

async fn order(client: &Client, machine: &str, ask: &Ask) -> Result<Order, Failure> {
    client.post(&format!("{}/orders", path(machine)), serde_json::to_vec(ask)?).await
}

/// Gives one machine an order and prints its answer.
async fn answer(
    args: &ClientArgs,
    machine: &str,
    ask: &Ask,
    patience: Patience,
) -> Result<(), Failure> {
    let client = Client::new(args);
    let deadline = patience.deadline();
    let mut order = order(&client, machine, ask).await?;
    end(&client, &mut order, deadline).await?;
    if !args.output.is_table() {
        print::one(args, &order.id.to_string(), &order, String::new)?;
    } else if order.state == OrderState::Done {
        // What a program prints is for who has asked for it, to the last byte.
        print!("{}", order.answer);
    }
    failed(&order)
}

/// Waits for the end of an order.
async fn end(client: &Client, order: &mut Order, deadline: Instant) -> Result<(), Failure> {
    while !order.state.has_ended() {
        let left = deadline.saturating_duration_since(Instant::now()).as_secs();
        if left == 0 {
            let (id, name, state) = (order.id, &order.machine_name, order.state.as_str());
            let text = format!(
                "order {id} is still {state}; `kiln machine orders {name}` shows what becomes of it"
            );
            return Err(anyhow!(text).into());
        }
        *order = client.get(&format!("/api/v1/orders/{}?wait={}", order.id, left.min(20))).await?;
    }
    Ok(())
}

fn failed(order: &Order) -> Result<(), Failure> {
    match order.state {
        OrderState::Done => Ok(()),
        OrderState::Failed if order.answer.contains('\n') => {
            eprint!("{}", order.answer);
            Err(anyhow!("order {} failed", order.id).into())
        }
        _ => Err(anyhow!("{}", order.answer.trim_end()).into()),
    }
}

/// Waits for the end of an order and, where it begins a boot, for what becomes of that.
async fn follow(client: &Client, order: &mut Order, deadline: Instant) -> Result<(), Failure> {
    end(client, order, deadline).await?;
    failed(order)?;
    if order.command == Command::PowerOff {
        return Ok(());
    }
    let name = path_part(&order.machine_name);
    let boots = format!("/api/v1/boots?limit={LATEST}&verdict=false&name={name}");
    loop {
        let boots: Vec<Boot> = client.get(&boots).await?;
        let began = boots.iter().find(|boot| boot.id == order.boot).map_or(0, |boot| boot.started);
        let next = boots.iter().find(|boot| boot.id != order.boot && boot.started >= began);
        match next.map(|boot| (boot.outcome, boot.id)) {
            Some((Outcome::Healthy, _)) => return Ok(()),
            Some((Outcome::Failed, id)) => {
                let text = format!("boot {id}, which followed, failed; see `kiln boot show {id}`");
                return Err(anyhow!(text).into());
            }
            _ if Instant::now() >= deadline => {
                return Err(anyhow!("the boot that follows is not healthy yet").into());
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

fn told(order: &Order, waited: bool) -> String {
    match (&order.command, waited) {
        (Command::PowerOff, true) => "switches off".to_owned(),
        (Command::Kexec { image, version }, true) => {
            format!("runs {image} {} and is healthy", version.short())
        }
        (_, true) => "started anew and is healthy".to_owned(),
        (Command::Kexec { image, version }, false) => {
            format!("told to change to {image} {} (order {})", version.short(), order.id)
        }
        (command, false) => format!("told to {} (order {})", command.kind(), order.id),
    }
}

impl Listed for Order {
    fn columns() -> Vec<Column<Self>> {
        vec![
            col("order", |it: &Self| it.id.to_string()),
            col("boot", |it| it.boot.to_string()),
            col("what", what),
            col("by", |it| it.asked_by.clone()),
            col("given", |it| ago(it.asked, now_ms())),
            more("at", |it| moment(it.asked)),
            col("state", |it| it.state.as_str().to_owned()),
            col("answer", first_words),
        ]
    }

    fn name(&self) -> String {
        self.id.to_string()
    }
}

fn what(order: &Order) -> String {
    match &order.command {
        Command::Kexec { image, version } => format!("kexec {image} {}", version.short()),
        Command::Logs { name, lines } => format!("logs {name} -n {lines}"),
        Command::Run { program, .. } => format!("run {}", program.join(" ")),
        other => other.kind().to_owned(),
    }
}

/// A log has been read by who asked for it.
fn first_words(order: &Order) -> String {
    match order.answer.lines().count() {
        0 | 1 => order.answer.trim_end().to_owned(),
        lines => format!("{lines} lines"),
    }
}
