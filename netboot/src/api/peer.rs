//! Who is at the other end of a connection.

use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;

use super::problem::Fault;

/// The other end of a connection, as the kernel tells it. Nothing that is in a request counts.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A program on this host, by its user.
    Local(String),
}

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let uid = stream.io().peer_cred().map(|peer| Uid::from_raw(peer.uid()));
        Self::Local(uid.map_or_else(|_| "unknown".to_owned(), named))
    }
}

fn named(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => format!("uid {uid} ({})", user.name),
        _ => format!("uid {uid}"),
    }
}

/// Who asks, and what he may.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// As the log of changes names him.
    pub(super) name: String,
}

impl Caller {
    /// Finds out who asks.
    pub(super) fn of(request: &Request) -> Option<Self> {
        let ConnectInfo(peer) = request.extensions().get::<ConnectInfo<Peer>>()?;
        match peer {
            Peer::Local(name) => Some(Self { name: name.clone() }),
        }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let text = "this request went past the rules of access";
        let status = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Fault::new(status, text))
    }
}
