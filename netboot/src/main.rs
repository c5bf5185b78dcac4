//! `kiln`: bakes operating-system images and boots machines into them over the network.

use std::process::ExitCode;

use clap::Parser as _;
use kiln::cli::{self, Cli, Command, Failure};

fn main() -> ExitCode {
    cli::completions::answer();
    let cli = Cli::parse();
    cli::init_logging(&cli.command);
    let ended = run(cli);
    cli::end_logging();
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("kiln: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    // The demonstration moves its thread into a network of its own, so no other thread may be there yet.
    if let Command::Demo(args) = &cli.command {
        return Ok(kiln::demo::run(args)?);
    }
    // Rights are a thread's own, so they are given up before there are more of them.
    if let Command::Build(args) = &cli.command {
        args.prepare()?;
    }
    if let Command::Serve(args) = &cli.command {
        args.prepare();
    }
    let mut runtime = match cli.command {
        Command::Serve(_) | Command::Build(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    runtime.enable_all().build()?.block_on(cli::run(cli))
}
