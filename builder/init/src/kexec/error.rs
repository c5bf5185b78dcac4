use crate::http::HttpError;

/// Why a machine does not change to another version.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KexecError {
    #[error("the kernel that runs cannot start another one (CONFIG_KEXEC_FILE); reboot instead")]
    Unsupported(#[source] nix::Error),
    #[error("cannot fetch {what}")]
    Fetch { what: String, source: HttpError },
    #[error("cannot fetch {what}: the server answers {status}")]
    Status { what: String, status: u16 },
    #[error("{0} is not what its digest says")]
    Digest(String),
    #[error("the manifest is larger than {0} bytes")]
    ManifestSize(u64),
    #[error("the manifest makes no sense: {0}")]
    Manifest(String),
    #[error("the version is not signed by a key that this machine knows")]
    Signature,
    #[error("the version needs {needed} MB of memory, and {free} MB are free; reboot instead")]
    NoRoom { needed: u64, free: u64 },
    #[error("the version needs a machine with {needed} MB of memory, and this one has {total} MB")]
    TooSmall { needed: u64, total: u64 },
    #[error("cannot make room for what is fetched")]
    Memory(#[source] nix::Error),
    #[error("the new kernel cannot be placed in memory: {0}")]
    Place(String),
    #[error("the kernel that runs does not take the new one")]
    Load(#[source] nix::Error),
}

impl KexecError {
    /// Says whether it may go better the next time: a server with too much to do, or one that is away for a moment.
    pub(super) const fn is_passing(&self) -> bool {
        match self {
            Self::Fetch { source, .. } => source.is_passing(),
            Self::Status { status, .. } => matches!(status, 408 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }
}
