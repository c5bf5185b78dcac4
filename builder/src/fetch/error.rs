use std::io;
use std::path::{Path, PathBuf};

use hyper::StatusCode;
use hyper_util::client::legacy::Error as ClientError;
use kiln_types::Digest;

use super::{MAX_REDIRECTS, SILENCE};
use crate::disk::is_full;

/// Why a download failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FetchError {
    /// The address cannot be used.
    #[error("cannot download from `{url}`: {reason}")]
    Address {
        /// The address.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The system's certificates cannot be read.
    #[error(
        "cannot read the certificates to check {url} with; install the package ca-certificates"
    )]
    Certificates {
        /// The address.
        url: String,
        /// The cause.
        source: io::Error,
    },
    /// No connection, or it broke before the answer.
    #[error("cannot reach {url}; check the network and the name of the mirror")]
    Connect {
        /// The address.
        url: String,
        /// The cause.
        source: ClientError,
    },
    /// The proxy cannot be used.
    #[error(
        "cannot reach {url} by the proxy {proxy}; check http_proxy and no_proxy, or the proxy of apt"
    )]
    Proxy {
        /// The address.
        url: String,
        /// The proxy.
        proxy: String,
        /// The cause.
        source: io::Error,
    },
    /// The connection broke within the answer.
    #[error("the download of {url} broke off; try again")]
    Body {
        /// The address.
        url: String,
        /// The cause.
        source: hyper::Error,
    },
    /// The server was silent for too long.
    #[error("{url} did not answer within {} s; check the network or try another mirror", SILENCE.as_secs())]
    Silent {
        /// The address.
        url: String,
    },
    /// The server answered with something other than the file.
    #[error("{url} answered `{status}`; check the name of the mirror and of the suite")]
    Status {
        /// The address.
        url: String,
        /// The answer.
        status: StatusCode,
    },
    /// One redirect led to the next.
    #[error("{url} redirects more than {MAX_REDIRECTS} times; try another mirror")]
    Redirects {
        /// The address.
        url: String,
    },
    /// More bytes than the limit or than were announced.
    #[error("{url} is larger than the {limit} bytes that were expected; it was not kept")]
    TooLarge {
        /// The address.
        url: String,
        /// The most that was accepted.
        limit: u64,
    },
    /// Fewer bytes than were announced.
    #[error("{url} ended after {got} of {expected} bytes; try again or try another mirror")]
    Short {
        /// The address.
        url: String,
        /// How many bytes came.
        got: u64,
        /// How many should have come.
        expected: u64,
    },
    /// The bytes are not those that were asked for.
    #[error(
        "{url} has the hash {got}, but {expected} was expected; the mirror is broken or being changed, try again later or try another one"
    )]
    Hash {
        /// The address.
        url: String,
        /// The hash of what came.
        got: Digest,
        /// The hash that was asked for.
        expected: Digest,
    },
    /// No space is left for the file.
    #[error("no space is left on the disk for {}; free some or choose another directory", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl FetchError {
    pub(super) fn write(path: &Path) -> impl Fn(io::Error) -> Self {
        move |source| match is_full(&source) {
            true => Self::DiskFull { path: path.to_owned() },
            false => Self::Write { path: path.to_owned(), source },
        }
    }

    /// Whether the bytes that came are at fault.
    pub(super) const fn is_about_content(&self) -> bool {
        matches!(self, Self::Hash { .. } | Self::TooLarge { .. })
    }

    /// Whether the same request may well succeed a moment later.
    pub(super) fn is_transient(&self) -> bool {
        match self {
            Self::Connect { .. }
            | Self::Proxy { .. }
            | Self::Body { .. }
            | Self::Silent { .. }
            | Self::Short { .. } => true,
            Self::Status { status, .. } => {
                status.is_server_error()
                    || matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            _ => false,
        }
    }
}
