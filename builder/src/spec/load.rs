use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde_saphyr::{Options, budget};

use super::check::check;
use super::error::from_parser;
use super::file::beside;
use super::place::{Placed, within};
use super::{InitSpec, Seccomp, Spec, SpecError};

/// The largest specification that is read. Real ones have a few kilobytes.
const MAX_SPEC: u64 = 4 << 20;
/// The most text that its aliases may make of it.
const MAX_TEXT: usize = 16 << 20;

/// Reads specification files and joins them: lists are appended, single values replaced by later ones. `-` is the
/// standard input.
///
/// # Errors
///
/// Fails when there is no file, or when one cannot be read or is wrong.
pub fn load(paths: &[PathBuf]) -> Result<Spec, SpecError> {
    load_from(paths, io::stdin())
}

/// Reads specification files, and this for `-`.
pub(super) fn load_from(paths: &[PathBuf], stdin: impl Read) -> Result<Spec, SpecError> {
    let mut stdin = Some(stdin);
    let mut joined: Option<Spec> = None;
    for path in paths {
        let input = path.as_os_str() == "-";
        let text = if input {
            let again = || io::Error::other("the standard input can be read only once");
            stdin.take().ok_or_else(again).and_then(read_text)
        } else {
            File::open(path).and_then(read_text)
        };
        let text = text.map_err(|source| SpecError::Read { path: path.clone(), source })?;
        let name = if input { "standard input".into() } else { path.to_string_lossy() };
        let mut spec = read(&name, &text)?;
        let dir = if input { None } else { path.parent() };
        find_sources(&mut spec, dir.unwrap_or_else(|| Path::new("")));
        joined = Some(match joined {
            None => spec,
            Some(earlier) => join(earlier, spec),
        });
    }
    let spec = joined.ok_or(SpecError::None)?;
    check(&spec)?;
    Ok(spec)
}

/// Reads one specification. The file name is for messages.
///
/// # Errors
///
/// Fails when it is wrong, and says where.
pub fn parse(file: &str, text: &str) -> Result<Spec, SpecError> {
    let spec = read(file, text)?;
    check(&spec)?;
    Ok(spec)
}

fn read_text(file: impl Read) -> io::Result<String> {
    let mut text = String::new();
    file.take(MAX_SPEC + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_SPEC {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(text)
}

/// Reads one specification that may refer to others.
pub(super) fn read(file: &str, text: &str) -> Result<Spec, SpecError> {
    let file = Arc::from(file);
    let options = options();
    let whole: Placed<Spec> = within(&file, || serde_saphyr::from_str_with_options(text, options))
        .map_err(|error| from_parser(&file, &error))?;
    let (mut spec, place) = whole.into_parts();
    spec.place = place;
    Ok(spec)
}

/// Reads a YAML file of any other kind, which may be as large as its text allows. Every [`Placed`] in it knows its place.
///
/// # Errors
///
/// Fails when it is wrong, and says where.
pub fn read_yaml<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, SpecError> {
    let file = Arc::from(file);
    let mut options = options();
    // Aliases may make a text several times as large as it is, and no more.
    let length = text.len();
    options.alias_limits.max_total_replayed_events = 1_000_000 + length / 2;
    if let Some(budget) = &mut options.budget {
        budget.max_nodes = 1_000_000 + length / 2;
        budget.max_events = 2_000_000 + 2 * length;
        budget.max_total_scalar_bytes = MAX_TEXT + length;
        budget.max_aliases = 250_000;
        budget.max_merge_keys = 250_000;
        budget.enforce_alias_anchor_ratio = false;
    }
    within(&file, || serde_saphyr::from_str_with_options(text, options))
        .map_err(|error| from_parser(&file, &error))
}

/// Limits of the parser: what a specification cannot need only costs time and memory.
pub(super) fn options() -> Options {
    let mut options = Options::default();
    // As LinuxKit: `y` and `on` are texts.
    options.strict_booleans = true;
    options.budget = Some({
        let mut budget = budget::Budget::default();
        budget.max_total_scalar_bytes = MAX_TEXT;
        budget.max_documents = 1;
        budget
    });
    options
}

/// Finds the files and folders of the build host that it names.
fn find_sources(spec: &mut Spec, dir: &Path) {
    let find = |written: &Path| beside(written, dir);
    let Spec { kernel, init, onboot, onshutdown, services, volumes, files, .. } = spec;
    for source in files.iter_mut().filter_map(|file| file.source.as_mut()) {
        source.find(dir);
    }
    for container in onboot.iter_mut().chain(onshutdown).chain(services) {
        if let Some(Seccomp::File(file)) = container.seccomp.as_mut().map(Placed::value_mut) {
            file.find(dir);
        }
        container.image.iter_mut().for_each(|image| image.value_mut().find(find));
    }
    kernel.image.iter_mut().for_each(|image| image.value_mut().find(find));
    for image in volumes.iter_mut().filter_map(|volume| volume.image.as_mut()) {
        image.value_mut().find(find);
    }
    for entry in init {
        if let InitSpec::Image(image) = entry.value_mut() {
            image.find(find);
        }
    }
}

fn join(mut a: Spec, b: Spec) -> Spec {
    a.kernel.join(b.kernel);
    a.init.extend(b.init);
    a.onboot.extend(b.onboot);
    a.onshutdown.extend(b.onshutdown);
    a.services.extend(b.services);
    a.volumes.extend(b.volumes);
    a.files.extend(b.files);
    a.layout = b.layout.or(a.layout);
    a.network = b.network.or(a.network);
    a.state = b.state.or(a.state);
    a.watchdog = b.watchdog.or(a.watchdog);
    a.trust = b.trust.or(a.trust);
    if b.debian != super::DebianSpec::default() {
        a.debian = b.debian;
    }
    a
}
