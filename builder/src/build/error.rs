use std::io;
use std::path::PathBuf;

use kiln_types::ParseImageRefError;

use super::keep::KeepError;
use crate::bundle::BundleError;
use crate::deb::{DebError, ResolveError};
use crate::init_binary::InitBinaryError;
use crate::kernel::KernelError;
use crate::layer::LayerError;
use crate::lock::LockError;
use crate::modules::ModulesError;
use crate::oci::OciError;
use crate::output::tar::TarError;
use crate::output::{Format, OutputError, StubError};
use crate::packed::PackedError;
use crate::segment::SegmentError;
use crate::spec::{Place, SpecError};
use crate::store::StoreError;
use crate::tree::TreePathError;
use crate::trust::TrustError;

/// An image cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The specification is wrong.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The image has no usable name.
    #[error("the image needs a name; give one with --name")]
    Name(#[from] ParseImageRefError),
    /// The time of all files is nonsense.
    #[error("SOURCE_DATE_EPOCH is `{0}`; it must be a number of seconds since 1970")]
    SourceDateEpoch(String),
    /// A package could not be had or read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Packages that fit together could not be found.
    #[error("{place}: cannot find the packages of `{component}`")]
    Resolve {
        /// Where the specification asks for them.
        place: Place,
        /// The component.
        component: String,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// There is no package with firmware of that name where packages are looked for.
    #[error(
        "{place}: there is no package `{name}`; most firmware is in another part of Debian's archive, which \
         `debian: {{components: [main, non-free-firmware]}}` adds"
    )]
    NoFirmware {
        /// Where it is named.
        place: Place,
        /// The name.
        name: String,
    },
    /// A package lacks what checks and makes the state partition.
    #[error(
        "the programs for the state partition are not complete: `{file}` is missing or no program of Linux"
    )]
    StateTools {
        /// The file.
        file: String,
    },
    /// What is to be kept of packages cannot be kept.
    #[error("{place}: container `{container}` cannot keep what it names")]
    Keep {
        /// Where it is named.
        place: Place,
        /// The container.
        container: String,
        /// Why.
        #[source]
        source: KeepError,
    },
    /// There is no kernel in the kernel package.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The specification names a module that the kernel does not have.
    #[error("{place}: kernel {release} has no module `{name}`")]
    NoModule {
        /// Where it is named.
        place: Place,
        /// The name.
        name: String,
        /// The kernel.
        release: String,
    },
    /// The kernel's modules could not be put together.
    #[error(transparent)]
    Modules(#[from] ModulesError),
    /// There is no kiln-init.
    #[error(transparent)]
    Init(#[from] InitBinaryError),
    /// A container cannot be written.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The files of a container could not be packed.
    #[error(transparent)]
    Packed(#[from] PackedError),
    /// A path of the image is too long.
    #[error("cannot place `{component}` in the image")]
    Place {
        /// The component.
        component: String,
        /// Why.
        #[source]
        source: TreePathError,
    },
    /// A file of the specification could not be opened.
    #[error("{place}: cannot read `{path}`")]
    Open {
        /// Where the specification names it.
        place: Place,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file of the specification could not be read to its end.
    #[error("cannot read `{path}`, which the specification puts into the image")]
    Source {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A segment could not be written.
    #[error(transparent)]
    Segment(#[from] SegmentError),
    /// The manifest could not be written as JSON.
    #[error("cannot write the manifest")]
    Manifest(#[source] serde_json::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No space is left to export the result.
    #[error("no space is left on the disk for {}; free some or choose another directory", path.display())]
    ExportFull {
        /// The file.
        path: PathBuf,
    },
    /// The result could not be exported.
    #[error("cannot export to `{path}`")]
    Export {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A place where images should be is of no use.
    #[error(transparent)]
    Sources(Box<OciError>),
    /// An image could not be found.
    #[error("{place}: cannot get image `{reference}`")]
    Image {
        /// Where the specification names it.
        place: Place,
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Box<OciError>,
    },
    /// An image could not be fetched.
    #[error("cannot fetch the layers of image `{reference}`")]
    Layers {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Box<OciError>,
    },
    /// The layers of an image could not be laid over each other.
    #[error("cannot unpack image `{reference}`")]
    Flatten {
        /// The image.
        reference: String,
        /// Why.
        #[source]
        source: Box<LayerError>,
    },
    /// A package of the lock is no longer there.
    #[error(
        "package {package} {version}, which the lock file names, is no longer on the mirror; name a snapshot archive with `debian.snapshot`, or take what there is now with `kiln image update`"
    )]
    Gone {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// What the mirror said.
        #[source]
        source: Box<DebError>,
    },
    /// The network would be needed, and must not be used.
    #[error("{what} is neither in the lock file nor in the cache, and `--offline` is given")]
    Offline {
        /// What is missing.
        what: String,
    },
    /// The lock file is of no use, or would have to change.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The version could not be signed.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// A format that cannot be written.
    #[error("the format `{format}` cannot be written by a build")]
    Format {
        /// The format.
        format: Format,
    },
    /// systemd's stub could not be had.
    #[error(transparent)]
    Stub(#[from] StubError),
    /// A format could not be written.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The tar could not be written.
    #[error(transparent)]
    Tar(#[from] TarError),
    /// The program is ending.
    #[error("the build was interrupted")]
    Interrupted,
}
