use std::path::PathBuf;

/// A registry does not do what is asked. Addresses in the texts have no user names, passwords or tokens.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// It cannot be reached.
    #[error("cannot reach {host}: {problem}; check its name, the network and any proxy")]
    Unreachable {
        /// The host.
        host: String,
        /// Why.
        problem: String,
    },
    /// Nobody that is trusted vouches for it.
    #[error(
        "the certificate of {host} is not one that is trusted ({problem}); name the file of its authority in `ca` \
         under `[[registry]]`"
    )]
    Certificate {
        /// The host.
        host: String,
        /// Why.
        problem: String,
    },
    /// It talks without encryption.
    #[error(
        "{host} does not encrypt; if that is meant, set `plain-http = true` for it under `[[registry]]`"
    )]
    Plain {
        /// The host.
        host: String,
    },
    /// It wants to know who asks, or does not accept who does.
    #[error(
        "{host} wants a login for {what}, {who}; log in with `docker login`, or set `username` and `password-file` \
         under `[[registry]]`"
    )]
    Login {
        /// The host.
        host: String,
        /// Repository.
        what: String,
        /// Whether there was one.
        who: &'static str,
    },
    /// It knows who asks, and refuses.
    #[error("{host} does not allow {what} to this user")]
    Forbidden {
        /// The host.
        host: String,
        /// Repository.
        what: String,
    },
    /// It has no such image or part.
    #[error("{host} has no {what}; check the name and the tag")]
    NotFound {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
    },
    /// It asks to come back later, again and again.
    #[error(
        "{host} limits how much it gives (429) and still does after {tries} tries; log in, use a mirror, or wait"
    )]
    Busy {
        /// The host.
        host: String,
        /// How often it was asked.
        tries: u32,
    },
    /// It fails.
    #[error("{host} answers {status} for {what}")]
    Status {
        /// The host.
        host: String,
        /// The status.
        status: u16,
        /// What was asked for.
        what: String,
    },
    /// Its answer breaks off or stalls.
    #[error("{host} breaks off while it sends {what}: {problem}")]
    Broken {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// Why.
        problem: String,
    },
    /// It sends us to where only this host can go.
    #[error("{host} cannot be trusted with that: {problem}")]
    SentOn {
        /// The host.
        host: String,
        /// Where to.
        problem: String,
    },
    /// It sends more than fits.
    #[error("{host} sends more than {limit} bytes for {what}")]
    TooLarge {
        /// The host.
        host: String,
        /// What was asked for.
        what: String,
        /// The most that is taken.
        limit: u64,
    },
    /// A file of settings, certificates or passwords cannot be used.
    #[error("cannot use {}: {problem}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        problem: String,
    },
    /// The file that grows cannot be written.
    #[error("cannot write what {host} sends")]
    Write {
        /// The host.
        host: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl RegistryError {
    /// Returns whether the same request may succeed in a moment.
    pub(super) const fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Busy { .. } => true,
            Self::Status { status, .. } => *status >= 500,
            _ => false,
        }
    }
}
