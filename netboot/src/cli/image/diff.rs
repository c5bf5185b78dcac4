use clap::Args;
use kiln_builder::diff::{self, Diff};
use kiln_types::Arch;

use super::super::table::{size, table, text};
use super::super::{Failure, Output, StoreArg, print_document};
use super::change::failure;

/// Show what changed from one version to another
///
/// Files, packages and images that were added, removed or changed, and the bytes of each component.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The older one: NAME, NAME:CHANNEL or NAME@DIGEST
    #[arg(value_name = "A")]
    old: String,
    /// The newer one
    #[arg(value_name = "B")]
    new: String,
    /// For this architecture; that of this computer
    #[arg(long)]
    arch: Option<Arch>,
    /// How to print it
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
    #[command(flatten)]
    store: StoreArg,
}

pub(super) fn run(args: &DiffArgs) -> Result<(), Failure> {
    let store = args.store.open(None)?;
    let arch = args.arch.or_else(Arch::host).unwrap_or(Arch::X86_64);
    let manifest = |name: &str| {
        let version = store.find(name, arch)?;
        store.manifest(&version.digest)
    };
    let (old, new) = (manifest(&args.old).map_err(failure)?, manifest(&args.new).map_err(failure)?);
    let diff = diff::diff(&store, &old, &new)?;
    if !args.output.is_table() {
        return print_document(args.output, &diff);
    }
    print(&diff);
    Ok(())
}

fn print(diff: &Diff) {
    if !diff.components.is_empty() {
        let mut rows = table(&["component", "old", "new"]);
        for part in &diff.components {
            rows.add_row([
                part.component.clone(),
                part.old.map(size).unwrap_or_default(),
                part.new.map(size).unwrap_or_default(),
            ]);
        }
        println!("{}\n", text(&rows));
    }
    if !diff.packages.is_empty() || !diff.images.is_empty() {
        let mut rows = table(&["made from", "old", "new"]);
        for (name, (old, new)) in &diff.packages {
            rows.add_row([
                name.clone(),
                old.clone().unwrap_or_default(),
                new.clone().unwrap_or_default(),
            ]);
        }
        for (name, (old, new)) in &diff.images {
            rows.add_row([
                name.clone(),
                old.map(|digest| digest.short()).unwrap_or_default(),
                new.map(|digest| digest.short()).unwrap_or_default(),
            ]);
        }
        println!("{}\n", text(&rows));
    }
    if let Some((old, new)) = &diff.cmdline {
        println!("arguments  - {old}\n           + {new}\n");
    }
    for file in &diff.files {
        let sign = match (&file.old, &file.new) {
            (None, _) => '+',
            (_, None) => '-',
            _ => '~',
        };
        println!("{sign} /{}", file.path);
    }
    let count = |sign: fn(&diff::FileDiff) -> bool| diff.files.iter().filter(|f| sign(f)).count();
    println!(
        "{} files added, {} removed, {} changed; {} to download instead of {}",
        count(|file| file.old.is_none()),
        count(|file| file.new.is_none()),
        count(|file| file.old.is_some() && file.new.is_some()),
        size(diff.size.1),
        size(diff.size.0)
    );
}
