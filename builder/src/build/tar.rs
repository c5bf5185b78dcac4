use std::io::BufWriter;
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use super::blocking::blocking;
use super::component::{self, Component, What};
use super::kernel::needs;
use super::pack::Packer;
use super::parts::unpack;
use super::resolve::Resolved;
use super::{BuildError, files};
use crate::disk::is_full;
use crate::durable::{folder_of, persist};
use crate::kernel;
use crate::layer::ApkDatabases;
use crate::oci::Image;
use crate::output::tar::{self, Part, TarError, kernel_tree};
use crate::spec::Spec;
use crate::tree::{Node, Tree};

/// A part of the archive: its tree, and what it came from and where the specification has it.
struct Source {
    source: String,
    location: String,
    tree: Tree,
}

impl Packer<'_, '_> {
    /// Writes everything in LinuxKit's form. The components are unpacked again: the archive has what segments lack,
    /// such as extended attributes.
    pub(super) async fn tar(
        &self,
        spec: &Spec,
        resolved: &Resolved,
        components: Vec<Component>,
        path: PathBuf,
    ) -> Result<PathBuf, BuildError> {
        let task = self.progress.begin("writing tar", None);
        let mut sources = vec![self.kernel_source(spec, resolved).await?];
        for component in components {
            match component {
                Component { what: What::Init { images, .. }, .. } => {
                    sources.extend(self.init_sources(images).await?);
                }
                Component { what: What::Tree(_), name, .. } if name == "files" => {
                    for (number, file) in spec.files.iter().enumerate() {
                        let (spec, file, ids) =
                            (spec.clone(), vec![file.clone()], component::ids(spec));
                        let tree = blocking(move || files::tree(&spec, &file, &ids)).await??;
                        let location = format!("files[{number}]");
                        sources.push(Source {
                            source: "linuxkit.files".to_owned(),
                            location,
                            tree,
                        });
                    }
                }
                other => {
                    let (source, location) = (other.source.clone(), other.location.clone());
                    sources.push(Source { source, location, tree: self.tree(other).await? });
                }
            }
        }
        sources.sort_by_key(|source| Part::order(&source.location));
        let mtime = self.packing.mtime;
        let written = blocking(move || write(&sources, mtime, &path).map(|()| path)).await?;
        task.finish();
        written
    }

    async fn kernel_source(&self, spec: &Spec, resolved: &Resolved) -> Result<Source, BuildError> {
        let wanted = spec.kernel.clone();
        let line = wanted.cmdline.as_ref().and_then(|line| line.get(self.packages.arch));
        let line = line.unwrap_or_default().to_owned();
        let image = wanted.image.as_deref().and_then(|reference| resolved.image(reference));
        let (source, layers, paths) = match image {
            Some(image) => (image.reference.to_string(), Some(self.layers(image).await?), vec![]),
            None => {
                let names: Vec<_> = resolved.kernel.iter().map(|it| it.name.as_str()).collect();
                (names.join(", "), None, self.fetch(&resolved.kernel).await?)
            }
        };
        let needs = needs(spec);
        let store = self.store.clone();
        let parts = self.module_parts(&wanted, &resolved.firmware, needs).await?;
        let chosen = wanted.modules.is_some() || wanted.firmware.is_some();
        blocking(move || {
            let (found, modules) = match layers {
                Some(layers) => {
                    let mut found = kernel::from_image(&layers.flatten(&store)?, &wanted)?;
                    let mut modules = std::mem::take(&mut found.modules);
                    if chosen {
                        modules = parts.of_image(&store, modules, &found.release)?.0.tree;
                    }
                    (found, modules)
                }
                None => {
                    let tree = unpack(&paths)?;
                    let found = kernel::from_packages(&tree, &source)?;
                    let modules = parts.of_packages(&store, &tree, &found.release)?.0.tree;
                    (found, modules)
                }
            };
            // As there, it keeps the permissions that it has in its image.
            let file = Node::file(found.mode, found.bytes);
            let tree = kernel_tree(file, &line, found.ucode, modules)
                .map_err(|source| BuildError::Place { component: "kernel".to_owned(), source })?;
            Ok(Source { source, location: "kernel".to_owned(), tree })
        })
        .await?
    }

    /// Each image on its own, and at last what is installed in all of them.
    async fn init_sources(&self, images: Vec<Image>) -> Result<Vec<Source>, BuildError> {
        let mut databases = ApkDatabases::default();
        let mut sources = Vec::new();
        for (number, image) in images.into_iter().enumerate() {
            let (source, location) = (image.reference.to_string(), format!("init[{number}]"));
            let what =
                What::Init { images: vec![image], key: kiln_types::Digest::from_bytes([0; 32]) };
            let component = Component {
                name: "init".to_owned(),
                source: String::new(),
                location: String::new(),
                what,
            };
            let tree = self.tree(component).await?;
            databases
                .add(&tree)
                .map_err(|e| BuildError::Source { path: "lib/apk".into(), source: e })?;
            sources.push(Source { source, location, tree });
        }
        let mut tree = Tree::new();
        databases
            .put(&mut tree)
            .map_err(|source| BuildError::Place { component: "init".to_owned(), source })?;
        let location = sources.last().map(|source| source.location.clone()).unwrap_or_default();
        sources.push(Source { source: String::new(), location, tree });
        Ok(sources)
    }
}

fn write(sources: &[Source], mtime: u32, path: &Path) -> Result<(), BuildError> {
    let failed = |source| match is_full(&source) {
        true => BuildError::ExportFull { path: path.to_owned() },
        false => BuildError::Export { path: path.to_owned(), source },
    };
    let parts: Vec<_> = sources
        .iter()
        .map(|Source { source, location, tree }| Part { source, location, tree })
        .collect();
    let dir = folder_of(path);
    std::fs::create_dir_all(dir).map_err(failed)?;
    let mut file = NamedTempFile::new_in(dir).map_err(failed)?;
    let mut out = BufWriter::with_capacity(1 << 17, file.as_file_mut());
    tar::write(&parts, mtime, &mut out).map_err(|error| match error {
        TarError::Member { source, .. } | TarError::End(source) if is_full(&source) => {
            failed(source)
        }
        other => BuildError::Tar(other),
    })?;
    drop(out);
    persist(file, path, 0o644).map_err(failed)
}
