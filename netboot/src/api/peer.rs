//! Who is at the other end of a connection, and who that makes him.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::serve::IncomingStream;
use kiln_inventory::NewMachine;
use nix::unistd::{Uid, User};
use tokio::net::UnixListener;

use super::problem::Fault;
use super::scope::Rights;

/// The other end of a connection, as the kernel tells it. Nothing that is in a request counts.
#[derive(Clone, Debug)]
pub(super) enum Peer {
    /// A program on this host, by its user.
    Local(String),
    /// Somebody on the network.
    Remote(IpAddr),
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

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Local(name) => f.pad(name),
            Self::Remote(address) => address.fmt(f),
        }
    }
}

/// The peer of a request.
#[derive(Clone, Debug)]
pub(super) struct PeerOf(pub(super) Peer);

impl<S: Send + Sync> FromRequestParts<S> for PeerOf {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        let peer = parts.extensions.get::<ConnectInfo<Peer>>();
        peer.map(|ConnectInfo(peer)| Self(peer.clone())).ok_or_else(stray)
    }
}

/// Who asks, and what he may.
#[derive(Clone, Debug)]
pub(super) struct Caller {
    /// As the log of changes names him.
    pub(super) name: String,
    pub(super) rights: Rights,
    /// The hash of the token that he came with, where he needs one.
    pub(super) token: Option<Arc<str>>,
}

impl Caller {
    /// Returns the user of a program on this host.
    pub(super) fn local(name: &str) -> Self {
        Self { name: name.to_owned(), rights: Rights::All, token: None }
    }

    /// Returns somebody who may do what anyone may.
    pub(super) fn nobody() -> Self {
        let rights = Rights::Some { scopes: [].as_slice().into(), machines: None };
        Self { name: "nobody".to_owned(), rights, token: None }
    }

    /// Refuses a machine that he could not see afterwards: with other labels it would be out of, or within, his reach.
    pub(super) fn may_make(&self, machine: &NewMachine) -> Result<(), Fault> {
        if self.rights.sees(&machine.labels) {
            return Ok(());
        }
        let text = "with these labels the machine would not be one of those that you may change";
        Err(Fault::new(StatusCode::FORBIDDEN, text).at("/labels".to_owned()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Fault> {
        parts.extensions.get::<Self>().cloned().ok_or_else(stray)
    }
}

fn stray() -> Fault {
    let text = "this request went past the rules of access";
    Fault::new(StatusCode::INTERNAL_SERVER_ERROR, text)
}
