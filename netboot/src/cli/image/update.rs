use clap::{Args, ValueEnum};
use kiln_builder::BuildRequest;
use kiln_builder::build::{LockUse, Update, UpdateKind};
use kiln_types::Arch;

use super::super::build::{SourceArgs, architectures, failure};
use super::super::table::{table, text};
use super::super::{Failure, Output, print_document};

/// Move the lock file to what tags and packages mean now
///
/// Prints what moved. Nothing is built.
#[derive(Debug, Args)]
pub(super) struct UpdateArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// x86_64 or arm64, or both; that of this computer
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Move only these; `security` moves packages to new Debian revisions of the same upstream version
    #[arg(long, value_enum, value_name = "KIND")]
    only: Option<Only>,
    /// Move only this package or image reference; may be repeated
    #[arg(long = "entry", value_name = "NAME")]
    names: Vec<String>,
    /// How to print what moved
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Only {
    Tags,
    Packages,
    Security,
}

pub(super) async fn run(args: &UpdateArgs) -> Result<(), Failure> {
    let store = args.source.store()?;
    let progress = args.source.progress();
    let kind = match args.only {
        None => UpdateKind::All,
        Some(Only::Tags) => UpdateKind::Tags,
        Some(Only::Packages) => UpdateKind::Packages,
        Some(Only::Security) => UpdateKind::Security,
    };
    let mut changes = Vec::new();
    for arch in architectures(&args.arch)? {
        let update = Update { kind, names: args.names.clone() };
        let request = BuildRequest {
            lock_use: LockUse::Update(update),
            ..args.source.request(&store, progress.as_ref(), arch)?
        };
        changes.extend(kiln_builder::update(request).await.map_err(failure)?);
    }
    if !args.output.is_table() {
        return print_document(args.output, &changes);
    }
    if changes.is_empty() {
        println!("nothing moved");
        return Ok(());
    }
    let mut rows = table(&["kind", "name", "arch", "old", "new"]);
    for change in changes {
        rows.add_row([
            (if change.is_package { "package" } else { "image" }).to_owned(),
            change.name,
            change.arch.to_string(),
            change.old.unwrap_or_default(),
            change.new.unwrap_or_default(),
        ]);
    }
    println!("{}", text(&rows));
    Ok(())
}
