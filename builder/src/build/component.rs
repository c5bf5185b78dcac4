use std::collections::BTreeMap;

use kiln_types::{Arch, Digest};

use super::key::{add_packages, key};
use super::resolve::Resolved;
use super::{BuildError, state};
use crate::bundle::seccomp::Profile;
use crate::bundle::{self, Ids, RootPlace, Surroundings, VolumeFiles, Volumes};
use crate::hash::Hasher;
use crate::lock::PackagePin;
use crate::oci::Image;
use crate::segment::Packing;
use crate::spec::{
    self, Container, ContainerSpec, InitSpec, LABEL, Layout, Placed, Spec, VolumeFormat,
};
use crate::tree::Tree;

/// A part of an image that becomes one segment.
#[derive(Clone)]
pub(super) struct Component {
    pub(super) name: String,
    /// The image or packages it is made from.
    pub(super) source: String,
    /// Where the specification has it, in LinuxKit's words: `services[0]`.
    pub(super) location: String,
    pub(super) what: What,
}

/// What a component is made of.
#[derive(Clone)]
pub(super) enum What {
    /// These files; what is in them is the key.
    Tree(Tree),
    /// A volume with the files of an image.
    Volume {
        name: String,
        readonly: bool,
        image: Box<Image>,
        /// The image is kept as it is, in a layout.
        layout: Option<VolumeLayout>,
        /// Digest of all that decides about its bytes.
        key: Digest,
    },
    /// Images over the root file system, in order.
    Init {
        images: Vec<Image>,
        /// Digest of all that decides about its bytes.
        key: Digest,
    },
    /// Programs for the state partition.
    StateTools {
        packages: Vec<PackagePin>,
        /// Digest of all that decides about its bytes.
        key: Digest,
    },
    /// A container.
    Container(Box<Bundle>),
}

/// What is kept of an image.
#[derive(Clone)]
pub(super) struct VolumeLayout {
    /// Its index or manifest.
    pub(super) root: Digest,
    /// As `linux/arm64`; all when there are none.
    pub(super) platforms: Vec<String>,
}

impl What {
    /// Returns whether there are files of its own, and so a segment.
    pub(super) fn has_files(&self) -> bool {
        !matches!(self, Self::Container(bundle) if !bundle.first)
    }

    /// Returns whether it brings a packed file system.
    pub(super) fn is_packed(&self) -> bool {
        matches!(self, Self::Container(bundle) if bundle.layout == Layout::Packed)
    }
}

/// A container, whose files are made only when they are needed.
#[derive(Clone)]
pub(super) struct Bundle {
    pub(super) container: Container,
    pub(super) config: Vec<u8>,
    /// Where it goes.
    pub(super) path: String,
    pub(super) root: Root,
    pub(super) layout: Layout,
    /// Where its files are in an initrd: named by what they are, and in a segment without anything of the container
    /// itself, which any specification may take.
    pub(super) place: RootPlace,
    /// Where LinuxKit has them.
    pub(super) linuxkit: RootPlace,
    /// Whether no container before it has the same files.
    pub(super) first: bool,
    /// Digest of all that decides about the bytes of its files.
    pub(super) key: Digest,
}

impl Bundle {
    /// Returns all of it but its files, as it is in an initrd.
    pub(super) fn settings(&self) -> Result<Tree, BuildError> {
        Ok(bundle::write(&self.container, self.config.clone(), &self.path, &self.place)?)
    }
}

/// A root file system.
#[derive(Clone)]
pub(super) enum Root {
    /// Of these packages.
    Packages {
        pins: Vec<PackagePin>,
        /// What is kept of them; all when nothing is named. Sorted.
        keep: Vec<String>,
        /// Where that is named.
        place: spec::Place,
    },
    /// Of an image.
    Image(Box<Image>),
}

impl Root {
    /// Returns the digests of what it is made of.
    fn digests(&self) -> Vec<Digest> {
        match self {
            Self::Packages { pins, .. } => pins.iter().map(|package| package.sha256).collect(),
            Self::Image(image) => vec![image.digest],
        }
    }

    fn kept(&self) -> &[String] {
        match self {
            Self::Packages { keep, .. } => keep,
            Self::Image(_) => &[],
        }
    }
}

/// Makes the list of components out of a specification.
pub(super) struct Components<'a> {
    pub(super) spec: &'a Spec,
    pub(super) arch: Arch,
    pub(super) resolved: &'a Resolved,
    pub(super) packing: Packing,
}

impl Components<'_> {
    /// Returns a component for each volume and container, in the order in which the kernel unpacks them.
    pub(super) fn list(&self, containers: &[Container]) -> Result<Vec<Component>, BuildError> {
        let spec = self.spec;
        let ids = ids(spec);
        let volumes = Volumes::new(spec.volumes.iter().map(|v| (v.name.as_str(), v.readonly)));
        let mut list = Vec::new();
        if spec.state.is_some() {
            let packages = self.resolved.state.clone();
            let mut key = key("state-tools", self.packing);
            add_packages(&mut key, &packages);
            let (name, key) = (state::COMPONENT.to_owned(), key.finish());
            let (source, location) = (state::PACKAGE.to_owned(), "state".to_owned());
            let what = What::StateTools { packages, key };
            list.push(Component { name, source, location, what });
        }
        for (number, volume) in spec.volumes.iter().enumerate() {
            let location = format!("volume[{number}]");
            let source = volume.image.as_deref().map(ToString::to_string).unwrap_or_default();
            let name = volume.name.as_str();
            if let Some(reference) = volume.image.as_deref() {
                let image =
                    self.resolved.image(reference).cloned().ok_or(BuildError::Interrupted)?;
                let mut key = key("volume", self.packing);
                key.field(name);
                key.field(&format!("{}", volume.readonly));
                key.update(Digest::as_bytes(&image.digest));
                let oci = volume.format.as_deref() == Some(&VolumeFormat::Oci);
                let layout = oci.then(|| VolumeLayout {
                    root: self.resolved.root(&image),
                    platforms: volume.platforms.clone(),
                });
                if let Some(VolumeLayout { root, platforms }) = &layout {
                    key.field(&format!("{root} {reference} {platforms:?}"));
                }
                let (key, image) = (key.finish(), Box::new(image));
                let readonly = volume.readonly;
                let name_of = name.to_owned();
                let what = What::Volume { name: name_of, readonly, image, layout, key };
                let name = format!("volume-{name}");
                list.push(Component { name, source, location, what });
                continue;
            }
            let tree = bundle::write_volume(name, volume.readonly, VolumeFiles::Empty).map_err(
                |source| BuildError::Place { component: format!("volume-{name}"), source },
            )?;
            let (name, what) = (format!("volume-{name}"), What::Tree(tree));
            list.push(Component { name, source, location, what });
        }
        // Places of the same files, with the same mount points: a second container takes them from there.
        let mut roots = BTreeMap::new();
        for ((Place { path, location }, written), container) in
            places(spec).into_iter().zip(containers)
        {
            let profile = Profile::load(&container.seccomp)?;
            let around = Surroundings {
                arch: self.arch,
                ids: &ids,
                volumes: &volumes,
                seccomp: profile.as_ref(),
            };
            let mut container = container.clone();
            let root = match written.image.as_deref() {
                Some(reference) => {
                    let image = self.resolved.image(reference).cloned();
                    Root::Image(Box::new(image.ok_or(BuildError::Interrupted)?))
                }
                None => {
                    bundle::package_environment(&mut container);
                    let packages = self.resolved.containers.get(&written.deb);
                    let names = written.keep.iter().map(|name| String::clone(name));
                    let mut keep: Vec<_> = names.collect();
                    keep.sort();
                    keep.dedup();
                    let named =
                        written.keep.first().map_or_else(|| written.name.place(), Placed::place);
                    let (pins, place) = (packages.cloned().unwrap_or_default(), named.clone());
                    Root::Packages { pins, keep, place }
                }
            };
            let layout = self.spec.layout_of(written);
            let mut id = Hasher::default();
            root.digests().iter().for_each(|digest| id.update(Digest::as_bytes(digest)));
            id.field(&format!("{layout:?}"));
            root.kept().iter().for_each(|name| id.field(&format!("keep {name}")));
            bundle::mount_points(&container).iter().for_each(|point| id.field(point));
            let id = id.finish();
            let mut key = key("root", self.packing);
            key.update(id.as_bytes());
            let own = match layout {
                Layout::Packed => RootPlace::Packed(format!("{path}/root.sqfs")),
                Layout::Cpio => RootPlace::Bundle,
            };
            let (linuxkit, first) = match roots.get(&id) {
                Some(other) => (RootPlace::clone(other), false),
                None => {
                    let other = match &own {
                        RootPlace::Bundle => RootPlace::Dir(own.path(&container, &path)),
                        packed => packed.clone(),
                    };
                    roots.insert(id, other);
                    (own, true)
                }
            };
            let config = bundle::config_json(&container, around)?;
            list.push(Component {
                name: container.name.as_str().to_owned(),
                source: match written.image.as_deref() {
                    Some(image) => image.to_string(),
                    None => written.deb.join(", "),
                },
                location,
                what: What::Container(Box::new(Bundle {
                    container,
                    config,
                    path,
                    root,
                    layout,
                    place: RootPlace::named(&id, layout == Layout::Packed),
                    linuxkit,
                    first,
                    key: key.finish(),
                })),
            });
        }
        Ok(list)
    }
}

/// Settles every container over the label of its image and what the image says itself.
pub(super) fn settle(spec: &Spec, resolved: &Resolved) -> Result<Vec<Container>, BuildError> {
    let settled = spec.containers().map(|written| {
        let image = written.image.as_deref().and_then(|reference| resolved.image(reference));
        let label = match image.and_then(|image| Some((image, image.config.labels.get(LABEL)?))) {
            Some((image, text)) => Some(spec::label(&image.reference, text)?),
            None => None,
        };
        Ok(written.settle(label.as_ref(), image.map(|image| &image.config)))
    });
    settled.collect()
}

/// Returns the images of `init`, in order.
pub(super) fn init_images(spec: &Spec, resolved: &Resolved) -> Vec<Image> {
    let images = spec.init.iter().filter_map(|entry| match &**entry {
        InitSpec::Kiln => None,
        InitSpec::Image(reference) => resolved.image(reference).cloned(),
    });
    images.collect()
}

/// Returns the numbers that the names of containers stand for.
pub(super) fn ids(spec: &Spec) -> Ids {
    Ids::new(spec.containers().map(|container| container.name.as_str()))
}

/// Returns the bundle of every container in the machine.
pub(super) fn bundles(spec: &Spec) -> Vec<String> {
    places(spec).into_iter().map(|(place, _)| place.path).collect()
}

/// Where a container is: its bundle in the machine, and itself in the specification.
struct Place {
    path: String,
    location: String,
}

/// Every container, with its place.
fn places(spec: &Spec) -> Vec<(Place, &ContainerSpec)> {
    let sections =
        [("onboot", &spec.onboot), ("onshutdown", &spec.onshutdown), ("services", &spec.services)];
    let place = |section: &str, n: usize, container: &ContainerSpec| {
        let (name, location) = (container.name.as_str(), format!("{section}[{n}]"));
        let path = match section {
            "services" => format!("/containers/services/{name}"),
            _ => format!("/containers/{section}/{n:03}-{name}"),
        };
        Place { path, location }
    };
    sections
        .into_iter()
        .flat_map(|(section, containers)| {
            let numbered = containers.iter().enumerate();
            numbered.map(move |(n, container)| (place(section, n, container), container))
        })
        .collect()
}
