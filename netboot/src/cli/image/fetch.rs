use clap::Args;
use kiln_builder::build::LockUse;
use kiln_builder::{BuildRequest, FetchReport};
use kiln_types::Arch;
use serde_json::json;

use super::super::build::{SourceArgs, architectures, failure};
use super::super::table::{size, table, text};
use super::super::{Failure, Output, print_document};

/// Fetch and pack all that an image is made of, for builds to come
///
/// The next build of the image, and of any other with the same parts, only puts together what is there: it takes no
/// time to speak of and needs no network. What is new goes into the lock file. Nothing is built or published.
#[derive(Debug, Args)]
pub(super) struct FetchArgs {
    #[command(flatten)]
    source: SourceArgs,
    /// x86_64 or arm64, or both; that of this computer
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Fail when the lock file does not say everything
    #[arg(long)]
    locked: bool,
    /// Compress as well as possible, for builds with --release
    #[arg(long)]
    release: bool,
    /// How to print what is there
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

pub(super) async fn run(args: &FetchArgs) -> Result<(), Failure> {
    crate::sys::give_memory_back();
    let store = args.source.store()?;
    let progress = args.source.progress();
    let mut rows = table(&["component", "arch", "size", "unpacked", ""]);
    let mut all = Vec::new();
    for arch in architectures(&args.arch)? {
        let request = BuildRequest {
            lock_use: if args.locked { LockUse::Locked } else { LockUse::Extend },
            release: args.release,
            ..args.source.request(&store, progress.as_ref(), arch)?
        };
        let FetchReport { components, warnings, locked, .. } =
            kiln_builder::fetch(request).await.map_err(failure)?;
        for warning in &warnings {
            eprintln!("kiln: warning: {warning}");
        }
        for part in &components {
            rows.add_row([
                part.name.clone(),
                arch.to_string(),
                size(part.size),
                size(part.unpacked),
                (if part.reused { "as before" } else { "" }).to_owned(),
            ]);
        }
        all.push(json!({
            "arch": arch,
            "components": components,
            "warnings": warnings,
            "locked": locked,
        }));
    }
    if !args.output.is_table() {
        return print_document(args.output, &all);
    }
    println!("{}", text(&rows));
    Ok(())
}
