use std::sync::PoisonError;

use super::assemble::assemble;
use super::pack::Packer;
use super::report::ComponentReport;
use super::resolve::Resolved;
use super::{
    BuildError, BuildRequest, check_lock, epoch, export, image_name, old_lock, packages, packing,
    save_lock, sources,
};
use crate::fetch::Fetcher;
use crate::lock::Change;
use crate::spec;

/// What lies ready for builds to come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct FetchReport {
    /// The kernel and each segment, sorted by name.
    pub components: Vec<ComponentReport>,
    /// What is not an error, but may not be what was meant.
    pub warnings: Vec<String>,
    /// What was added to the lock file.
    pub locked: Vec<Change>,
}

/// Fetches all that an image is made of and packs it, so that its next build, and that of any other image with the same
/// parts, only puts together what is there. Nothing is published.
///
/// # Errors
///
/// Fails when the specification is wrong, when something cannot be had, and when it cannot be written.
pub async fn fetch(request: BuildRequest<'_>) -> Result<FetchReport, BuildError> {
    let spec = spec::load(&request.specs)?;
    let image = image_name(&request)?;
    let packing = packing(&request, &spec, epoch(&request)?);
    let fetcher = Fetcher::new(request.progress);
    let packages = packages(&request, &spec, &fetcher);
    let sources = sources(&request, &spec).await?;
    let mut warnings = spec.warnings();
    let (old, lock_use) = (old_lock(&request)?, &request.lock_use);
    let mut resolved = Resolved::new(&spec, &packages, &sources, &old, lock_use).await?;
    let stub = export::needs_stub(&request);
    resolved.add_stub(&spec, &packages, stub, &old, lock_use).await?;
    let locked = check_lock(&request, &old, &resolved.lock)?;
    warnings.extend(packages.warnings());

    let packer = Packer::new(request.store, &packages, &sources, packing, request.progress);
    let assembled = assemble(&packer, &spec, &image, &resolved).await?;
    // The lists of what is in each part are kept as well.
    packer.contents(&spec, image.name(), &assembled.kernel.kernel, &resolved).await?;
    warnings.extend(packer.warnings());
    if let Some(path) = &request.lock
        && let Err(error) = save_lock(path, &resolved.lock)
    {
        warnings.push(format!("{error}; the next build may take other packages"));
    }
    let mut components = packer.reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    components.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(FetchReport { components, warnings, locked })
}
