//! `kiln build`.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use kiln_builder::build::LockUse;
use kiln_builder::oci::ImageSettings;
use kiln_builder::output::Format;
use kiln_builder::progress::{Bars, Events, Progress, Silent};
use kiln_builder::trust::KeyDir;
use kiln_builder::{BuildError, BuildReport, BuildRequest, Store};
use kiln_types::Arch;
use serde_json::json;

use super::table::{size, table, text};
use super::{Failure, KeyDirArg, Output, StoreArg, print_document};
use crate::settings::DebianSettings;

/// Bake an image: kernel and initrd from a YAML file
///
/// The YAML is LinuxKit's, with more: see docs/images.md. Several files are one image: later ones add to earlier ones.
/// `-` is standard input.
///
/// What the files name without saying it exactly (tags of images, names of Debian packages) is looked up once and
/// written into a lock file beside the first one, such as web.lock beside web.yml. From then on the same files give the
/// same bytes, on any host; `kiln image update` moves the lock. Packages come from the Debian mirror that apt uses on
/// this computer, are checked against its signature, and are kept for the next time.
///
/// The result goes into the artifact store, from which `kiln serve` gives it to machines. With --out it is also
/// written as files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln build web.yml                                   for this computer's architecture
  kiln build base.yml web.yml --name web:edge --arch x86_64,arm64
  kiln build web.yml --format uki,raw-efi --out dist   a UEFI program and a disk image
  kiln build web.yml --locked --offline                as recorded, without network

Exit codes: 0 done, 1 error, 2 wrong use, 64 wrong specification or lock file")]
pub struct BuildArgs {
    #[command(flatten)]
    pub(super) source: SourceArgs,
    /// x86_64 or arm64, or both; that of this computer
    #[arg(long, value_name = "ARCH", value_delimiter = ',')]
    arch: Vec<Arch>,
    /// Also write files into this folder
    #[arg(short, long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What to write there; kernel+initrd
    #[arg(short, long, value_name = "FORMAT", value_delimiter = ',', requires = "out")]
    format: Vec<Format>,
    /// Fail when the lock file does not say everything
    #[arg(long)]
    locked: bool,
    /// Compress as well as possible, which takes far longer
    #[arg(long)]
    release: bool,
    /// Print the joined specification and build nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not sign the version
    #[arg(long)]
    no_sign: bool,
    /// How to print what was built
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    report: Report,
    /// Give up rights first: only the folders of the store, the output, the keys and the lock file can be written to
    #[arg(long)]
    confined: bool,
    #[command(flatten)]
    keys: KeyDirArg,
}

/// What an image is made from, and where it goes.
#[derive(Args, Debug)]
pub(super) struct SourceArgs {
    /// YAML files of the image; `-` is standard input
    #[arg(required = true, value_name = "IMAGE.yml")]
    pub(super) specs: Vec<PathBuf>,
    /// Name of the image, with or without a channel; that of the first file
    #[arg(long)]
    pub(super) name: Option<String>,
    /// Lock file; beside the first YAML file, and none for standard input
    #[arg(long, value_name = "FILE")]
    pub(super) lock: Option<PathBuf>,
    /// OCI layout or archive that has images, asked before any registry; may be repeated
    #[arg(long, value_name = "DIR")]
    pub(super) images: Vec<PathBuf>,
    /// Use no network
    #[arg(long)]
    pub(super) offline: bool,
    /// Debian mirror
    #[arg(long, value_name = "URL")]
    pub(super) mirror: Option<String>,
    /// Settings, of which `[[registry]]` and `[[trust.image]]` count here
    #[arg(long, visible_alias = "settings", env = "KILN_CONFIG", value_name = "kiln.toml")]
    pub(super) config: Option<PathBuf>,
    /// How to show progress on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORM")]
    pub(super) progress: Show,
    #[command(flatten)]
    pub(super) store: StoreArg,
}

/// How to print the report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Report {
    /// For people.
    #[default]
    Table,
    /// For programs: an object, or a list of them for several architectures.
    Json,
}

/// How to show progress.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Show {
    /// Bars, on a terminal.
    #[default]
    Bars,
    /// One JSON object on each line: task, done, total, finished.
    Json,
    /// Nothing.
    None,
}

impl SourceArgs {
    /// Returns the lock file that is meant, if any.
    pub(super) fn lock_file(&self) -> Option<PathBuf> {
        let first = self.specs.first().filter(|path| *path != Path::new("-"));
        self.lock.clone().or_else(|| first.map(|path| path.with_extension("lock")))
    }

    /// Opens the store that it goes into.
    pub(super) fn store(&self) -> Result<Store, Failure> {
        self.store.open(self.config.as_deref())
    }

    pub(super) fn progress(&self) -> Box<dyn Progress> {
        progress(self.progress)
    }

    /// Asks for what is the same for builds and updates.
    pub(super) fn request<'a>(
        &self,
        store: &'a Store,
        progress: &'a dyn Progress,
        arch: Arch,
    ) -> Result<BuildRequest<'a>, Failure> {
        let mut images = image_settings(self.config.as_deref())?;
        images.dirs.clone_from(&self.images);
        let debian = debian_settings(self.config.as_deref())?;
        Ok(BuildRequest {
            name: self.name.clone(),
            mirror: self.mirror.clone().or(debian.mirror),
            snapshot_mirror: debian.snapshot_mirror,
            images,
            lock: self.lock_file(),
            offline: self.offline,
            progress,
            ..BuildRequest::new(store, self.specs.clone(), arch)
        })
    }
}

/// Makes what shows progress.
pub(super) fn progress(show: Show) -> Box<dyn Progress> {
    match show {
        Show::Bars => Box::new(Bars::new()),
        Show::Json => Box::new(Events::new()),
        Show::None => Box::new(Silent),
    }
}

/// Reads what the settings say about registries and images; without a file, they say nothing.
pub(super) fn image_settings(config: Option<&Path>) -> Result<ImageSettings, Failure> {
    let Some(path) = config else { return Ok(ImageSettings::default()) };
    let wrong = |error| Failure::new(Failure::CONFIG, error);
    let registries = crate::settings::registries(path).map_err(wrong)?;
    let policy = crate::settings::image_policy(path).map_err(wrong)?;
    Ok(ImageSettings { registries, policy, ..ImageSettings::default() })
}

/// Reads what the settings say about Debian archives; without a file, they say nothing.
pub(super) fn debian_settings(config: Option<&Path>) -> Result<DebianSettings, Failure> {
    let Some(path) = config else { return Ok(DebianSettings::default()) };
    crate::settings::debian(path).map_err(|error| Failure::new(Failure::CONFIG, error))
}

impl BuildArgs {
    fn keys(&self) -> Result<KeyDir, Failure> {
        self.keys.of(&self.source.store, self.source.config.as_deref())
    }

    /// Does what has to be done while the process has one thread: settles how memory is given back, and gives up rights
    /// where that is asked for.
    ///
    /// # Errors
    ///
    /// Fails when a folder that the build writes to cannot be made, or the kernel refuses.
    pub fn prepare(&self) -> Result<(), Failure> {
        crate::sys::give_memory_back();
        if !self.confined {
            return Ok(());
        }
        let store = self.source.store()?;
        let keys = self.keys()?;
        if !self.no_sign {
            keys.site_key()?;
        }
        let lock = self.source.lock_file();
        let lock = lock.and_then(|path| path.parent().map(Path::to_owned));
        let all =
            [Some(store.dir().to_owned()), Some(keys.path().to_owned()), lock, self.out.clone()];
        let writable: Vec<_> = all.into_iter().flatten().collect();
        Ok(crate::bake::confine::confine(&writable)?)
    }
}

/// Returns the architectures that are named, or that of this computer.
pub(super) fn architectures(named: &[Arch]) -> Result<Vec<Arch>, Failure> {
    const HOST: &str =
        "this computer is of an architecture that Kiln builds no images for; name one with --arch";
    let mut all = named.to_vec();
    if all.is_empty() {
        all.push(Arch::host().ok_or_else(|| Failure::new(Failure::USAGE, anyhow!(HOST)))?);
    }
    all.sort();
    all.dedup();
    Ok(all)
}

/// Gives errors of builds their exit codes.
pub(super) fn failure(error: BuildError) -> Failure {
    let code = match &error {
        BuildError::Spec(_) | BuildError::Name(_) | BuildError::Lock(_) => Failure::CONFIG,
        _ => 1,
    };
    Failure::new(code, error)
}

pub(super) async fn run(args: BuildArgs) -> Result<(), Failure> {
    if args.dry_run {
        let spec = kiln_builder::spec::load(&args.source.specs);
        let spec = spec.map_err(|error| failure(error.into()))?;
        print!("{}", spec.to_yaml().map_err(|error| failure(error.into()))?);
        return Ok(());
    }
    let store = args.source.store()?;
    let keys = if args.no_sign { None } else { Some(args.keys()?) };
    let progress = args.source.progress();
    let mut reports = Vec::new();
    for arch in architectures(&args.arch)? {
        let request = BuildRequest {
            out: args.out.clone(),
            formats: args.format.clone(),
            lock_use: if args.locked { LockUse::Locked } else { LockUse::Extend },
            release: args.release,
            keys: keys.clone(),
            ..args.source.request(&store, progress.as_ref(), arch)?
        };
        let report = kiln_builder::build(request).await.map_err(failure)?;
        for warning in &report.warnings {
            eprintln!("kiln: warning: {warning}");
        }
        if args.report == Report::Table {
            print(&report);
        }
        reports.push(report);
    }
    match (args.report, reports.as_slice()) {
        (Report::Table, _) => Ok(()),
        (Report::Json, [one]) => print_document(Output::Json, one),
        (Report::Json, all) => print_document(Output::Json, &json!(all)),
    }
}

fn print(report: &BuildReport) {
    let mut rows = table(&["component", "size", "unpacked", "packed", "took", ""]);
    for part in &report.components {
        let (unpacked, packed) = match part.compression {
            Some(compression) => (size(part.unpacked), compression.to_string()),
            None => (String::new(), String::new()),
        };
        rows.add_row([
            match part.compression {
                None => format!("{} {}", part.name, report.manifest.kernel.release),
                Some(_) => part.name.clone(),
            },
            size(part.size),
            unpacked,
            packed,
            millis(part.millis),
            (if part.reused { "as before" } else { "" }).to_owned(),
        ]);
    }
    println!("{}\n", text(&rows));
    let steps: Vec<_> =
        report.steps.iter().map(|step| format!("{} {}", step.name, millis(step.millis))).collect();
    println!("{}", steps.join(", "));
    for change in &report.locked {
        tracing::debug!(%change, "locked");
    }
    if !report.locked.is_empty() {
        println!("{} new entries in the lock file", report.locked.len());
    }
    for file in &report.files {
        println!("wrote {}", file.display());
    }
    println!(
        "{} {} {}: {} to download, {} unpacked, boots with {} of memory",
        report.image,
        report.arch,
        report.version,
        size(report.size),
        size(report.unpacked),
        size(report.min_ram)
    );
}

fn millis(millis: u64) -> String {
    format!("{}.{:03} s", millis / 1000, millis % 1000)
}
