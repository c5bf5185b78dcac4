use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::error::{Place, from_parser};
use super::{ContainerSpec, FileSpec, Spec, SpecError};

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
    let names: Vec<_> = paths.iter().map(|path| path.to_string_lossy()).collect();
    check(&spec).map_err(|problem| wrong(&names.join(", "), problem))?;
    Ok(spec)
}

/// Reads one specification. The file name is for messages.
///
/// # Errors
///
/// Fails when it is wrong, and says where.
pub fn parse(file: &str, text: &str) -> Result<Spec, SpecError> {
    let spec = read(file, text)?;
    check(&spec).map_err(|problem| wrong(file, problem))?;
    Ok(spec)
}

/// Reads one specification that may refer to others.
fn read(file: &str, text: &str) -> Result<Spec, SpecError> {
    serde_saphyr::from_str(text).map_err(|error| from_parser(file, &error))
}

fn wrong(file: &str, problem: String) -> SpecError {
    SpecError::Wrong { place: Place::new(file, None), problem }
}

fn join(mut a: Spec, b: Spec) -> Spec {
    a.kernel.deb = b.kernel.deb.or(a.kernel.deb);
    a.kernel.modules = b.kernel.modules.or(a.kernel.modules);
    a.kernel.cmdline = b.kernel.cmdline.or(a.kernel.cmdline);
    a.init = if b.init.is_empty() { a.init } else { b.init };
    a.onboot.extend(b.onboot);
    a.services.extend(b.services);
    a.files.extend(b.files);
    if b.debian != super::DebianSpec::default() {
        a.debian = b.debian;
    }
    a
}

/// Finds what is well-formed but makes no sense.
fn check(spec: &Spec) -> Result<(), String> {
    let services: BTreeSet<_> = spec.services.iter().map(|service| &service.name).collect();
    let mut seen = BTreeSet::new();
    for service in &spec.services {
        let name = service.name.as_str();
        if !seen.insert(name) {
            return Err(format!("service `{name}` is there twice; give one of them another name"));
        }
        if let Some(other) = service.after.iter().find(|other| !services.contains(other)) {
            return Err(format!(
                "service `{name}` starts after `{}`, which is not a service",
                other.as_str()
            ));
        }
    }
    for container in spec.onboot.iter().chain(&spec.services) {
        check_container(container)?;
    }
    spec.files.iter().try_for_each(check_file)
}

fn check_container(container: &ContainerSpec) -> Result<(), String> {
    let name = container.name.as_str();
    if container.deb.is_empty() {
        return Err(format!("container `{name}` has no `deb`, so there is nothing to run"));
    }
    if container.command.is_empty() {
        return Err(format!("container `{name}` has no `command`"));
    }
    for bind in &container.binds {
        let mut parts = bind.split(':');
        let absolute = |part: Option<&str>| part.is_some_and(|path| path.starts_with('/'));
        if !absolute(parts.next()) || !absolute(parts.next()) || parts.nth(1).is_some() {
            return Err(format!(
                "bind `{bind}` of container `{name}` is not `/source:/destination[:options]`"
            ));
        }
    }
    let destinations = container.mounts.iter().map(|mount| mount.destination.as_str());
    for destination in destinations.chain(container.tmpfs.iter().map(String::as_str)) {
        if !destination.starts_with('/') {
            return Err(format!("`{destination}` of container `{name}` is not an absolute path"));
        }
    }
    Ok(())
}

fn check_file(file: &FileSpec) -> Result<(), String> {
    let given =
        [file.contents.is_some(), file.source.is_some(), file.symlink.is_some(), file.directory];
    match given.iter().filter(|given| **given).count() {
        1 if file.optional && file.source.is_none() => {
            Err(format!("file `/{}` is optional, which only a `source` can be", file.path))
        }
        1 => Ok(()),
        _ => Err(format!(
            "file `/{}` needs exactly one of `contents`, `source`, `symlink` and `directory: true`",
            file.path
        )),
    }
}
