//! Containers as segments.

use crate::build::BuildError;
use crate::bundle::{self, RootFiles, Surroundings};
use crate::manifest::SegmentEntry;
use crate::spec::{Container, ContainerSpec, Layout, Spec};
use crate::{packed, segment};

use super::components::{Components, blocking, paths, place, unpack};
use super::inputs::{Fetched, key};

impl Components<'_> {
    /// Packs a container: its configuration and its files.
    pub(super) async fn container(
        &mut self,
        mut container: Container,
        around: Surroundings<'_>,
        layout: Layout,
        path: String,
        packages: &[Fetched],
    ) -> Result<SegmentEntry, BuildError> {
        bundle::package_environment(&mut container);
        let name = container.name.as_str();
        let mut key = key("container", packages, self.mtime);
        key.field(&path);
        key.field(&String::from_utf8_lossy(&bundle::fingerprint(&container, around)?));
        key.field(&format!("{layout:?}"));
        let digests = packages.iter().map(|package| package.entry.sha256).collect();
        let root = (digests, bundle::mount_points(&container), layout);
        let shared = self.roots.get(&root).cloned();
        key.field(shared.as_deref().unwrap_or_default());
        let key = key.finish();
        let own = match layout {
            Layout::Packed => "root.sqfs",
            Layout::Cpio if container.readonly => "rootfs",
            Layout::Cpio => "lower",
        };
        self.roots.entry(root).or_insert_with(|| format!("{path}/{own}"));
        if let Some(known) = segment::find(&self.store, name, &key) {
            self.reused.push(name.to_owned());
            return Ok(known);
        }
        let task = self.progress.begin(&format!("packing {name}"), None);
        let (store, mtime) = (self.store.clone(), self.mtime);
        let (paths, name) = (paths(packages), name.to_owned());
        // What is written of the surroundings is known before, so the rest can be done elsewhere.
        let config = bundle::config_json(&container, around)?;
        let packed = blocking(move || -> Result<_, BuildError> {
            let files = match (shared, layout) {
                (Some(other), Layout::Packed) => RootFiles::SharedPacked(other),
                (Some(other), Layout::Cpio) => RootFiles::Shared(other),
                (None, layout) => {
                    let mut root = bundle::complete_packages(unpack(&paths)?)
                        .map_err(|source| place(&name, source))?;
                    if layout == Layout::Packed {
                        bundle::add_mount_points(&container, &mut root)
                            .map_err(|source| place(&name, source))?;
                        let options = packed::Options::new(mtime);
                        let (content, _) = packed::spool(&root, &options, &store.tmp_dir())?;
                        RootFiles::Packed(content)
                    } else {
                        RootFiles::Own(root)
                    }
                }
            };
            let tree = bundle::write(&container, config, &path, files)?;
            Ok(segment::write(&store, &name, &key, &tree, mtime)?)
        })
        .await?;
        task.finish();
        packed
    }
}

/// Every container, with the place of its bundle.
pub(super) fn places(spec: &Spec) -> Vec<(String, &ContainerSpec)> {
    let numbered = |section: &'static str| {
        move |(n, container): (usize, &'_ ContainerSpec)| {
            format!("/containers/{section}/{n:03}-{}", container.name.as_str())
        }
    };
    let with = |section, containers: &'_ [ContainerSpec]| {
        containers.iter().enumerate().map(numbered(section)).collect::<Vec<_>>()
    };
    let paths =
        with("onboot", &spec.onboot).into_iter().chain(with("onshutdown", &spec.onshutdown));
    let services =
        spec.services.iter().map(|c| format!("/containers/services/{}", c.name.as_str()));
    paths.chain(services).zip(spec.containers()).collect()
}
