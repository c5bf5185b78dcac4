//! What verbs that add, change and remove have in common, whatever their noun.

use hyper::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::client::Client;
use super::confirm::Sure;
use super::diff::{self, Would};
use super::machine::DryArg;
use super::print::{self, Listed};
use super::{ClientArgs, Failure};

/// Sends a document by POST and shows what came of it, or what would come of it.
pub(super) async fn post<T: Listed + DeserializeOwned>(
    client: &ClientArgs,
    dry: DryArg,
    (path, name): (&str, &str),
    document: &impl Serialize,
) -> Result<(), Failure> {
    let (server, body) = (Client::new(client), serde_json::to_vec(document)?);
    if dry.dry_run {
        return preview(client, &server, Method::POST, (path, name), body).await;
    }
    let row: T = server.post(path, body).await?;
    print::list(client, &[row])
}

/// Removes something after it was asked for, or says what would go. The question is made only where it is asked.
pub(super) async fn remove(
    client: &ClientArgs,
    (sure, dry): (Sure, DryArg),
    (path, name): (&str, &str),
    question: impl AsyncFnOnce(&Client) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let server = Client::new(client);
    if dry.dry_run {
        return preview(client, &server, Method::DELETE, (path, name), Vec::new()).await;
    }
    if !sure.yes {
        sure.ask(&question(&server).await?)?;
    }
    server.delete(path).await
}

/// Shows what a request would do.
pub(super) async fn preview(
    client: &ClientArgs,
    server: &Client,
    method: Method,
    (path, name): (&str, &str),
    body: Vec<u8>,
) -> Result<(), Failure> {
    let preview = server.preview(method, path, body).await?;
    diff::print(client, &[Would { name: name.to_owned(), preview }])
}
