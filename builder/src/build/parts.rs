//! What components are made of, once it is on disk, and the trees that come of it.

use std::path::PathBuf;

use super::component::{Bundle, Root, What};
use super::{BuildError, contents, keep, losses, state};
use crate::bundle::{self, RootFiles, VolumeFiles};
use crate::deb;
use crate::layer::{ApkDatabases, Limits, flatten, for_container, for_init};
use crate::oci::LayerFile;
use crate::packed;
use crate::spec::Layout;
use crate::store::Store;
use crate::tree::Tree;

/// What a component is made of, on disk.
#[derive(Default)]
pub(super) struct Parts {
    pub(super) packages: Vec<PathBuf>,
    pub(super) images: Vec<Layers>,
    /// An image that is kept as it is.
    pub(super) layout: Option<Tree>,
}

impl Parts {
    /// Lays the layers of all images over each other; the function changes each image first.
    fn flatten(
        &self,
        store: &Store,
        each: impl Fn(Tree) -> Result<Tree, BuildError>,
    ) -> Result<Tree, BuildError> {
        let mut root = Tree::new();
        for layers in &self.images {
            root.merge(each(layers.flatten(store)?)?);
        }
        Ok(root)
    }
}

/// Makes the tree of a component, and says what its archive cannot hold.
pub(super) fn tree(
    store: &Store,
    label: &str,
    what: What,
    parts: &Parts,
    mtime: u32,
    lost: &mut Vec<String>,
) -> Result<Tree, BuildError> {
    let place = |source| BuildError::Place { component: label.to_owned(), source };
    Ok(match what {
        What::Tree(tree) => tree,
        What::Volume { name, readonly, layout: Some(_), .. } => {
            let layout = VolumeFiles::Own(parts.layout.clone().unwrap_or_default());
            bundle::write_volume(&name, readonly, layout).map_err(place)?
        }
        What::Volume { name, readonly, .. } => {
            let root = parts.flatten(store, |root| for_init(root).map_err(place))?;
            *lost = losses::of_archive(&root, false);
            bundle::write_volume(&name, readonly, VolumeFiles::Own(root)).map_err(place)?
        }
        What::Init { .. } => {
            let mut databases = ApkDatabases::default();
            let mut root = Tree::new();
            for layers in &parts.images {
                let image = for_init(layers.flatten(store)?).map_err(place)?;
                databases
                    .add(&image)
                    .map_err(|source| BuildError::Source { path: "lib/apk".into(), source })?;
                root.merge(image);
            }
            databases.put(&mut root).map_err(place)?;
            *lost = losses::of_archive(&root, false);
            root
        }
        What::StateTools { packages, .. } => {
            let unpacked = unpack(&parts.packages)?;
            contents::remember(store, &packages, &parts.packages, &unpacked)?;
            state::tools(&unpacked)?
        }
        What::Container(bundle) => {
            let Bundle { container, path, place: at, .. } = &*bundle;
            let files = root(store, label, &bundle, parts, mtime, lost)?;
            files.place(container, &at.path(container, path)).map_err(place)?
        }
    })
}

/// Makes the root file system of a container, and says what is lost of it.
pub(super) fn root(
    store: &Store,
    label: &str,
    bundle: &Bundle,
    parts: &Parts,
    mtime: u32,
    lost: &mut Vec<String>,
) -> Result<RootFiles, BuildError> {
    let mut root = match &bundle.root {
        Root::Packages { pins, keep, place } => {
            let each = parts.packages.iter().map(|path| deb::unpack(path));
            let each = each.collect::<Result<Vec<_>, _>>()?;
            let mut all = Tree::new();
            each.iter().for_each(|tree| all.merge(tree.clone()));
            contents::remember(store, pins, &parts.packages, &all)?;
            if !keep.is_empty() {
                let names = pins.iter().map(|pin| pin.name.as_str());
                let owners = keep::owners(names.zip(&each));
                all = keep::keep(&all, &owners, keep).map_err(|source| {
                    let (place, container) = (place.clone(), label.to_owned());
                    BuildError::Keep { place, container, source }
                })?;
            }
            bundle::complete_packages(all)
        }
        Root::Image(image) => {
            let root = parts.flatten(store, Ok)?;
            contents::remember_image(store, image, &root)?;
            for_container(root)
        }
    }
    .map_err(|source| BuildError::Place { component: label.to_owned(), source })?;
    Ok(match bundle.layout {
        Layout::Cpio => {
            *lost = losses::of_archive(&root, true);
            RootFiles::Tree(root)
        }
        Layout::Packed => {
            bundle::add_mount_points(&bundle.container, &mut root)
                .map_err(|source| BuildError::Place { component: label.to_owned(), source })?;
            let options = packed::Options::new(mtime);
            let (content, packed) = packed::spool(&root, &options, &store.tmp_dir())?;
            *lost = losses::of_packed(&packed);
            RootFiles::Packed(content)
        }
    })
}

/// The layers of one image, on disk.
pub(super) struct Layers {
    pub(super) reference: String,
    pub(super) files: Vec<LayerFile>,
}

impl Layers {
    /// Lays them over each other.
    pub(super) fn flatten(&self, store: &Store) -> Result<Tree, BuildError> {
        flatten(&self.files, &Limits::default(), &store.tmp_dir()).map_err(|source| {
            BuildError::Flatten { reference: self.reference.clone(), source: Box::new(source) }
        })
    }
}

/// Unpacks packages over each other.
pub(super) fn unpack(paths: &[PathBuf]) -> Result<Tree, BuildError> {
    let mut tree = Tree::new();
    for path in paths {
        tree.merge(deb::unpack(path)?);
    }
    Ok(tree)
}
