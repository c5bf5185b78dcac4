//! `kiln import`: the machines of another server.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_inventory::{Group, Setting, Settings, Wanted};

use super::apply::{self, APPLY, TRY};
use super::export_files::ServerArgs;
use super::print::{self, How};
use super::table::plain;
use super::{Failure, Output};
use crate::api::{Apply, TakenLeases};
use crate::files::{Described, Format, Style, gather_text, write};
use crate::import::{Imported, Shared, Source, read};

/// Take over machines from another server
///
/// Reads files of dnsmasq, ISC dhcpd, Kea, Warewulf or matchbox, and writes what they say as files that `kiln apply` reads.
/// What has no counterpart is told on standard error, with its file and line. Nothing is changed without --apply.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Whose files they are
    from: Source,
    /// Files with settings
    #[arg(required_unless_present = "leases")]
    files: Vec<PathBuf>,
    /// File with the leases of that server, which are given to this one; may be given several times. Stop the other
    /// server first
    #[arg(long, value_name = "FILE")]
    leases: Vec<PathBuf>,
    /// What to write
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Style,
    /// Apply what was read, instead of writing it
    #[arg(long)]
    apply: bool,
    /// Only show what would change; with --apply or --leases
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: ImportArgs) -> Result<(), Failure> {
    let found = read_all(args.from, &args.files)?;
    if !args.files.is_empty() {
        misplaced(
            found.leases.len() + found.leases6.len(),
            "leases",
            "--leases FILE takes them over",
        );
        let wanted = wanted(&found)?;
        if args.apply {
            let described = Described { wanted: wanted.clone(), ..Described::default() };
            let body = Apply { files: wanted, ..Apply::default() };
            let path = if args.dry_run { TRY } else { APPLY };
            let answer = apply::send(&args.server.client(), path, &body, &described).await?;
            apply::report(How::new(Output::Table), &answer)?;
        } else {
            print::say(write(&wanted, args.output)?.trim_end())?;
        }
    }
    if args.leases.is_empty() {
        return Ok(());
    }
    let Imported { leases, leases6, machines, .. } = read_all(args.from, &args.leases)?;
    misplaced(machines.len(), "machines", "name the file without --leases");
    let bodies = [
        ("/api/v1/leases", leases.is_empty(), serde_json::to_vec(&leases)?),
        ("/api/v1/leases6", leases6.is_empty(), serde_json::to_vec(&leases6)?),
    ];
    let mut all = TakenLeases::default();
    for (path, _, body) in bodies.into_iter().filter(|(_, empty, _)| !empty) {
        let path = if args.dry_run { format!("{path}?dry_run=true") } else { path.to_owned() };
        let TakenLeases { taken, skipped } = args.server.client().post(&path, body).await?;
        all.taken += taken;
        all.skipped.extend(skipped);
    }
    for lease in &all.skipped {
        eprintln!("{}: {}", lease.address, plain(&lease.why));
    }
    let would = if args.dry_run { " would be" } else { "" };
    eprintln!("{} leases{would} taken over, {} left out", all.taken, all.skipped.len());
    Ok(())
}

/// Tells of what is in files that were named for something else.
fn misplaced(count: usize, what: &str, hint: &str) {
    if count > 0 {
        eprintln!("{count} {what} in these files are left out; {hint}");
    }
}

/// Reads files, and tells what is left behind of them.
fn read_all(from: Source, paths: &[PathBuf]) -> Result<Imported, Failure> {
    let wrong = |error: anyhow::Error| Failure::new(Failure::CONFIG, error);
    let mut texts = Vec::new();
    for path in paths {
        let file = std::fs::File::open(path);
        let file =
            file.with_context(|| format!("cannot read {}", path.display())).map_err(wrong)?;
        let file = gather_text(&path.to_string_lossy(), Format::Yaml, file);
        texts.push(file.map_err(|error| wrong(error.into()))?.text);
    }
    let name = |at: usize| paths.get(at).map_or_else(|| Path::new("-"), PathBuf::as_path).display();
    let found =
        read(from, &texts).map_err(|(at, error)| wrong(anyhow!("{}: {error}", name(at))))?;
    for note in &found.notes {
        eprintln!("{}: {}", name(note.file), plain(&note.to_string()));
    }
    Ok(found)
}

/// Makes what `kiln apply` takes of what was found.
fn wanted(found: &Imported) -> Result<Wanted, Failure> {
    let groups = found.shared.iter().map(group).collect::<Result<_, _>>()?;
    Ok(Wanted { machines: found.machines.clone(), groups, ..Wanted::default() })
}

fn group(shared: &Shared) -> Result<Group, Failure> {
    let (key, value) = &shared.label;
    let selector = format!("{key}={value}")
        .parse()
        .with_context(|| format!("`{}` cannot be the name of a group", plain(&shared.name)))?;
    let settings = Settings {
        image: shared.image.clone(),
        cmdline: shared.cmdline.clone(),
        metadata: shared.metadata.clone(),
        unset: shared.only_its_cmdline.then_some(Setting::Cmdline).into_iter().collect(),
        ..Settings::default()
    };
    Ok(Group { name: shared.name.clone(), selector, priority: shared.priority, settings })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_server_says_is_written_so_that_apply_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("nodes.conf");
        std::fs::write(
            &path,
            "nodeprofiles:\n  Default:\n    kernel:\n      args: [quiet]\n  rack.1: {image name: web}\n\
             nodes:\n  n1:\n    profiles: [Default, rack.1]\n    network devices:\n      default:\n        \
             hwaddr: 52:54:00:00:00:01\n        ipaddr: 10.0.0.1\n",
        )
        .unwrap();
        let found = read_all(Source::Warewulf, &[path]).unwrap();
        let wanted = wanted(&found).unwrap();
        assert_eq!(wanted.machines.len(), 1, "{found:?}");
        for style in [Style::Yaml, Style::Toml, Style::Json] {
            let format = if style == Style::Toml { Format::Toml } else { Format::Yaml };
            let text = write(&wanted, style).unwrap();
            let again = crate::files::read("x", format, &text).unwrap();
            assert_eq!(again.wanted, wanted, "{text}");
        }
        let groups: Vec<_> =
            wanted.groups.iter().map(|group| (group.name.as_str(), group.priority)).collect();
        assert_eq!(groups, [("default", 0), ("rack.1", 1)]);
        for group in &wanted.groups {
            kiln_inventory::Document::check(group).unwrap();
            assert!(group.selector.matches(&wanted.machines[0].labels), "{group:?}");
        }
        let missing = read_all(Source::Isc, &[dir.path().join("none")]).unwrap_err();
        assert_eq!(missing.code(), Failure::CONFIG);
    }
}
