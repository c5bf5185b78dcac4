use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::check::check;
use super::error::from_parser;
use super::place::Placed;
use super::{Spec, SpecError};

/// The largest specification that is read. Real ones have a few kilobytes.
const MAX_SPEC: u64 = 4 << 20;

/// Reads specification files and joins them: lists are appended, single values replaced by later ones.
///
/// # Errors
///
/// Fails when there is no file, or when one cannot be read or is wrong.
pub fn load(paths: &[PathBuf]) -> Result<Spec, SpecError> {
    let mut joined: Option<Spec> = None;
    for path in paths {
        let failed = |source| SpecError::Read { path: path.clone(), source };
        let mut text = String::new();
        File::open(path)
            .and_then(|file| file.take(MAX_SPEC + 1).read_to_string(&mut text))
            .map_err(failed)?;
        if text.len() as u64 > MAX_SPEC {
            return Err(failed(std::io::Error::other("it is larger than 4 MiB")));
        }
        let mut spec = read(&path.to_string_lossy(), &text)?;
        let dir = path.parent().unwrap_or_else(|| Path::new(""));
        for source in spec.files.iter_mut().filter_map(|file| file.source.as_mut()) {
            *source = dir.join(&*source).to_string_lossy().into_owned();
        }
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

/// Reads one specification that may refer to others.
fn read(file: &str, text: &str) -> Result<Spec, SpecError> {
    let file = Arc::from(file);
    let mut whole: Placed<Spec> =
        serde_saphyr::from_str(text).map_err(|error| from_parser(&file, &error))?;
    whole.is_in(&file);
    let (mut spec, place) = whole.into_parts();
    spec.place = place;
    if let Some(deb) = &mut spec.kernel.deb {
        deb.is_in(&file);
    }
    if let Some(modules) = &mut spec.kernel.modules {
        modules.is_in(&file);
    }
    if let Some(init) = &mut spec.init {
        init.is_in(&file);
    }
    for container in spec.onboot.iter_mut().chain(&mut spec.services) {
        container.name.is_in(&file);
        container.after.iter_mut().for_each(|other| other.is_in(&file));
    }
    spec.files.iter_mut().for_each(|entry| entry.path.is_in(&file));
    Ok(spec)
}

fn join(mut a: Spec, b: Spec) -> Spec {
    a.kernel.deb = b.kernel.deb.or(a.kernel.deb);
    a.kernel.modules = b.kernel.modules.or(a.kernel.modules);
    a.kernel.cmdline = b.kernel.cmdline.or(a.kernel.cmdline);
    a.init = b.init.or(a.init);
    a.onboot.extend(b.onboot);
    a.services.extend(b.services);
    a.files.extend(b.files);
    if b.debian != super::DebianSpec::default() {
        a.debian = b.debian;
    }
    a
}
