//! `kiln image check`.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, anyhow};
use clap::Args;
use kiln_builder::kernel::kspp::{self, Facts, Finding, Verdict};
use kiln_builder::kernel::{self, KernelConfig};
use kiln_builder::spec::{self, Spec};
use kiln_builder::store::Store;
use kiln_types::Arch;

use super::table::{table, text};
use super::{Failure, Output, StoreArg, print_document};

/// No kernel comes near this.
const MAX_KERNEL: u64 = 256 << 20;
/// What a version keeps its kernel's configuration as.
const ATTACHMENT: &str = "kernel-config";

/// Compare an image with security recommendations
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Image of the store, or the file of a specification
    image: String,
    /// Compare with the settings that the Kernel Self-Protection Project recommends
    #[arg(long, required = true)]
    kspp: bool,
    /// Architecture
    #[arg(long, default_value_t = Arch::X86_64)]
    arch: Arch,
    /// Configuration of the kernel, where the image does not have it
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Show what is as recommended too
    #[arg(long)]
    all: bool,
    /// End with exit code 3 when something differs
    #[arg(long)]
    strict: bool,
    #[command(flatten)]
    store: StoreArg,
    /// How to print the answer
    #[arg(short, long, value_enum, default_value_t, value_name = "FORMAT")]
    output: Output,
}

/// What is known of an image before its kernel's configuration is looked for.
struct Known {
    cmdline: String,
    sysctls: BTreeMap<String, String>,
    config: Option<KernelConfig>,
}

pub(super) fn run(args: &CheckArgs) -> Result<(), Failure> {
    let path = Path::new(&args.image);
    let mut known = if path.is_file() { of_spec(path, args)? } else { of_version(args)? };
    if let Some(path) = &args.config {
        let read = || KernelConfig::read(File::open(path)?);
        let config = read().with_context(|| format!("cannot read {}", path.display()))?;
        let config =
            config.ok_or_else(|| anyhow!("{} has no line such as `CONFIG_X=y`", path.display()))?;
        known.config = Some(config);
    }
    let facts = Facts {
        arch: args.arch,
        config: known.config.as_ref(),
        cmdline: &known.cmdline,
        sysctls: &known.sysctls,
    };
    let findings = kspp::check(&facts);
    show(&findings, args)?;
    let differs = findings.iter().any(|finding| finding.verdict == Verdict::Differs);
    if args.strict && differs {
        let error = anyhow!("{} is not as recommended", args.image);
        return Err(Failure::new(Failure::PARTIAL, error));
    }
    Ok(())
}

fn of_spec(path: &Path, args: &CheckArgs) -> Result<Known, Failure> {
    let spec = spec::load(&[path.to_owned()]).map_err(|error| Failure::new(64, error))?;
    let cmdline = spec.kernel.cmdline.as_ref().and_then(|line| line.get(args.arch));
    // What was built from it before has a kernel; without one the configuration stays unknown.
    let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let config = name.and_then(|name| {
        let dir = args.store.dir(None).ok().filter(|dir| dir.is_dir())?;
        let store = Store::open(dir).ok()?;
        config_of_version(&store, &name, args.arch).ok().flatten()
    });
    Ok(Known { cmdline: cmdline.unwrap_or_default().to_owned(), sysctls: sysctls(&spec), config })
}

fn of_version(args: &CheckArgs) -> Result<Known, Failure> {
    let store = args.store.open(None)?;
    let found = store.find(&args.image, args.arch);
    let found = found.map_err(|error| Failure::new(Failure::NOT_FOUND, error))?;
    let cmdline = store.manifest(&found.digest)?.cmdline;
    let config = config_of_version(&store, &args.image, args.arch)?;
    Ok(Known { cmdline, sysctls: BTreeMap::new(), config })
}

/// Returns what the kernel of a version was built with: recorded beside it, or in the kernel itself.
fn config_of_version(
    store: &Store,
    image: &str,
    arch: Arch,
) -> Result<Option<KernelConfig>, Failure> {
    let found = store.find(image, arch)?;
    if let Some(recorded) = found.attachments.get(ATTACHMENT) {
        let read = || KernelConfig::read(File::open(store.artifact(recorded))?);
        return Ok(read().context("cannot read the configuration of the kernel")?);
    }
    let kernel = store.artifact(&store.manifest(&found.digest)?.kernel.digest);
    let read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(
            &mut std::io::Read::take(File::open(&kernel)?, MAX_KERNEL),
            &mut bytes,
        )?;
        Ok(bytes)
    };
    let bytes = read().with_context(|| format!("cannot read the kernel {}", kernel.display()))?;
    Ok(kernel::config_of(&bytes))
}

/// Returns the parameters that a specification sets: in containers of the machine's own namespaces, and in files that
/// programs such as `sysctl` read.
fn sysctls(spec: &Spec) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for file in &spec.files {
        let path = file.path.as_str();
        let place = path.strip_prefix("usr/lib/").or_else(|| path.strip_prefix("etc/"));
        let read = place.is_some_and(|path| path == "sysctl.conf" || path.starts_with("sysctl.d/"));
        if let Some(text) = file.contents.as_deref().filter(|_| read) {
            kspp::add_sysctls(text, &mut all);
        }
    }
    for container in &spec.onboot {
        for (name, value) in container.sysctl.iter().flatten() {
            all.insert(name.replace('/', "."), value.as_str().to_owned());
        }
    }
    all
}

fn show(findings: &[Finding], args: &CheckArgs) -> Result<(), Failure> {
    if !args.output.is_table() {
        return print_document(args.output, &findings);
    }
    let mut rows = table(&["where", "setting", "recommended", "found", "verdict", "what for"]);
    for finding in findings.iter().filter(|it| args.all || it.verdict != Verdict::Ok) {
        rows.add_row([
            finding.place.to_string(),
            finding.name.to_owned(),
            finding.recommended.clone(),
            finding.found.clone().unwrap_or_else(|| "-".to_owned()),
            finding.verdict.to_string(),
            finding.why.to_owned(),
        ]);
    }
    println!("{}", text(&rows));
    let count = |verdict| findings.iter().filter(|it| it.verdict == verdict).count();
    let counts = [Verdict::Ok, Verdict::Differs, Verdict::Unknown].map(count);
    println!("\n{} as recommended, {} differ, {} unknown", counts[0], counts[1], counts[2]);
    Ok(())
}
