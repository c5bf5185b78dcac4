use std::io;
use std::path::PathBuf;

use crate::tree::TreePathError;

/// A container or volume cannot be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BundleError {
    /// A user or group is the name of something that is not a container.
    #[error(
        "container `{container}` runs as `{user}`, which is not a container of `onboot`, `onshutdown` or `services`; \
         use the name of one, or a number"
    )]
    UnknownUser {
        /// The container.
        container: String,
        /// The name.
        user: String,
    },
    /// A volume is not there.
    #[error(
        "container `{container}` has the volume `{volume}` on `{destination}`, but the image has no volume of this \
         name; a path of the machine begins with `/`"
    )]
    UnknownVolume {
        /// The container.
        container: String,
        /// The name.
        volume: String,
        /// Where in the container.
        destination: String,
    },
    /// A volume that nothing can be written to is to be written to.
    #[error(
        "container `{container}` has the volume `{volume}` on `{destination}` to write to, but the volume is \
         read-only; give it the option `ro`"
    )]
    ReadOnlyVolume {
        /// The container.
        container: String,
        /// The name.
        volume: String,
        /// Where in the container.
        destination: String,
    },
    /// A seccomp profile cannot be read.
    #[error("cannot read the seccomp profile `{path}`")]
    ReadProfile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A seccomp profile is not one.
    #[error("the seccomp profile `{path}` is wrong: {problem}")]
    Profile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A path is too long or leads out of the image.
    #[error(transparent)]
    Path(#[from] TreePathError),
}
